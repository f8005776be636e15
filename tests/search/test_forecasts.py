"""What unfinished learning curves are expected to reach."""

from __future__ import annotations

import math

import pytest
from searching import ACCURACY

from cnnsweep.config.objective import Objective
from cnnsweep.search.curve_model import (
    ASSUMED,
    ASSUMED_SPREAD,
    DOUBT,
    DOUBT_OF_NEW,
    EQUALS,
    GAIN,
    LATEST,
    OTHERS,
    SHRINKING,
    forecasts,
    most_promising,
)
from cnnsweep.search.observations import Curves

RUNGS = (1, 3, 9)
LOSS = Objective.of("val_loss")


def curves(**accuracies):
    """Of accuracies by epoch; the search keeps them with their sign changed."""
    return Curves({id_: {epoch: -value for epoch, value in found.items()} for id_, found in accuracies.items()})


def test_a_copy_of_what_has_ended_is_expected_to_end_as_it_did():
    """It began better than another that has not ended, whose kind gained more."""
    slow, fast = {1: 0.80, 3: 0.86, 9: 0.90}, {1: 0.84, 3: 0.85, 9: 0.86}
    ended = {f"fast {n}": fast for n in range(5)} | {f"slow {n}": slow for n in range(5)}
    known = curves(**ended, copy={1: 0.84}, other={1: 0.835})
    places = {**{id_: [3.0 * id_.startswith("slow"), 0.0] for id_ in ended}, "copy": [0.0, 0.0], "other": [3.0, 0.0]}
    found = forecasts(known, places, RUNGS, ACCURACY)
    assert found["other"].mean < found["copy"].mean
    alike = forecasts(known, {key: [0.0, 0.0] for key in places}, RUNGS, ACCURACY)
    assert alike["other"].mean > alike["copy"].mean, "where nothing tells them apart the better start decides"


def test_changes_are_means_of_those_of_like_configurations_and_of_all():
    known = curves(ended={1: 0.8, 3: 0.8, 9: 0.9}, near={1: 0.8, 3: 0.8})
    change = math.log(0.1 / 0.2)
    mean = (change - ASSUMED * GAIN * math.log(3)) / (1 + ASSUMED)
    for place, share in (([0.0, 0.0], 1.0), ([1.0, 0.0], math.exp(-1)), ([9.0, 0.0], 0.0)):
        found = forecasts(known, {"ended": [0.0, 0.0], "near": place}, RUNGS, ACCURACY)
        expected = math.log(0.2) + (share * change + OTHERS * mean) / (share + OTHERS)
        assert found["near"].mean == pytest.approx(expected)
        assert found["ended"].mean == pytest.approx(math.log(0.1))


@pytest.mark.parametrize("rungs", [(1, 9), (1, 3, 9), (1, 2, 4, 9)])
def test_a_lead_shrinks_with_the_epochs_and_not_with_the_number_of_rungs(rungs):
    known = curves(ahead={1: 0.8}, behind={1: 0.7})
    found = forecasts(known, {"ahead": [0.0], "behind": [0.0]}, rungs, ACCURACY)
    left = 0.46  # as docs/search.md has it
    assert found["behind"].mean - found["ahead"].mean == pytest.approx(left * math.log(0.3 / 0.2), rel=0.01)


def test_what_longer_curves_gain_besides_is_expected_of_others_too():
    """Two leads that shrink as assumed, unlike each other and the new one, so that only the mean of all counts."""
    shrunk, gains = 3**-SHRINKING, {3: 0.9, 9: 0.5}
    a, b, new = math.log(0.2), math.log(0.4), math.log(0.3)
    ended = {"a": {1: 0.8}, "b": {1: 0.6}}
    for epoch, gain in gains.items():
        middle, expected = (a + b) / 2, (2 * gain + ASSUMED * GAIN * math.log(3)) / (2 + ASSUMED)
        a, b = (middle + shrunk * (value - middle) - gain for value in (a, b))
        new = middle + shrunk * (new - middle) - expected
        ended["a"][epoch], ended["b"][epoch] = 1 - math.exp(a), 1 - math.exp(b)
    found = forecasts(curves(**ended, new={1: 0.7}), {"a": [0.0], "b": [20.0], "new": [40.0]}, RUNGS, ACCURACY)
    assert found["new"].mean == pytest.approx(new)


def test_what_is_unknown_of_early_changes_shrinks_as_leads_do():
    found = forecasts(curves(new={1: 0.7}), {"new": [0.0]}, RUNGS, ACCURACY)["new"]
    both = math.log(3) * math.hypot(1, 3**-SHRINKING)
    assert (found.deviation, found.doubt) == (pytest.approx(DOUBT * both), pytest.approx(DOUBT_OF_NEW * both))


@pytest.mark.filterwarnings("error")
def test_without_curves_nothing_is_expected():
    assert forecasts(curves(), {"new": [0.0]}, RUNGS, ACCURACY) == {}


def test_changes_are_those_of_the_latest_curves_so_that_memory_grows_with_trials_and_not_with_their_square():
    older = {f"older {n}": {1: 0.5, 9: 0.5} for n in range(10 * LATEST)}
    latest = {f"latest {n}": {1: 0.5, 9: 0.9} for n in range(LATEST)}
    known = curves(**older, **latest, new={1: 0.5})
    found = forecasts(known, {key: [0.0] for key in known.by_id}, (1, 9), ACCURACY)
    assert found["new"].mean == pytest.approx(math.log(0.1), abs=0.05)


def test_copies_of_a_configuration_count_as_one_in_the_mean_of_all():
    """Else a search that has only trained copies of one network believes that all gain as little."""
    copies = {f"copy {n}": {1: 0.5, 9: 0.6} for n in range(20)}
    known = curves(**copies, another={1: 0.5, 9: 0.9}, new={1: 0.5})
    places = {**{id_: [0.0] for id_ in copies}, "another": [50.0], "new": [100.0]}
    found = forecasts(known, places, (1, 9), ACCURACY)
    gains = math.log(0.4 / 0.5), math.log(0.1 / 0.5)
    mean = (sum(gains) - ASSUMED * GAIN * math.log(9)) / (2 + ASSUMED)
    assert found["new"].mean == pytest.approx(math.log(0.5) + mean)
    spread = sum((gain - mean) ** 2 for gain in gains) + ASSUMED_SPREAD * (DOUBT_OF_NEW * math.log(9)) ** 2
    assert found["new"].doubt ** 2 == pytest.approx(spread / (2 + ASSUMED_SPREAD))


def test_a_copy_of_what_has_ended_promises_less_than_what_is_unlike_it():
    ended = {f"ended {n}": {1: 0.80, 9: 0.85} for n in range(5)}
    known = curves(**ended, copy={1: 0.80}, other={1: 0.79})
    places = {**{id_: [0.0] for id_ in ended}, "copy": [0.0], "other": [9.0]}
    found = forecasts(known, places, (1, 9), ACCURACY)
    waiting = {name: found[name] for name in ("copy", "other")}
    assert waiting["copy"].mean < waiting["other"].mean, "the copy is expected to end better"
    assert waiting["copy"].doubt ** 2 == pytest.approx(waiting["other"].doubt ** 2 * EQUALS / (5 + EQUALS))
    assert most_promising(waiting, found["ended 0"].mean) == "other"
    assert most_promising(waiting, math.inf) == "copy", "nothing has ended that could be improved on"
    assert most_promising(waiting, -1e6) == "copy", "nothing can improve on that"


def test_a_copy_of_what_is_being_trained_promises_less_as_well():
    known = curves(going={1: 0.80}, copy={1: 0.80}, other={1: 0.79})
    places = {"going": [0.0], "copy": [0.0], "other": [9.0]}
    without = forecasts(known, places, (1, 9), ACCURACY)
    found = forecasts(known, places, (1, 9), ACCURACY, {"going": 9})
    assert [f.mean for f in found.values()] == [f.mean for f in without.values()], "nothing has been observed"
    assert found["copy"].doubt ** 2 == pytest.approx(without["copy"].doubt ** 2 * EQUALS / (1 + EQUALS))
    assert found["other"].doubt == pytest.approx(without["other"].doubt)
    assert most_promising({n: found[n] for n in ("copy", "other")}, found["going"].mean) == "other"
    assert forecasts(known, places, (1, 9), ACCURACY, {"going": 3}) == without, "not to the rung in question"


def test_a_loss_without_its_first_epoch_is_none_of_zero():
    """One that was not finite: it begins as it goes on, and does not spoil what others are expected to gain."""
    losses = {f"loss {n}": {1: 2.0, 3: 1.0, 9: 0.5} for n in range(4)}
    places = {**{id_: [float(n)] for n, id_ in enumerate(losses)}, "other": [9.0]}
    whole = forecasts(Curves({**losses, "other": {1: 2.0}}), places, RUNGS, LOSS)
    gap = forecasts(Curves({**losses, "loss 3": {3: 1.0, 9: 0.5}, "other": {1: 2.0}}), places, RUNGS, LOSS)
    assert gap["other"].mean == pytest.approx(whole["other"].mean, abs=0.1)
    assert gap["other"].doubt == pytest.approx(whole["other"].doubt, abs=0.1)

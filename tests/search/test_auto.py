"""Search `auto`: many first epochs, then the most promising configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from searching import ACCURACY, FLAT

from cnnsweep.config.objective import Objective
from cnnsweep.search import auto
from cnnsweep.search.auto import FIRST_LOOKS, LOOKS
from cnnsweep.search.curve_model import Forecast
from cnnsweep.search.prior import expected_error
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import Problem, make_problem


@pytest.mark.parametrize("unit", [1, 100, -1], ids=["share", "percent", "negative"])
def test_configurations_have_an_epoch_each_before_the_best_goes_on_to_the_end(start, unit):
    objective = Objective("val_score", "max" if unit > 0 else "min")
    _, search = start("auto", FLAT, objective, training={"epochs": 9}, budget={"trials": 40})
    looks = []
    for number in range(FIRST_LOOKS):
        looks.append(search.ask("a"))
        assert looks[-1].continues is None
        value = 0.9 if number == 3 else 0.1 + number / 100
        assert not search.report(looks[-1].id, 1, {"val_score": unit * value}), "another is to be looked at first"
        search.end(looks[-1].id, succeeded=True)
    best = search.ask("a")
    assert (best.continues, best.values) == (looks[3].id, looks[3].values)
    kept_on = [search.report(best.id, epoch, {"val_score": unit * 0.9}) for epoch in range(2, 10)]
    assert kept_on[:7] == [True] * 7, "so that one is complete early"


def continuing(start):
    """A search that has looked at a few configurations, and the proposal that continues the best of them."""
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 40})
    for number in range(FIRST_LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5 - number / 1000})
        search.end(look.id, succeeded=True)
    return search, search.ask("a")


def test_a_configuration_that_falls_behind_makes_way_at_its_rung(start):
    search, first = continuing(start)
    assert search.report(first.id, 2, {"val_accuracy": 0.1})
    assert not search.report(first.id, 3, {"val_accuracy": 0.1})


def test_what_is_continued_is_to_improve_on_the_best_that_has_ended(start, monkeypatch):
    leasts, real = [], auto.most_promising
    monkeypatch.setattr(auto, "most_promising", lambda waiting, least: leasts.append(least) or real(waiting, least))
    search, first = continuing(start)
    for epoch in range(2, 10):
        search.report(first.id, epoch, {"val_accuracy": 0.9})
    assert {*leasts} == {np.inf}, "nothing had ended"
    search.end(first.id, succeeded=True)
    search.ask("a")
    assert leasts[-1] == pytest.approx(np.log(0.1))


def test_what_is_being_continued_counts_in_what_others_are_to_improve_on_once_one_has_ended(start, monkeypatch):
    leasts, real = [], auto.most_promising
    monkeypatch.setattr(auto, "most_promising", lambda waiting, least: leasts.append(least) or real(waiting, least))
    search, first = continuing(start)
    search.ask("b")
    assert leasts[-1] == np.inf, "nothing had ended, so that the best go on"
    for epoch in range(2, 10):
        search.report(first.id, epoch, {"val_accuracy": 0.6})
    search.end(first.id, succeeded=True)
    monkeypatch.setattr(auto, "SHARE", 100.0)
    second = search.ask("a")
    assert second.continues
    search.report(second.id, 2, {"val_accuracy": 0.8})
    expected = search._known()[search.origin(second.id)].mean
    search.ask("c")
    assert leasts[-1] == expected < np.log(0.4)
    monkeypatch.setattr(auto, "SHARE", 0.0)
    look = search.ask("d")
    assert not search.report(look.id, 1, {"val_accuracy": 0.99})
    search.ask("e")
    assert leasts[-1] == expected, "the look is over, and not known to be continued"


def test_forecasts_are_made_with_the_goals_of_what_is_being_trained(start, monkeypatch):
    goals, real = [], auto.forecasts
    monkeypatch.setattr(auto, "forecasts", lambda *a: goals.append(a[-1]) or real(*a))
    search, first = continuing(start)
    origin = search.origin(first.id)
    search._known()
    assert goals[-1] == {origin: 3}
    for epoch in (2, 3):
        search.report(first.id, epoch, {"val_accuracy": 0.9})
    search._known()
    assert goals[-1] == {origin: 9}, "it goes on at its rung"


def short_epochs(problem):
    """A search whose first looks have several epochs, as an epoch takes less time than a start."""
    posed = problem(FLAT, "auto", training={"epochs": 36}, budget={"trials": 400})
    posed = replace(posed, images=(11_000, 1_000))
    search = build(posed.config, posed, ACCURACY)
    assert 1 < search.rungs[0] < 12
    return search


def test_half_of_the_cost_is_that_of_first_looks_of_any_length(problem):
    """The later epochs of a look once counted as continued, so that less was."""
    search = short_epochs(problem)
    rng, begun, looks, continued = np.random.default_rng(0), {}, 0.0, 0.0
    for _ in range(100):
        trial = search.ask("a")
        good, epoch = begun.get(trial.continues, (rng.random(), 0))
        going = True
        while going and epoch < 36:
            epoch += 1
            cost = search._cost(search.origin(trial.id))[epoch > 1]
            looks, continued = (looks + cost, continued) if epoch <= search.rungs[0] else (looks, continued + cost)
            going = search.report(trial.id, epoch, {"val_accuracy": 0.5 + 0.3 * good + 0.005 * epoch})
        begun[trial.id] = good, epoch
        search.end(trial.id, succeeded=True)
    assert continued / (looks + continued) == pytest.approx(0.5, abs=0.1)


def test_a_look_that_has_not_ended_is_no_observation(problem):
    """After one of its epochs it would be taken for one that is worse than the others."""
    search = short_epochs(problem)
    look = search.ask("a")
    for epoch in range(1, search.rungs[0] + 1):
        assert not search._known()
        search.report(look.id, epoch, {"val_accuracy": 0.5})
    assert [*search._known()] == [look.id]


def test_a_look_that_was_cut_off_is_no_observation_once_it_goes_on(problem, monkeypatch):
    monkeypatch.setattr(auto, "FIRST_LOOKS", 1)
    search = short_epochs(problem)
    look = search.ask("a")
    search.report(look.id, 1, {"val_accuracy": 0.5})
    search.end(look.id, succeeded=True, finished=False)
    assert [*search._known()] == [look.id]
    assert search.ask("a").continues == look.id
    assert not search._known()


@pytest.mark.parametrize(("images", "first"), [(60_000, 1), (300, 3)])
def test_a_first_look_takes_the_time_of_a_start(problem, images, first):
    """300 images of 8×8 pass in a tenth of a second, a start takes one and more; no look takes over a third of all."""
    posed = problem(FLAT, "auto", training={"epochs": 9})
    posed = replace(posed, images=(images, images // 4))
    search = build(posed.config, posed, ACCURACY)
    assert search.rungs[0] == first


def test_the_first_configurations_are_those_that_rules_of_thumb_favour(start):
    posed, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 40})
    first = [expected_error(posed, search.ask(f"worker{number}").values) for number in range(LOOKS)]
    rng = np.random.default_rng(0)
    drawn = [expected_error(posed, search.untried.draw(rng)) for _ in range(200)]
    assert max(first) < np.median(drawn)


def test_a_function_without_data_of_ours_is_not_taken_for_one_of_no_work(problem):
    config = problem(FLAT, "auto").config
    assert make_problem(config, (8, 8, 1), 10, images=(0, 0)).images == Problem.images
    assert make_problem(config, (8, 8, 1), 10, images=(300, 75)).images == (300, 75)


def test_of_equal_promise_the_cheaper_is_proposed(start, monkeypatch):
    """Where the model expects the same of all, costs decide."""
    monkeypatch.setattr(auto, "expected_improvement", lambda mean, *_: np.ones(len(mean)))
    monkeypatch.setattr(auto, "AT_RANDOM", 0.0)
    monkeypatch.setattr(auto, "FIRST_LOOKS", LOOKS)  # none is continued in between
    widths = range(8, 104, 8)
    _, search = start("auto", {"model": {"filters": {"values": [*widths]}}}, training={"epochs": 9})
    for _ in range(LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5})
        search.end(look.id, succeeded=True)
    left = [width for width in widths if {"model.filters": width} in search.untried]
    assert search.draw() == {"model.filters": min(left)}


def test_it_learns_from_earlier_trials_but_not_from_networks_beyond_the_limits(start):
    tree = {"model": {"filters": {"values": [8, 16, 512]}, "dropout": {"min": 0.0, "max": 0.5}}}
    _, search = start("auto", tree, training={"epochs": 9}, limits={"parameters": 50_000})
    search.learn(
        [{"values": {"model.filters": n}, "curve": {1: {"val_accuracy": 0.5 + n / 1e4}}} for n in (8, 16, 512)]
    )
    known = search._known()
    assert [search.values_of(origin)["model.filters"] for origin in known] == [8, 16]


def test_each_proposal_looks_for_an_improvement_of_its_own_size(start, monkeypatch):
    """So that where the model is sure of the best and its neighbours, something farther away is looked at too."""
    wanted, expected = [], auto.expected_improvement

    def noted(mean, deviation, least):
        wanted.append(np.log(0.5) - least)
        return expected(mean, deviation, least)

    monkeypatch.setattr(auto, "expected_improvement", noted)
    monkeypatch.setattr(auto, "FIRST_LOOKS", 100)  # none is continued
    monkeypatch.setattr(auto, "forecasts", lambda _, points, *__: dict.fromkeys(points, Forecast(np.log(0.5), 0.0, 1)))
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 100})
    for _ in range(LOOKS + 40):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5})
        search.end(look.id, succeeded=True)
    assert len(wanted) > 20
    assert min(wanted) >= 0
    assert np.mean(wanted) == pytest.approx(auto.MARGIN, rel=0.5)
    assert max(wanted) > 2 * auto.MARGIN
    assert min(wanted) < 0.5 * auto.MARGIN


def test_a_proposal_is_chosen_among_drawn_ones_and_changes_of_the_best_that_are_new(start, monkeypatch):
    monkeypatch.setattr(auto, "AT_RANDOM", 0.0)
    monkeypatch.setattr(auto, "FIRST_LOOKS", 100)  # none is continued
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 100})
    for number in range(LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5 + number / 100})
        search.end(look.id, succeeded=True)
    drawn = search._candidates.of(LOOKS, search.untried, np.random.default_rng(0))
    tried = [candidate.values for candidate in drawn[:3]]
    for values in tried:
        search.untried.remove(values)
    offered, real = [], auto.Ensemble.predict
    monkeypatch.setattr(auto.Ensemble, "predict", lambda self, x: offered.append(x.tolist()) or real(self, x))
    values = search.draw()
    among = max(offered, key=len)
    assert [candidate.point for candidate in drawn[3:]] == among[:125]
    assert 125 + 10 <= len(among) <= 125 + 16, "a few of the changes were tried before or change nothing"
    assert auto.encode(search.problem, values) in among


def looked(start, **settings):
    """A search that has looked at as many configurations as the model needs, and proposes by it alone."""
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 100}, **settings)
    for number in range(LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5 + number / 100})
        search.end(look.id, succeeded=True)
    return search


@pytest.fixture
def proposing(monkeypatch):
    monkeypatch.setattr(auto, "AT_RANDOM", 0.0)
    monkeypatch.setattr(auto, "FIRST_LOOKS", 100)  # none is continued


def test_the_model_expects_something_of_configurations_that_run(start, monkeypatch, proposing):
    search, expected, real = looked(start), [], auto.Ensemble.expecting
    monkeypatch.setattr(auto.Ensemble, "expecting", lambda self, x: expected.append(x.tolist()) or real(self, x))
    running = [search.ask("a"), search.ask("b")]
    search.draw()
    assert expected[-1] == [auto.encode(search.problem, look.values) for look in running]


def test_what_is_continued_takes_no_candidates(start, monkeypatch, proposing):
    """They are kept for so many new configurations, and continued ones are not chosen among them."""
    search = looked(start)
    monkeypatch.setattr(auto, "FIRST_LOOKS", 1)
    assert search.ask("a").continues
    numbers, real = [], search._candidates.of
    monkeypatch.setattr(search._candidates, "of", lambda number, *a: numbers.append(number) or real(number, *a))
    search.draw()
    assert numbers == [LOOKS]


def test_the_best_candidate_that_fits_into_the_time_left_is_proposed(start, proposing):
    search = looked(start)
    without = search.draw()
    asked = []
    search.untried.fits = lambda values: asked.append(values) or values != without
    values = search.draw()
    assert asked == [without, values]
    search.untried.fits = lambda values: False
    assert search.draw() in search.untried, "one that does not fit, rather than none"


def test_what_is_known_changes_with_earlier_trials_and_reopened_ones(start, proposing):
    search = looked(start)
    before = search._known()
    search.learn([{"values": {"model.dropout": 0.1}, "curve": {1: {"val_accuracy": 0.5}}}])
    assert len(search._known()) == len(before) + 1
    last = [*search.proposals][-1]
    known = search._known()
    search.reopen(last)
    assert search._known() is not known


def test_what_is_known_is_extrapolated_once_until_more_is_known(start, monkeypatch):
    found, real = [], auto.forecasts
    monkeypatch.setattr(auto, "forecasts", lambda *a: found.append(0) or real(*a))
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 100})
    for number in range(LOOKS + 2):
        look = search.ask("a")
        search.report(look.id, 1 + search.curves.reached(search.origin(look.id)), {"val_accuracy": 0.5 + number / 100})
        before = len(found)
        search.end(look.id, succeeded=True)
        known = search._known()
        assert len(found) == before + 1
        assert search._known() is known


def test_the_model_is_given_the_variance_of_each_forecast(start, monkeypatch):
    noises, real = [], auto.Ensemble
    monkeypatch.setattr(auto, "Ensemble", lambda x, y, noise, rng: noises.append(noise) or real(x, y, noise, rng))
    monkeypatch.setattr(auto, "AT_RANDOM", 0.0)
    monkeypatch.setattr(auto, "FIRST_LOOKS", 100)  # none is continued
    monkeypatch.setattr(auto, "forecasts", lambda _, points, *__: dict.fromkeys(points, Forecast(np.log(0.5), 0.1, 1)))
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 100})
    for _ in range(LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5})
        search.end(look.id, succeeded=True)
    search.draw()
    assert noises[0] == pytest.approx(np.full(LOOKS, 0.01))


@pytest.mark.parametrize("name", ["auto", "tpe"])
def test_what_a_trial_reported_before_it_failed_is_forgotten_once_it_begins_again(start, name):
    _, search = start(name, FLAT, training={"epochs": 9}, budget={"trials": 40})
    trial = search.ask("a")
    for epoch in (1, 2):
        search.report(trial.id, epoch, {"val_accuracy": 0.99})
    search.end(trial.id, succeeded=False)
    search.reopen(trial.id)
    search.report(trial.id, 1, {"val_accuracy": 0.3})
    assert search.curves.best(trial.id) == -0.3

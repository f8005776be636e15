"""What the journal's events add up to, and that a journal read back says what was written."""

from __future__ import annotations

import dataclasses
import math

import pytest

from cnnsweep.config.objective import Objective
from cnnsweep.journal.events import (
    BestTested,
    EpochEnded,
    SweepStarted,
    SweepStopped,
    TrialEnded,
    TrialStarted,
)
from cnnsweep.journal.journal import Journal, read
from cnnsweep.journal.state import SweepState, replay


def trial(number, epochs=2, time=0.0):
    fields = {"title": f"{number:03d}", "values": {"model.filters": number}, "seed": 0, "worker": "cpu0", "config": {}}
    return TrialStarted(trial=number, proposal=f"p{number}/{epochs}", epochs=epochs, time=time, **fields)


def epoch(number, at, value):
    return EpochEnded(trial=number, epoch=at, metrics={"val_accuracy": value})


def end(number, status="completed", reason=None, time=1.0):
    return TrialEnded(trial=number, status=status, reason=reason, epochs=2, time=time)


START = SweepStarted(id="one", sweep="one", format=1, config={}, time=5.0)
EVENTS = [
    START,
    trial(1),
    trial(2),
    epoch(1, 1, 0.5),
    epoch(2, 1, 0.7),
    epoch(1, 2, 0.6),
    end(1),
    trial(3, time=2.0),
    epoch(2, 2, math.nan),
    end(2),
    end(3, "failed", "NaN", time=2.5),
    trial(1, epochs=4, time=10.0),
    epoch(1, 3, 0.9),
    epoch(1, 4, 0.8),
    end(1, time=13.0),
    BestTested(trial=1, epoch=3, folder="best", metrics={"test_accuracy": 0.8}, images=10, time=14.0),
    SweepStopped(status="completed", time=15.0),
]


@pytest.fixture
def state():
    return replay(EVENTS, Objective.of("val_accuracy"))


def test_trials_are_ranked_without_those_that_failed(state):
    assert [e.number for e in state.ranked()] == [1, 2]
    lowest_first = replay(EVENTS, Objective("val_accuracy", "min"))
    assert [e.number for e in lowest_first.ranked()] == [1, 2]
    assert [e.best(lowest_first.objective) for e in lowest_first.ranked()] == [0.5, 0.7]


def test_equal_trials_are_ranked_in_the_order_in_which_they_began():
    events = [trial(2), epoch(2, 1, 0.5), trial(1), epoch(1, 1, 0.5)]
    assert [e.number for e in replay(events, Objective.of("val_accuracy")).ranked()] == [1, 2]


def test_a_promoted_trial_goes_on_with_its_curve_and_its_clock(state):
    promoted = state.trials[1]
    assert [m["val_accuracy"] for m in promoted.curve] == [0.5, 0.6, 0.9, 0.8]
    assert (promoted.best_epoch(state.objective), promoted.target, promoted.seconds) == (3, 4, 4.0)
    assert promoted.proposal == "p1/4"


def test_epochs_are_summed_and_the_end_of_the_sweep_is_kept(state):
    assert state.epochs == 6
    assert (state.began, state.final.metrics, state.stop.status) == (5.0, {"test_accuracy": 0.8}, "completed")


@pytest.mark.parametrize("better", [None, epoch(2, 3, 0.95), epoch(1, 5, 0.95)], ids=["same", "other", "later"])
def test_a_test_result_is_that_of_the_best_network_only(state, better):
    assert state.tested() is state.final
    if better:
        state.apply(better)
    assert state.tested() is (None if better else state.final)


def test_an_epoch_trained_again_replaces_it_and_what_came_after(state):
    state.apply(epoch(1, 2, 0.1))
    assert [m["val_accuracy"] for m in state.trials[1].curve] == [0.5, 0.1]


def test_a_trial_without_a_finite_value_has_no_rank():
    only = replay([trial(1), epoch(1, 1, math.nan)], Objective.of("val_accuracy"))
    assert only.ranked() == []
    assert only.trials[1].best(only.objective) is None


def test_failures_are_counted_from_the_last_trial_that_ended():
    objective = Objective.of("val_accuracy")
    events = [event for n in range(1, 6) for event in (trial(n), end(n, "failed" if n != 2 else "completed"))]
    assert [replay(events[: 2 * n], objective).failures_in_a_row() for n in range(6)] == [0, 1, 0, 1, 2, 3]


def test_a_trial_of_each_status_is_found(state):
    assert [e.number for e in state.with_status("failed")] == [3]
    assert [e.number for e in state.with_status("completed", "failed")] == [1, 2, 3]


def test_a_replay_equals_following_event_by_event_through_a_file(tmp_path):
    objective = Objective.of("val_accuracy")
    journal, followed = Journal(tmp_path / "sweep" / "journal.jsonl"), SweepState(objective)
    for event in EVENTS:
        followed.apply(journal.append(event))
    journal.close()
    replayed = replay(read(journal.path), objective)
    # As text, because NaN does not equal itself.
    assert repr(dataclasses.asdict(replayed)) == repr(dataclasses.asdict(followed))

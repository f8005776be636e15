"""Finalists trained again with other seeds: the best mean wins."""

import statistics

import fake_sweeps
import pytest

from cnnsweep.journal import journal
from cnnsweep.journal.events import ReplicateEnded
from cnnsweep.sweep import finish, loop
from cnnsweep.tracking.run_updates import RunUpdates

SETTINGS = ("budget.replicates=3", "budget.finalists=2")


def run(sweep):
    loop.search(sweep)
    finish.replicate(sweep)
    sweep.journal.close()
    return sweep


def test_the_best_mean_of_other_seeds_wins(tmp_path):
    state = run(fake_sweeps.make(tmp_path, SETTINGS)).state
    results = state.winner.results
    assert len(results) == 2
    for number, found in results.items():
        values = [v for v in state.trials[int(number)].replicates.values() if v is not None]
        assert found["mean"] == pytest.approx(statistics.fmean(values))
        assert found["count"] == len(values)
    assert state.ranked()[0].number == state.winner.trial == int(max(results, key=lambda n: results[n]["mean"]))
    single = sorted(state.trials.values(), key=lambda e: -(e.best(state.objective) or -1))
    assert {e.number for e in single[:2]} == {int(number) for number in results}


def test_without_replicates_nothing_is_trained_again(tmp_path):
    state = run(fake_sweeps.make(tmp_path)).state
    assert state.winner is None
    assert not any(e.replicates for e in state.trials.values())


def test_replicates_survive_a_crash_and_none_is_made_twice(tmp_path):
    whole = run(fake_sweeps.make(tmp_path / "whole", SETTINGS))
    sweep = fake_sweeps.make(tmp_path / "broken", SETTINGS)
    loop.search(sweep)
    made = []

    def crash(event):
        if isinstance(event, ReplicateEnded):
            made.append(event)
            if len(made) == 4:
                raise OSError("power cut")

    sweep.listeners.append(type("Crash", (), {"log": staticmethod(crash)})())
    with pytest.raises(OSError, match="power cut"):
        finish.replicate(sweep)
    sweep.journal.close()
    again = run(fake_sweeps.make(tmp_path / "broken", SETTINGS))
    events = journal.read(tmp_path / "broken" / journal.FILE)
    done = [(e.trial, e.replicate) for e in events if isinstance(e, ReplicateEnded)]
    assert len(done) == len(set(done)) == 6
    assert again.state.winner.results == whole.state.winner.results


def test_mlflow_gets_the_mean_and_the_spread(tmp_path):
    sweep = run(fake_sweeps.make(tmp_path, SETTINGS))
    updates = RunUpdates(tmp_path, {})
    made = [update for event in journal.read(tmp_path / journal.FILE) for update in updates.of(event)]
    parent = [u for u in made if u.trial is None and "cnnsweep.winner" in u.tags]
    assert [u.tags["cnnsweep.winner"] for u in parent] == [str(sweep.state.winner.trial)]
    assert {point[0] for point in parent[0].metrics} == {"mean_val_accuracy", "std_val_accuracy"}

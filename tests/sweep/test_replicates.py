"""The end of a sweep: finalists are trained again with other seeds, the best mean wins, and the winner is tested."""

import json
import shutil
import statistics

import fake_sweeps
import numpy as np
import pytest

from cnnsweep.config.schema import Budget
from cnnsweep.errors import UserError
from cnnsweep.journal import journal
from cnnsweep.journal.events import ReplicateEnded
from cnnsweep.sweep import finish, limits, loop, resume
from cnnsweep.sweep.session import Watcher
from cnnsweep.tracking.run_updates import RunUpdates
from cnnsweep.training import checkpoint
from cnnsweep.trial import EpochReport, TrialResult

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


def saving(spec):
    """Training that keeps a checkpoint; with other seeds, trials that came later are better."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        spec.folder / checkpoint.BEST, state=json.dumps({"epochs": [{}] * spec.epochs, "seconds": 0.0, "steps": 1})
    )
    for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
        value = (spec.number if "replicates" in str(spec.folder) else 9 - spec.number) / 10 + 0.01 * (epoch == 2)
        if not (yield EpochReport(spec.number, epoch, {"val_accuracy": value, "loss": 1.0})):
            return TrialResult(spec.number, "pruned")
    return TrialResult(spec.number, "completed", None, spec.epochs, {})


def forgetting(spec):
    """Training whose checkpoint is lost."""
    result = yield from saving(spec)
    (spec.folder / checkpoint.BEST).unlink()
    return result


def evaluate(spec):
    """A final evaluation that needs the checkpoint, and tells of how many epochs it is."""
    epochs = len(checkpoint.read_state(spec.trial.folder / checkpoint.BEST).epochs)
    return {"metrics": {"test_accuracy": 0.5, "epochs": float(epochs)}, "images": 10}
    yield


def finished(folder, *overrides, job=saving):
    """A sweep that is run, or resumed, to its end, with one checkpoint kept."""
    sweep = fake_sweeps.make(folder, ("tracking.gallery=0", *overrides), job)
    kept = sweep.config.budget.finalists or 1
    sweep.listeners.append(finish.Cleanup(folder, sweep.state, sweep.search, kept))
    sweep.lines = []
    sweep.say = sweep.lines.append
    loop.search(sweep)
    finish.finish(sweep)
    sweep.journal.close()
    return sweep


def left(folder):
    return sorted(str(path.relative_to(folder / "trials")) for path in folder.rglob("*.npz"))


def test_a_winner_whose_checkpoint_was_not_kept_is_trained_again_up_to_its_best_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    first = finished(tmp_path, "budget.finalists=1")
    assert (first.state.final.trial, left(tmp_path), first.lines) == (1, ["001/best.npz"], [])
    again = finished(tmp_path, "budget.replicates=2", "budget.finalists=3")
    assert again.state.winner.trial == again.state.final.trial == again.state.tested().trial == 3
    assert again.state.final.metrics["epochs"] == again.state.final.epoch == 2
    assert again.lines == ["trial 3 is trained again up to epoch 2: its checkpoint was not kept"]
    assert left(tmp_path) == ["001/best.npz", "003/best.npz"]
    assert again.stopping == "budget.trials (6) is reached"
    assert len(again.state.trials[3].curve) == 3


def test_the_result_of_another_trial_is_not_that_of_a_winner_that_could_not_be_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    finished(tmp_path, "budget.finalists=1")
    again = finished(tmp_path, "budget.replicates=1", "budget.finalists=2", job=forgetting)
    assert (again.state.winner.trial, again.state.final.trial) == (2, 1)
    assert again.state.tested() is None
    assert "the best model could not be evaluated: ValueError: checkpoint 'best.npz'" in again.stopping
    assert not resume._is_finished(journal.read(tmp_path / journal.FILE), again.config), "once more, as by resume"
    third = finished(tmp_path, "budget.replicates=1", "budget.finalists=2")
    assert third.state.tested().trial == 2
    assert resume._is_finished(journal.read(tmp_path / journal.FILE), third.config)


@pytest.mark.parametrize("search", ["asha", "hyperband", "auto"])
def test_what_came_too_late_to_be_continued_keeps_its_checkpoint(tmp_path, monkeypatch, search):
    """It goes on with it once the sweep has more time."""
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    wanted = []

    def too_late(proposal, *_):
        wanted.append(proposal.continues)
        return proposal.continues and "too late"

    monkeypatch.setattr(limits, "too_late", too_late)
    changes = (f"search={search}", "training.epochs=9", "budget.trials=9", "budget.finalists=1")
    sweep = finished(tmp_path, *changes, job=saving_last)
    assert sweep.stopping == "too late"
    number = sweep.state.by_proposal[wanted[-1]]
    assert f"{number:03d}/last.npz" in left(tmp_path)


def saving_last(spec):
    """Training that keeps its last epoch's checkpoint."""
    result = yield from saving(spec)
    shutil.copy(spec.folder / checkpoint.BEST, spec.folder / checkpoint.LAST)
    return result


def full_disk(spec):
    """Training with a disk that is full once the finalists are trained again."""
    if "replicates" in str(spec.folder):
        return TrialResult(spec.number, "failed", "OSError: [Errno 28] No space left on device")
    return (yield from saving(spec))


def test_what_a_full_disk_prevents_at_the_end_is_made_once_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    changes = ("budget.replicates=2", "budget.finalists=2")
    full = finished(tmp_path, *changes, job=full_disk)
    assert full.stopping.startswith("the disk is full; free some of it, then resume")
    assert (full.state.stop.status, full.state.winner, full.state.final) == ("interrupted", None, None)
    again = finished(tmp_path, *changes)
    assert (again.state.stop.status, again.state.tested().trial) == ("completed", again.state.winner.trial)
    assert {found["count"] for found in again.state.winner.results.values()} == {2}


@pytest.mark.parametrize(
    ("changes", "over"),
    [
        ({}, True),
        ({"replicates": 2}, True),
        ({"replicates": 3}, False),
        ({"replicates": 1, "finalists": 2}, True),
        ({"replicates": 1, "finalists": 3}, False),
        ({"replicates": None}, True),
        ({"trials": 7}, False),
        ({"trials": 5}, True),
    ],
    ids=str,
)
def test_a_finished_sweep_goes_on_where_the_budget_asks_for_more(tmp_path, monkeypatch, changes, over):
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    sweep = finished(tmp_path, "budget.replicates=2", "budget.finalists=2")
    budget = Budget(**{**sweep.config.budget.plain(), **changes})
    events = journal.read(tmp_path / journal.FILE)
    assert resume._is_finished(events, sweep.config.replace(budget=budget)) == over


def test_a_finalist_that_went_on_is_trained_again_for_all_of_its_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "evaluate_best", evaluate)
    few = ("search=asha", "search.min_epochs=1", "budget.trials=1", "budget.replicates=1", "budget.finalists=1")
    assert len(finished(tmp_path, *few, "budget.epochs=1").state.trials[1].curve) == 1
    again = finished(tmp_path, *few)
    assert len(again.state.trials[1].curve) == 3
    events = journal.read(tmp_path / journal.FILE)
    assert [e.epochs for e in events if isinstance(e, ReplicateEnded)] == [1, 3]
    assert again.state.winner.results["1"]["mean"] == pytest.approx(0.11)  # of epoch 2


@pytest.mark.parametrize("override", ["budget.trials=+2", "budget.trials= +2", "budget.minutes=-1", "budget.epochs=+9"])
def test_a_budget_relative_to_what_is_done_is_refused(override):
    with pytest.raises(UserError, match="a budget is a total"):
        resume.resume([], [override], Watcher())


@pytest.mark.parametrize(
    ("budget", "reason", "expected"),
    [
        (("budget.minutes=1",), "every valid configuration was tried", 10),
        (("budget.epochs=100",), "every valid configuration was tried", 0),
        (("budget.minutes=1", "budget.trials=1"), "budget.trials (1) is reached", 0),
    ],
    ids=["time-is-left", "no-limit-of-time", "few-trials-wanted"],
)
def test_where_everything_was_tried_the_time_that_is_left_goes_to_other_seeds(tmp_path, budget, reason, expected):
    few = ("space=none", "space.model.blocks.values=[1,2]", "budget.trials=null", "budget.finalists=1", *budget)
    sweep = run(fake_sweeps.make(tmp_path, few, saving))
    assert sweep.stopping == reason
    assert sum(len(trial.replicates) for trial in sweep.state.trials.values()) == expected

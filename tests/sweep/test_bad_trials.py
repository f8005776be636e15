"""One bad trial costs one trial, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_sweeps as real
import trial_jobs

from cnnsweep.config.compose import compose
from cnnsweep.executors.base import Job
from cnnsweep.executors.worker import exit_reason
from cnnsweep.journal import journal
from cnnsweep.sweep import session
from cnnsweep.sweep.limits import GONE, is_out_of_memory, no_room
from cnnsweep.sweep.session import Watcher

SMALL = ("+sweep=smoke", "data.limit=200", "training.epochs=1", "executor=cpu", *real.FAST)


def start(folder: Path, job: Job, *overrides: str) -> session.Outcome:
    return session.start(compose([*SMALL, f"tracking.dir={folder / 'mlruns'}", *overrides]), Watcher(), job=job)


def runs(outcome: session.Outcome) -> dict[int, object]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(outcome.uri)
    experiment = client.get_experiment_by_name("cnnsweep")
    found = client.search_runs([experiment.experiment_id], "tags.`cnnsweep.kind` = 'trial'")
    return {int(run.data.tags["cnnsweep.trial"]): run for run in found}


@pytest.mark.slow
def test_every_kind_of_bad_trial_fails_with_its_reason_and_the_sweep_goes_on(tmp_path: Path) -> None:
    limits = ("executor.trials_per_worker=3", "executor.hang_minutes=0.25", "executor.trial_minutes=0.4")
    unlimited = ("budget.trials=8", "search.max_failures=null", "executor.workers=2")
    outcome = start(tmp_path, trial_jobs.troubled, *limits, *unlimited)
    entries = outcome.state.trials
    assert outcome.status == "completed"
    assert entries[8].status == "completed"
    logged = runs(outcome)
    for number, (_, reason) in trial_jobs.WAYS.items():
        assert entries[number].status == "failed"
        assert (entries[number].reason or "").startswith(reason)
        assert logged[number].info.status == "FAILED"
        assert logged[number].data.tags["cnnsweep.reason"].startswith(reason)
    assert real.disagreements(tmp_path) == []


@pytest.mark.slow
def test_out_of_memory_is_answered_once_with_half_the_batch(tmp_path: Path) -> None:
    batches = "space.training.batch_size={values: [64, 256]}"
    settings = ("budget.trials=4", "search=grid", "space.model=null", "space.training.learning_rate=null", batches)
    outcome = start(tmp_path, trial_jobs.greedy, *settings, "training.retry_smaller_batch=true", "executor.workers=1")
    first, second = (outcome.state.trials[n] for n in (1, 2))
    assert (first.status, first.values["training.batch_size"]) == ("completed", 32)
    assert (second.status, second.values["training.batch_size"]) == ("failed", 128), "once only"
    retries = [e for e in real.events(tmp_path) if "retry" in e]
    assert [e["trial"] for e in retries] == [1, 2]
    assert "OOM when allocating" in retries[0]["retry"]
    tags = runs(outcome)[1].data.tags
    assert tags["cnnsweep.changed.training.batch_size"] == "32"
    assert "OOM when allocating" in tags["cnnsweep.retry"]


def test_a_reason_names_memory_and_disks_that_are_full(tmp_path: Path) -> None:
    assert is_out_of_memory(exit_reason(-9, memory=True))
    assert is_out_of_memory(exit_reason(255, memory=True)), "what multiprocessing says where its fork server was killed"
    assert not is_out_of_memory(exit_reason(-9, memory=False)), "a kill alone is no proof"
    assert not is_out_of_memory(exit_reason(-11, memory=True))
    full = "OSError: [Errno 28] No space left on device: 'last.npz'"
    assert no_room(full, tmp_path) == GONE
    (tmp_path / journal.FILE).touch()
    assert no_room(full, tmp_path) == f"the disk is full; free some of it, then resume ({full})"
    assert no_room("killed by SIGSEGV", tmp_path) is None

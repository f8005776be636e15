"""Sweeps of a training function, as a user starts, kills and resumes them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import real_sweeps
from real_sweeps import disagreements, own_job, run, start, state, sweep_folder, table, wait_for

SWEEP = ("job=mine", "space=mine", "search=asha", "training.epochs=9", "budget.trials=5", "executor=cpu",
         "executor.workers=1", *real_sweeps.FAST)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = own_job(tmp_path_factory.mktemp("whole"), "slowly")
    assert run(folder, *SWEEP)[0] == 0
    return folder


@pytest.mark.slow
def test_a_function_is_pruned_tracked_and_its_best_checkpoint_kept(whole: Path) -> None:
    trials = state(whole).trials
    assert {trial.status for trial in trials.values()} == {"completed", "pruned"}
    assert disagreements(whole) == []
    assert "its checkpoint: mlruns/sweeps/" in (whole / "output.txt").read_text()
    assert not (sweep_folder(whole) / "best").exists()


@pytest.mark.slow
def test_a_function_that_checkpoints_is_killed_and_goes_on_as_if_nothing_had_happened(
    whole: Path, tmp_path: Path
) -> None:
    folder = own_job(tmp_path, "slowly")
    process = start(folder, *SWEEP)
    wait_for(lambda: len(real_sweeps.events(folder)) > 12, "an event", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    code, output = run(folder, "resume")
    assert code == 0, output
    assert "begins again" not in output
    assert table(state(folder)) == table(state(whole))
    assert disagreements(folder) == []


@pytest.mark.slow
def test_a_function_that_is_only_named_on_the_command_line_is_not_run_by_resume_without_trust(whole: Path) -> None:
    shutil.rmtree(whole / "conf")
    code, output = run(whole, "resume", "budget.trials=6")
    assert code == 2
    assert "job.call: own_functions.slowly" in output
    assert run(whole, "resume", "budget.trials=6", "--trust")[0] == 0
    code, output = run(whole, "resume", "--trust")
    assert "is finished" in output
    assert run(whole, *shlex.split(output.partition(" -m cnnsweep ")[2].splitlines()[0]))[0] == 0, output

"""The inline executor."""

from __future__ import annotations

from pathlib import Path

import executor_jobs as jobs
import pytest
from executor_jobs import run, values

from cnnsweep.executors.inline import InlineExecutor


def test_an_interrupt_passes_through_and_frees_the_worker() -> None:
    executor = InlineExecutor()
    executor.submit("inline", jobs.fail, KeyboardInterrupt())
    report = executor.wait()
    assert report is not None
    report.answer(True)
    with pytest.raises(KeyboardInterrupt):
        executor.wait()
    assert values(run(executor, jobs.instant, 7)) == [7]


def test_noise_and_tracebacks_go_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executor = InlineExecutor(log=tmp_path / "log")
    run(executor, jobs.shout, None)
    run(executor, jobs.fail, ValueError("bad luck"))
    log = (tmp_path / "log").read_text()
    assert "past Python" in log
    assert "Traceback" in log
    assert capfd.readouterr().err == ""

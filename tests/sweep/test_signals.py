"""Ctrl-C once and twice, and SIGTERM, to a sweep in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import real_sweeps as real

pytestmark = pytest.mark.timeout(900)  # several starts of a driver, on a machine that may be busy


def epochs(folder: Path) -> int:
    return sum(event["event"] == "epoch" for event in real.events(folder))


def in_training(folder: Path, driver: subprocess.Popen[str]) -> None:
    known = epochs(folder)
    real.wait_for(lambda: epochs(folder) > known + 1, "an epoch", driver)


def output(folder: Path) -> str:
    return (folder / "output.txt").read_text()


@pytest.mark.slow
def test_ctrl_c_once_and_twice_and_sigterm_leave_a_sweep_that_goes_on(tmp_path: Path) -> None:
    real.own_job(tmp_path, "slowly")  # it has checkpoints, and its processes start at once
    many = ("job=mine", "space=mine", "training.epochs=400", "budget.trials=2", "executor=cpu", *real.FAST)
    driver = real.start(tmp_path, *many, "executor.workers=2")
    in_training(tmp_path, driver)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(real.PATIENCE) == 130
    state = real.state(tmp_path)
    assert {e.status for e in state.trials.values()} == {"interrupted"}
    assert all(e.curve for e in state.trials.values()), "running trials finish their epoch"
    sweep = real.sweep_folder(tmp_path)
    assert f" -m cnnsweep resume {sweep.name}\n" in output(tmp_path)
    assert "Traceback" not in output(tmp_path)
    assert real.disagreements(tmp_path) == []
    curves = {number: list(entry.curve) for number, entry in state.trials.items()}

    driver = real.start(tmp_path, "resume", "executor.grace_seconds=2")
    in_training(tmp_path, driver)
    stuck = real.workers(driver.pid)
    for worker in stuck:  # their epochs do not end
        worker.suspend()
    driver.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        driver.wait(1)
    began = time.monotonic()
    driver.send_signal(signal.SIGINT)
    assert driver.wait(real.PATIENCE) == 130
    assert time.monotonic() - began < 30
    assert not psutil.wait_procs(stuck, timeout=10)[1]
    state = real.state(tmp_path)
    assert [e.reason for e in state.trials.values()] == ["stopped at once"] * 2
    for number, entry in state.trials.items():
        assert entry.curve[: len(curves[number])] == curves[number]
    assert sum(len(e.curve) for e in state.trials.values()) > sum(map(len, curves.values()))
    assert real.disagreements(tmp_path) == []

    driver = real.start(tmp_path, "resume")
    in_training(tmp_path, driver)
    for worker in real.workers(driver.pid):
        worker.suspend()
    began = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(real.PATIENCE) == 130
    assert 1.5 < time.monotonic() - began < 40, "the grace of the sweep's first resume still holds"
    assert real.state(tmp_path).stop.status == "interrupted"
    assert real.disagreements(tmp_path) == []
    code, text = real.run(tmp_path, "list")
    assert code == 0
    assert f"{sweep.name}  interrupted  0 done, 2 to go on" in text
    assert "Traceback" not in output(tmp_path)

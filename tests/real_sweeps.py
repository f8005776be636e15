"""Sweeps in processes of their own, as a user starts them, to be killed and looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from cnnsweep import journal
from cnnsweep.ledger import Ledger, replay
from cnnsweep.objective import Objective

TINY = ("+sweep=smoke", "data.limit=200", "executor=cpu", "executor.workers=1")
PATIENCE = 120


def start(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Run `python -m cnnsweep` in `folder`; its output goes to output.txt there, one run after another."""
    root = Path(__file__).parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "cnnsweep", *arguments],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed."""
    path = folder / "output.txt"
    before = path.stat().st_size if path.exists() else 0
    code = start(folder, *arguments, environment=environment).wait(PATIENCE)
    return code, path.read_bytes()[before:].decode()


def wait_for(condition: Callable[[], Any], what: str, process: subprocess.Popen[str] | None = None) -> Any:
    """Poll until `condition` is truthy."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come (exit code {process.poll() if process else None})")


def sweep_folder(folder: Path) -> Path | None:
    return next(iter(sorted((folder / "mlruns" / "sweeps").glob("*"))), None)


def events(folder: Path) -> list[Mapping[str, Any]]:
    """Of the only sweep under `folder`, as far as they are written."""
    sweep = sweep_folder(folder)
    path = sweep / journal.FILE if sweep else None
    if path is None or not path.exists():
        return []
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def ledger(folder: Path) -> Ledger:
    found = events(folder)
    return replay(found, Objective.of(found[0]["config"]["objective"]))


def table(told: Ledger) -> list[tuple[Any, ...]]:
    """What must not depend on crashes: everything but times."""
    return [
        (e.number, e.name, dict(e.values), e.status, e.reason, [_untimed(row) for row in e.curve])
        for e in sorted(told.entries.values(), key=lambda e: e.number)
    ]


def _untimed(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "epoch_seconds"}


def workers(driver: int) -> list[psutil.Process]:
    """The worker processes of a driver: grandchildren, below its fork server."""
    try:
        family = psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [p for p in family if p.ppid() != driver and "forkserver" in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def check_store(folder: Path, uri: str | None = None) -> None:
    """Assert that MLflow says what the journal says: one run a trial, each epoch once, the right status."""
    from mlflow.tracking import MlflowClient

    from cnnsweep.records import MLFLOW_STATUS

    told, sweep = ledger(folder), sweep_folder(folder)
    assert sweep is not None
    client = MlflowClient(uri or f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cnnsweep")
    runs = client.search_runs([experiment.experiment_id], f"tags.`cnnsweep.sweep` = '{sweep.name}'", max_results=5000)
    parents = [r for r in runs if r.data.tags["cnnsweep.kind"] == "sweep"]
    trials = {int(r.data.tags["cnnsweep.trial"]): r for r in runs if r.data.tags["cnnsweep.kind"] == "trial"}
    assert len(parents) == 1
    assert len(runs) == len(trials) + 1, "a trial has two runs"
    assert sorted(trials) == sorted(told.entries)
    assert parents[0].info.status == MLFLOW_STATUS[told.stop["status"] if told.stop else "running"]
    for number, entry in told.entries.items():
        run_ = trials[number]
        assert run_.info.status == MLFLOW_STATUS[entry.status], number
        assert run_.data.tags["cnnsweep.status"] == entry.status
        if entry.curve:
            history = client.get_metric_history(run_.info.run_id, "val_accuracy")
            assert [(p.step, p.value) for p in sorted(history, key=lambda p: p.step)] == [
                (epoch, row["val_accuracy"]) for epoch, row in enumerate(entry.curve, start=1)
            ]

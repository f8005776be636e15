"""How long do 10,000 trials of 20 epochs take to load and to report on?

    python experiments/benchmarks/report.py [TRIALS] [EPOCHS]

Fills a fresh SQLite store through MLflow's own tables with trials as the tracker writes them (13 searched keys,
6 metrics an epoch), then times `cnnsweep.trials`, `cnnsweep.curves` and `python -m cnnsweep report`.
Bars: trials and curves together under 10 s, the report under 60 s.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import cnnsweep
from cnnsweep.config.compose import compose
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.tracking.run_updates import text
from cnnsweep.tracking.store import connect, open_store

LOAD_BAR, REPORT_BAR = 10.0, 60.0
BEGAN = 1_790_000_000_000


def fill(folder: Path, trials: int, epochs: int, id_: str = "synthetic-20260101-000000") -> str:
    """Write a synthetic sweep into the store under `folder`; return its id."""
    config = compose([f"tracking.dir={folder}", "name=synthetic", f"budget.trials={trials}"])
    uri = open_store(config.tracking)
    client = connect(uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    parent = uuid.uuid4().hex
    home = Path(experiment.artifact_location.removeprefix("file://")) / parent / "artifacts"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text(yaml.safe_dump(config.plain()))
    end = BEGAN + trials * 30_000
    runs = [_run(parent, id_, experiment, BEGAN, end, home.as_uri())]
    tags = [
        ("cnnsweep.kind", "sweep", parent),
        ("cnnsweep.sweep", id_, parent),
        ("cnnsweep.status", "completed", parent),
        ("cnnsweep.machine.workers", '["cpu0", "cpu1"]', parent),
        ("cnnsweep.data.validation", "6000", parent),
    ]
    params = [("name", "synthetic", parent), ("objective", "val_accuracy", parent)]
    points: list[tuple[Any, ...]] = []
    latest = [
        ("sweep_seconds", trials * 30.0, end, 0, 0, parent),
        ("epochs", float(trials * epochs), end, 0, 0, parent),
    ]
    searched, rng = parse_space(config), np.random.default_rng(0)
    for number in range(1, trials + 1):
        values, run = searched.draw(rng), uuid.uuid4().hex
        start = BEGAN + (number // 2) * 60_000
        status = "failed" if number % 97 == 0 else "pruned" if number % 3 == 0 else "completed"
        name = f"{number:03d} · " + "-".join(str(v) for k, v in values.items() if k.startswith("model.filters"))
        runs.append(_run(run, name, experiment, start, start + 50_000, f"{home.as_uri()}/{number}"))
        tags += [
            ("cnnsweep.kind", "trial", run),
            ("cnnsweep.sweep", id_, run),
            ("cnnsweep.status", status, run),
            ("cnnsweep.trial", str(number), run),
            ("cnnsweep.worker", f"cpu{number % 2}", run),
            ("cnnsweep.seed", "1", run),
        ]
        if status == "failed":
            tags.append(("cnnsweep.reason", "loss is nan in epoch 20", run))
        params += [(p.name, text(values.get(p.name)), run) for p in searched.parameters]
        top = (
            0.93
            - 0.04 * abs(np.log10(values["training.learning_rate"]) + 3)
            + 0.01 * values["model.blocks"]
            - rng.random() * 0.03
        )
        seen = []
        for epoch in range(1, epochs + 1):
            height = float(top * (1 - 0.6**epoch) + rng.normal() * 0.002)
            seen.append(height)
            row = {
                "loss": 1.9 - 2 * height,
                "accuracy": height + 0.01,
                "val_loss": 2 - 2 * height,
                "val_accuracy": height,
                "epoch_seconds": 2.4,
                "learning_rate": values["training.learning_rate"],
            }
            points += [(k, v, start + epoch * 2400, run, epoch, 0) for k, v in row.items()]
        summary = {
            "best_val_accuracy": max(seen),
            "best_epoch": float(np.argmax(seen) + 1),
            "trial_seconds": 49.0,
            "parameters": float(rng.integers(10_000, 1_000_000)),
            "mmacs": float(rng.uniform(0.1, 20)),
        }
        points += [(k, v, start + 50_000, run, epochs, 0) for k, v in summary.items()]
        latest += [(k, v, start + 50_000, epochs, 0, run) for k, v in {**row, **summary}.items()]
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as store:
        store.executemany(
            "INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage, "
            "artifact_uri, source_type, user_id) VALUES (?, ?, ?, ?, ?, ?, 'active', ?, 'LOCAL', 'x')",
            runs,
        )
        store.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
        store.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", params)
        store.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", points
        )
        store.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)",
            latest,
        )
    store.close()
    return id_


def _run(run: str, name: str, experiment: Any, start: int, end: int, artifacts: str) -> tuple[Any, ...]:
    return run, name, int(experiment.experiment_id), "FINISHED", start, end, artifacts


def cpu() -> float:
    """Seconds of work by this process and the ones it has waited for: what a busy machine does not lengthen."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def timed(label: str, action: Callable[[], Any]) -> tuple[float, Any]:
    began, worked = time.perf_counter(), cpu()
    found = action()
    seconds = time.perf_counter() - began
    print(f"{label:<28} {seconds:6.1f} s, of which the processor worked {cpu() - worked:.1f} s", flush=True)
    return seconds, found


def main() -> int:
    trials, epochs = (int(a) for a in [*sys.argv[1:], "10000", "20"][:2])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _, id_ = timed(f"filling {trials:,} × {epochs}", lambda: fill(folder, trials, epochs))
        where = f"tracking.dir={folder}"
        first, frame = timed("cnnsweep.trials", lambda: cnnsweep.trials(id_, where))
        second, lines = timed("cnnsweep.curves", lambda: cnnsweep.curves(id_, where))
        assert len(frame) == trials, len(frame)
        assert len(lines) == trials * epochs, len(lines)
        command = [sys.executable, "-m", "cnnsweep", "report", id_, where, "--out", str(folder / "report")]
        third, _ = timed("python -m cnnsweep report", lambda: subprocess.run(command, env=dict(os.environ), check=True))
        size = (folder / "report" / "report.html").stat().st_size / 1e6
    print(f"load {first + second:.1f} s (bar {LOAD_BAR:g} s), report {third:.1f} s (bar {REPORT_BAR:g} s)")
    print(f"page {size:.1f} MB")
    return 0 if first + second <= LOAD_BAR and third <= REPORT_BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Benchmark of the forecast: a plan of a sweep on Fashion-MNIST is compared with the sweep itself.

The plan calibrates for a few seconds, predicts the wall time of the whole sweep, and leaves its measurements to the
sweep, which predicts each trial as it starts and learns from the epochs that it sees. Compared are each trial's time
from its start to its end, and the sweep's from its first trial's start to its last trial's end.

    python experiments/benchmarks/forecast.py [--trials 44] [--limit 3000] [--out experiments/benchmarks/forecast.md]

Bars: median error of a trial at most 25%, error of the sweep's wall time at most 20%. About six minutes on 2 quiet
cores; needs Fashion-MNIST (CNNSWEEP_DATA_DIR).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]


def overrides(trials: int, limit: int, folder: Path) -> list[str]:
    return [
        "data=fashion_mnist",
        f"data.limit={limit}",
        "limits={mmacs: 6, parameters: 1M}",
        "training.epochs=3",
        f"budget.trials={trials}",
        f"tracking.dir={folder}",
        "tracking.gallery=0",
        "name=forecast",
    ]


def run(*arguments: str) -> None:
    command = [sys.executable, "-m", "cnnsweep", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def measure(trials: int, limit: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "runs"
        plan = Path(scratch) / "plan.json"
        run("plan", *overrides(trials, limit, folder), "--json", str(plan))
        run(*overrides(trials, limit, folder))
        planned = json.loads(plan.read_text())
        journal = next(folder.glob("sweeps/*/journal.jsonl")).read_text().splitlines()
    events = [json.loads(line) for line in journal]
    ends = [e for e in events if e["event"] == "end"]
    pairs = [(e["summary"]["predicted_seconds"], e["summary"]["actual_seconds"]) for e in ends]
    return {
        "pairs": pairs,
        "planned": planned["forecast"],
        "searched": ends[-1]["time"] - events[0]["time"],
        "load": os.getloadavg()[1],
    }


def report(found: dict[str, Any], limit: int) -> str:
    pairs = np.array(found["pairs"])
    errors = np.abs(pairs[:, 0] - pairs[:, 1]) / pairs[:, 1]
    wall = abs(found["planned"]["search_seconds"] - found["searched"]) / found["searched"]
    middle, late = np.median(errors), np.quantile(errors, 0.9)
    planned, searched = found["planned"]["search_seconds"], found["searched"]
    lines = [
        "# The forecast against the truth",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), load {found['load']:.1f}; "
        f"{len(pairs)} trials of 3 epochs on {limit:,} images of Fashion-MNIST, random search, "
        f"{found['planned']['workers']} workers.",
        "",
        "| | predicted | actual | error | bar |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| a trial (median) | {np.median(pairs, 0)[0]:.1f} s | {np.median(pairs, 0)[1]:.1f} s | {middle:.1%} | 25% |",
        f"| a trial (9 of 10 within) | | | {late:.1%} | |",
        f"| the whole search | {planned:.0f} s | {searched:.0f} s | {wall:.1%} | 20% |",
        "",
        f"Calibration: {found['planned']['measured']['configurations']} configurations "
        f"in {found['planned']['measured']['seconds']:.0f} s.",
        f"Shortest and longest trial: {pairs[:, 1].min():.1f} s and {pairs[:, 1].max():.1f} s.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=44)
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = report(measure(arguments.trials, arguments.limit), arguments.limit)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

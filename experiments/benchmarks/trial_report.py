"""What `trial.report` costs a training function on a local worker: from the call to the answer.

    python experiments/benchmarks/trial_report.py [--epochs 300] [--out FILE.md]

A whole sweep with its journal and its MLflow store, on one worker and on one for each core; once with epochs of 50 ms
(a function that waits), once with epochs that take no time, so that MLflow is always behind. One minute.
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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
LIMIT = 5.0
"""Milliseconds."""
FUNCTION = """
import json
import time


def main(config, trial):
    taken = []
    for epoch in range(1, trial.epochs + 1):
        time.sleep(config.pause)
        began = time.perf_counter()
        trial.report(epoch, val_accuracy=epoch / 1000, loss=1 / epoch)
        taken.append(1000 * (time.perf_counter() - began))
        (trial.folder / "taken.json").write_text(json.dumps(taken))
"""


def measured(pause: float, workers: int, epochs: int) -> list[float]:
    """Milliseconds of each report."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "reporting.py").write_text(FUNCTION)
        command = [
            sys.executable, "-m", "cnnsweep", "job=function", "job.call=reporting.main", f"+job.pause={pause}",
            "+job.number=1", "space.job.number={min: 1, max: 64}", "search=grid", f"budget.trials={workers}",
            f"training.epochs={epochs}", "executor=cpu", f"executor.workers={workers}", "tracking.report=false",
        ]  # fmt: skip
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found = [json.loads(path.read_text()) for path in Path(folder).glob("mlruns/sweeps/*/trials/*/taken.json")]
    return [taken for trial in found for taken in trial[1:]]  # the first waits for the other workers to start


def report(cases: Sequence[tuple[str, int, list[float]]]) -> str:
    lines = [
        "# What `trial.report` costs",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"`python experiments/benchmarks/trial_report.py`; {time.strftime('%Y-%m-%d')}. One trial a "
        "worker; milliseconds from the call to the answer, the journal's write included, while MLflow is "
        f"written to (SQLite). Bar: at most {LIMIT:.0f} ms with epochs of 50 ms.",
        "",
        "| epochs of | workers | median, ms | mean, ms | 95th percentile, ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, workers, taken in cases:
        numbers = np.median(taken), np.mean(taken), np.quantile(taken, 0.95)
        lines.append(f"| {name} | {workers} | {' | '.join(f'{number:.1f}' for number in numbers)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cases = []
    for name, pause, epochs in (("50 ms", 0.05, arguments.epochs // 3), ("no time", 0.0, arguments.epochs)):
        for workers in sorted({1, len(os.sched_getaffinity(0))}):
            cases.append((name, workers, measured(pause, workers, epochs)))
            print(*cases[-1][:2], np.median(cases[-1][2]), file=sys.stderr)
    text = report(cases)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

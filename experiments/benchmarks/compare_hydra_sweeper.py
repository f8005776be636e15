"""One Hydra application through Hydra's Optuna sweeper and through cnnsweep: wall time, idle workers, a kill.

    python -m venv SWEEPER
    SWEEPER/bin/pip install hydra-optuna-sweeper hydra-joblib-launcher scikit-learn "sqlalchemy<2" "alembic<1.13"
    python experiments/benchmarks/compare_hydra_sweeper.py --python SWEEPER/bin/python [--out FILE.md]

The application is that of examples/hydra_app; each trial waits for 2 to 6 s, by its values, as training would take
unequal times. Two workers, TPE, the same seed. Each is run once to its end, and once killed (SIGKILL, with all its
processes) when a third of the trials are finished, and started again. Five minutes with 12 trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare_keras_tuner import kill

ROOT = Path(__file__).parents[2]
WORKERS, SHORTEST = 2, 2.0
TIMED = """
import json, math, os, time
import hydra
import train

def note(event, cfg):
    with open(os.environ["TRIAL_LOG"], "a") as file:
        file.write(json.dumps([event, time.time(), cfg.model.C, cfg.model.gamma]) + "\\n")

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    note("start", cfg)
    time.sleep(float(os.environ["SHORTEST"]) * (2 + math.sin(1000 * math.log(cfg.model.C))))
    accuracy = train.main.__wrapped__(cfg)
    note("end", cfg)
    return accuracy

if __name__ == "__main__":
    main()
"""
SWEEPER = (
    "timed.py", "--multirun", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize",
    "hydra.sweeper.sampler.seed=0", f"hydra.sweeper.n_jobs={WORKERS}", "model.C=tag(log, interval(0.01, 100))",
    "model.gamma=tag(log, interval(1e-4, 1))",
)  # fmt: skip
JOBLIB = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={WORKERS}")
STORED = ("hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=study")
CNNSWEEP = (
    "-m", "cnnsweep", "job=hydra", "job.call=timed.main", "search=tpe", "executor=cpu", f"executor.workers={WORKERS}",
    "space.job.config.model.C={min: 0.01, max: 100.0, log: true}", "tracking.report=false", "tracking.gallery=0",
    "space.job.config.model.gamma={min: 1.0e-4, max: 1.0, log: true}",
)  # fmt: skip


@dataclass(frozen=True)
class Tool:
    """A way to run the application: the command of a sweep, and that by which it goes on after a kill."""

    name: str
    command: tuple[str, ...]
    again: tuple[str, ...]
    killed: bool = True
    """Whether it is killed too."""


@dataclass(frozen=True)
class Run:
    """One or two commands in a row."""

    seconds: float
    """Of the commands, from start to end."""
    first: tuple[int, ...]
    """Trials started and finished before the kill."""
    started: int
    finished: int
    span: float
    """From the first trial's start to the last one's end."""
    busy: float
    """Seconds of all trials together."""
    repeated: int
    """Trials with the values of an earlier one."""
    kept: int
    """Trials that were finished before the kill and are in the result."""

    @property
    def idle(self) -> float:
        """The share of the workers' time between the first trial and the last in which they ran none."""
        return 1 - self.busy / (WORKERS * self.span)


def tools(python: str, trials: int) -> list[Tool]:
    count = f"hydra.sweeper.n_trials={trials}"
    plain, joblib, stored = ((python, *SWEEPER, count, *more) for more in ((), JOBLIB, (*JOBLIB, *STORED)))
    ours = (sys.executable, *CNNSWEEP, f"budget.trials={trials}")
    return [
        Tool("Optuna sweeper, Hydra's own launcher", plain, plain, killed=False),
        Tool("Optuna sweeper, joblib launcher", joblib, joblib),
        Tool("Optuna sweeper, joblib launcher, SQLite", stored, stored),
        Tool("cnnsweep", ours, (sys.executable, "-m", "cnnsweep", "resume", "--trust")),
    ]


def entries(log: Path) -> list[list[Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def run(tool: Tool, folder: Path, kill_after: int | None = None) -> Run:
    """Run the sweep in a new folder; with `kill_after`, kill it once so many trials are finished, and go on."""
    shutil.copytree(ROOT / "examples" / "hydra_app", folder)
    (folder / "timed.py").write_text(TIMED)
    log, first, began = folder / "trials.jsonl", (0, 0), time.monotonic()
    process = _start(tool.command, folder)
    if kill_after is not None:
        while sum(e[0] == "end" for e in entries(log)) < kill_after and process.poll() is None:
            time.sleep(0.02)
        kill(process.pid)
        first = _counts(entries(log))
        process = _start(tool.again, folder)
    if code := process.wait():
        raise SystemExit(f"{tool.name} ended with {code}:\n{(folder / 'output.txt').read_text()[-3000:]}")
    seconds, found = time.monotonic() - began, entries(log)
    started, finished = _counts(found)
    before = sum(first)
    kept = 0 if kill_after is None else _results(folder, finished - first[1]) - (finished - first[1])
    values = [tuple(e[2:]) for e in found if e[0] == "start"]
    times = [e[1] for e in found[before:]]
    busy = sum(e[1] * (1 if e[0] == "end" else -1) for e in found) if kill_after is None else 0.0
    return Run(seconds, first, started, finished, max(times) - min(times), busy, len(values) - len(set(values)), kept)


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "TRIAL_LOG": str(folder / "trials.jsonl"), "SHORTEST": str(SHORTEST)}
    variables |= {"PYTHONPATH": str(ROOT)} if "cnnsweep" in command else {"PYTHONPATH": ""}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=output, stderr=output)


def _counts(found: Sequence[Sequence[Any]]) -> tuple[int, int]:
    return sum(e[0] == "start" for e in found), sum(e[0] == "end" for e in found)


def _results(folder: Path, after: int) -> int:
    """The finished trials that the sweep knows at its end; without a store those of the second command alone."""
    if (folder / "study.db").exists():
        with contextlib.closing(sqlite3.connect(folder / "study.db")) as study:
            return int(study.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0])
    journals = list((folder / "mlruns").glob("sweeps/*/journal.jsonl"))
    if not journals:
        return after
    events = [json.loads(line) for line in journals[0].read_text().splitlines()]
    return sum(e["event"] == "end" and e["status"] == "completed" for e in events)


def report(whole: dict[str, Run], killed: dict[str, Run], trials: int) -> str:
    lines = [
        "# A Hydra application through Hydra's Optuna sweeper and through cnnsweep",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"`python experiments/benchmarks/compare_hydra_sweeper.py`; {time.strftime('%Y-%m-%d')}. {trials} trials of "
        f"`examples/hydra_app` by TPE, each of {SHORTEST:.0f} to {3 * SHORTEST:.0f} s, {WORKERS} workers.",
        "",
        "| undisturbed | command, s | first trial to last, s | workers idle in between |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {r.seconds:.0f} | {r.span:.0f} | {r.idle:.0%} |" for name, r in whole.items()),
        "",
        "The sweeper asks for as many trials as there are workers and waits for all of them; Hydra's own launcher runs "
        "these one after the other. cnnsweep starts a trial as soon as a worker is free.",
        "",
        "| killed and started again | finished before | kept | started after | repeated values | both commands, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(f"| {name} | {r.first[1]} | {r.kept} | {r.started - r.first[0]} | {r.repeated} | {r.seconds:.0f} |"
          for name, r in killed.items()),
        "",
        "*Finished before*: trials that were finished when SIGKILL came. *Kept*: those of them that the result has. "
        "*Repeated values*: trials with the values of an earlier one, which the same seed proposes again.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="the interpreter that has hydra-optuna-sweeper")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    whole, killed = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number, tool in enumerate(tools(arguments.python, arguments.trials)):
            if not any(part.startswith("hydra.sweeper.storage") for part in tool.command):
                whole[tool.name] = run(tool, Path(folder) / f"whole{number}")
                print(tool.name, whole[tool.name], file=sys.stderr)
            if tool.killed:
                killed[tool.name] = run(tool, Path(folder) / f"killed{number}", arguments.trials // 3)
                print(tool.name, killed[tool.name], file=sys.stderr)
    text = report(whole, killed, arguments.trials)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

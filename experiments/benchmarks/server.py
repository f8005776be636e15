"""The cost of logging a trial: into a local SQLite file, and through an MLflow server, on SQLite and on PostgreSQL.

    python experiments/benchmarks/server.py [--trials 100]

The journal of a sweep whose training is arithmetic (five epochs a trial) is sent to each store: run, params, metrics,
tags, `config.yaml` and the learning curves. Server, database and sender share the machine. Takes about a minute on two
idle cores; needs PostgreSQL's programs (apt-get install postgresql).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import fake_sweeps
import real_sweeps as real
from postgres import Postgres, programs

from cnnsweep.config.schema import Tracking
from cnnsweep.journal import journal
from cnnsweep.journal.events import EpochEnded, Event, SweepStarted, TrialEnded, TrialStarted
from cnnsweep.sweep import loop
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.tracker import Tracker
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

EPOCHS = 5
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "learning_rate")


def train(spec: TrialSpec) -> Iterator[EpochReport]:
    """As many metrics as a real one."""
    for epoch in range(1, EPOCHS + 1):
        yield EpochReport(spec.number, epoch, dict.fromkeys(METRICS, (spec.seed % 1000 + epoch) / 2000))
    return TrialResult(spec.number, "completed", None, EPOCHS, {"parameters": 1000.0, "mmacs": 1.0})


def record(folder: Path, trials: int) -> list[Event]:
    """The events of a sweep of so many trials."""
    wanted = ("space=cnn", "search=random", f"budget.trials={trials}", f"training.epochs={EPOCHS}")
    sweep = fake_sweeps.make(folder, wanted, job=train)
    loop.search(sweep)
    return [
        event
        for event in journal.read(folder / journal.FILE)
        if isinstance(event, (SweepStarted, TrialStarted, EpochEnded, TrialEnded))
    ]


def measure(name: str, uri: str | None, events: list[Event], trials: int, folder: Path) -> str:
    """One row: milliseconds a trial, where all wait and where each is waited for, and the sender's processor time."""
    figures: list[float] = []
    # Two servers' workers come up one after another, so the first pass is not counted. Each has runs of its own.
    for experiment, step in (("warm", len(events)), ("at once", len(events)), ("one by one", EPOCHS + 2)):
        tracking = Tracking(uri=uri, dir=str(folder), experiment=experiment, tags={}, gallery=0, report=False)
        tracker = Tracker(open_store(tracking), experiment, folder / experiment, {})
        tracker.log(events[0])
        assert tracker.flush(real.PATIENCE) == 0, tracker.trouble
        began, worked = time.perf_counter(), time.process_time()
        for first in range(1, len(events), step):
            tracker.catch_up(events[first : first + step])
            assert tracker.flush(real.PATIENCE) == 0, tracker.trouble
        figures += [time.perf_counter() - began, time.process_time() - worked]
        assert tracker.trouble is None
        tracker.close()
    return f"| {name} | " + " | ".join(f"{1000 * figure / trials:.1f}" for figure in figures[2:]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    trials = parser.parse_args().trials
    found = programs()
    if found is None:
        sys.exit("there is no PostgreSQL here: apt-get install postgresql")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {trials} trials of {EPOCHS} epochs, ms a trial\n")
    print("| store | all at once | of it the sender | one by one | of it the sender |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        events = record(folder / "sweep", trials)
        print(measure("SQLite, local", None, events, trials, folder / "local"), flush=True)
        database = Postgres(found)
        try:
            database.start()
            for name, store in (("SQLite, server", None), ("PostgreSQL, server", database.uri)):
                server = real.Server(folder / name, store, workers=2)
                server.start()
                try:
                    print(measure(name, server.uri, events, trials, folder / f"by {name}"), flush=True)
                finally:
                    server.kill()
        finally:
            database.remove()
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

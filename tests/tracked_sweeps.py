"""Journals of small made-up sweeps, and the real SQLite stores into which the tracker writes them."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config, Tracking
from cnnsweep.journal.events import EpochEnded, Event, SweepStarted, SweepStopped, TrialEnded, TrialStarted
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.tracking.frames import Results, read_results
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.tracker import Tracker
from cnnsweep.trial import Status

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "learning_rate")
STATUSES: tuple[Status, ...] = ("completed", "pruned", "failed", "completed", "completed")
"""Of the five trials of `events_of`."""
NUMBERS = [1, 2, 3, 4, 5]
PROVENANCE = {
    "git": {"commit": "0123abc", "state": "clean"},
    "machine": {"cores": 2, "gpus": []},
    "data": {"name": "digits", "digest": "d1g357", "source": "sklearn", "train": 1293},
}


@functools.cache
def base_config() -> Config:
    return compose([])


def settings(folder: Path, uri: str | None = None, experiment: str = "tests") -> Tracking:
    return Tracking(uri=uri, dir=str(folder), experiment=experiment, tags={"team": "a"}, gallery=3, report=True)


def sweep_event(id_: str = "fake-1", time: float = 1000.0) -> SweepStarted:
    config, command = base_config().plain(), ["cnnsweep", "+sweep=fake"]
    return SweepStarted(
        id=id_, sweep="fake", format=1, config=config, command=command, provenance=PROVENANCE, time=time
    )


def trial_events(
    number: int, epochs: int = 5, first: int = 1, status: Status = "completed"
) -> tuple[TrialStarted, *tuple[EpochEnded, ...], TrialEnded]:
    """One trial's events."""
    drawn = random.Random(number)
    values = parse_space(base_config()).draw(np.random.default_rng(number))
    top, now, done = drawn.uniform(0.7, 0.95), 1000.0 + 100 * number + first, first + epochs - 1
    title = f"{number:03d} · " + "-".join(str(v) for k, v in values.items() if k.startswith("model.filters"))
    start = TrialStarted(
        trial=number, title=title, values=values, seed=number, epochs=done, proposal=f"{number:x}", worker="cpu:0",
        config=base_config().plain(), time=now,
    )  # fmt: skip
    reports = []
    for epoch in range(first, done + 1):
        height = top * (1 - 0.5**epoch)
        metrics = dict(zip(METRICS, (2 - height, height + 0.01, 2.05 - height, height, 1.0, 1e-3), strict=True))
        reports.append(EpochEnded(trial=number, epoch=epoch, metrics=metrics, time=now + epoch))
    summary = {"parameters": 1000 * number, "mmacs": 1.5, "trial_seconds": 5.0}
    reason = None if status == "completed" else f"was {status}"
    end = TrialEnded(
        trial=number, status=status, reason=reason, epochs=done, summary=summary, time=now + done + 1
    )  # fmt: skip
    return start, *reports, end


def stop_event(status: Status = "completed") -> SweepStopped:
    return SweepStopped(status=status, reason="budget.trials", summary={"trials": 3}, time=9000.0)


def named(event: SweepStarted, name: str, *overrides: str) -> SweepStarted:
    """The start of a sweep with another config."""
    return replace(event, sweep=name, config=compose([f"name={name}", *overrides]).plain())


def events_of(id_: str = "fake-20260101-000000", name: str = "fake", time: float = 1000.0) -> list[Event]:
    """A whole sweep of five trials, of which the second has two blocks only."""
    events: list[Event] = [named(sweep_event(id_, time), name, "training.precision=float32")]
    for number, status in enumerate(STATUSES, start=1):
        start, *rest = trial_events(number, status=status)
        if number == 2:
            values = {key: value for key, value in start.values.items() if not key.endswith(".3")}
            start = replace(start, values=values | {"model.blocks": 2})
        events += [start, *rest]
    return [*events, stop_event()]


def follow(uri: str, folder: Path, events: list[Event]) -> Tracker:
    """Send events to the end and return the closed tracker."""
    tracker = Tracker(uri, "tests", folder, {"team": "a"})
    tracker.catch_up(events)
    assert tracker.close(60) == 0, tracker.trouble
    return tracker


def results(folder: Path, sweep: str | None = None) -> Results:
    """The sweep as it is read back from the store in `folder`."""
    return read_results(open_reader(settings(folder)), sweep)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema, made once: migrations take seconds."""
    folder = tmp_path_factory.mktemp("store")
    open_store(settings(folder, experiment="another"))
    return folder


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """A fresh copy of the empty store."""
    (tmp_path / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    return open_store(settings(tmp_path))


@pytest.fixture(scope="module")
def shared(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event], Tracker]:
    """A store that tests only read: its folder, the events it was made from, and their tracker."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    events = events_of()
    return folder, events, follow(open_store(settings(folder)), folder / "sweep", events)

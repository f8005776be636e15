"""Sweeps whose training is arithmetic, so that a test can run and crash hundreds of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.journal import journal, replay
from cnnsweep.journal.state import SweepState
from cnnsweep.search import search as searches
from cnnsweep.search_space import problem
from cnnsweep.sweep.loop import Sweep
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

BASE = ("+sweep=smoke", "training.epochs=3", "budget.trials=6", "executor=inline")


@functools.cache
def config(*overrides: str) -> dict[str, Any]:
    return compose([*BASE, *overrides])


def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Like the real job: goes on after `initial_epoch`, fails where the seed says so, stops where it is told to."""
    if spec.seed % 7 == 0:
        return TrialResult(spec.number, "failed", "loss is nan in epoch 1")
    status, epoch = "completed", spec.initial_epoch
    for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
        value = (spec.seed % 1000) / 2000 + 0.1 * epoch
        if not (yield EpochReport(spec.number, epoch, {"val_accuracy": value, "loss": 1 - value})):
            status = "pruned"
            break
    return TrialResult(spec.number, status, None, epoch, {"parameters": 1.0})


def make(folder: Path, overrides: Sequence[str] = (), job: Callable[..., Any] = train, executor: Any = None) -> Sweep:
    """A sweep in `folder`: a new one, or the one of the journal that is there."""
    path = folder / journal.FILE
    events = journal.read(path) if path.exists() else []
    composed = config(*overrides)
    posed = problem.pose(composed, (8, 8, 1), 10)
    objective = Objective.of(composed["objective"])
    search = searches.build(composed, posed, objective)
    before = replay.replay(search, SweepState(objective), events, path)
    made = Sweep(
        folder, posed, search, executor or InlineExecutor(), journal.Journal(path), before.ledger, [], before.pending
    )
    made.job = job
    if events:
        made.begin("resume", budget=composed["budget"], executor=composed["executor"])
    else:
        made.begin(id=folder.name, name="fake", format=journal.FORMAT, config=composed, facts={})
    return made


def table(sweep: Sweep) -> list[tuple[Any, ...]]:
    """What must be the same after any crash."""
    entries = sorted(sweep.ledger.entries.values(), key=lambda e: e.number)
    return [(e.number, dict(e.values), e.status, e.reason, e.target, e.proposal, e.curve) for e in entries]

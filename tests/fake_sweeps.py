"""Sweeps whose training is arithmetic, so that a test can run and crash hundreds of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.journal import journal
from cnnsweep.journal.events import SweepResumed, SweepStarted
from cnnsweep.journal.state import SweepState
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import make_problem
from cnnsweep.sweep.resume import rebuild
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.training.early_stopping import stopped_after
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

BASE = ("+sweep=smoke", "training.epochs=3", "budget.trials=6", "executor=inline")


@functools.cache
def config(*overrides: str) -> Config:
    return compose([*BASE, *overrides])


def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Like the real job: goes on after `initial_epoch`, fails where the seed says so, stops at the answer False."""
    if spec.seed % 7 == 0:
        return TrialResult(spec.number, "failed", "loss is nan in epoch 1")
    status, reason, epoch = "completed", None, spec.initial_epoch
    for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
        value = (spec.seed % 1000) / 2000 + 0.1 * epoch
        if not (yield EpochReport(spec.number, epoch, {"val_accuracy": value, "loss": 1 - value})):
            status, reason = "pruned", stopped_after(epoch)
            break
    return TrialResult(spec.number, status, reason, epoch, {"parameters": 1.0})


def make(folder: Path, overrides: Sequence[str] = (), job: Callable[..., Any] = train, executor: Any = None) -> Sweep:
    """A sweep in `folder`: a new one, or the one of the journal that is there."""
    path = folder / journal.FILE
    events = journal.read(path) if path.exists() else []
    composed = config(*overrides)
    problem = make_problem(composed, (8, 8, 1), 10)
    search = build(composed, problem, Objective.of(composed.objective))
    state = SweepState(search.objective)
    pending = rebuild(search, state, events, path)
    made = Sweep(folder, problem, search, executor or InlineExecutor(), journal.Journal(path), state, [], pending, job)
    if events:
        made.record(SweepResumed(budget=composed.budget.plain(), executor=composed.executor.plain()))
    else:
        made.record(SweepStarted(id=folder.name, sweep="fake", format=journal.FORMAT, config=composed.plain()))
    return made


def table(sweep: Sweep) -> list[tuple[Any, ...]]:
    """What must be the same after any crash."""
    entries = sorted(sweep.state.trials.values(), key=lambda e: e.number)
    return [(e.number, dict(e.values), e.status, e.reason, e.target, e.proposal, e.curve) for e in entries]

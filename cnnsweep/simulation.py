"""The schedule of a sweep played through with the real search, forecast times and made-up results."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnsweep.budget import used_up
from cnnsweep.finetune import total_epochs
from cnnsweep.forecast import Forecaster, amounts_of
from cnnsweep.problem import Problem
from cnnsweep.search import Proposal, Search
from cnnsweep.space import apply

MOST_RUNS = 3_000


@dataclass(frozen=True)
class Run:
    """One stretch of training on one slot."""

    number: int
    values: Mapping[str, Any]
    epochs: int
    seconds: float
    """Forecast."""


@dataclass
class Simulated:
    """What would be run, in order, until when, and why it ends."""

    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""


class Simulation:
    """Asks and tells a search like the sweep's own loop, by a clock that jumps from event to event."""

    def __init__(
        self, problem: Problem, search: Search, slots: Sequence[str], forecaster: Forecaster, images: tuple[int, int]
    ) -> None:
        self._problem, self._search, self._forecaster, self._images = problem, search, forecaster, images
        self._slots = list(slots)
        self._budget = problem.config["budget"]
        self._rng = np.random.default_rng(problem.config["seed"])
        self._scores: dict[int, float] = {}
        self._numbers: dict[str, int] = {}
        self._done: dict[int, int] = {}
        self._events: list[tuple[float, int, str]] = []
        self._busy: dict[str, tuple[Proposal, int, int]] = {}
        self._now = 0.0
        self._stopping = ""
        self.result = Simulated()

    def run(self, start: float = 0.0) -> Simulated:
        """Play to the end; `start` is when the workers are ready."""
        self._now = start
        while True:
            self._fill()
            if not self._busy:
                break
            self._now, _, slot = heapq.heappop(self._events)
            minutes = self._budget["minutes"]
            if minutes and self._now >= 60 * minutes:
                self._now, self._stopping = 60 * minutes, f"budget.minutes ({minutes:g}) is spent"
                break
            self._end(slot)
        self.result.seconds = self._now
        self.result.reason = self._stopping or used_up(self._budget, len(self._done))
        return self.result

    def _fill(self) -> None:
        for slot in self._slots:
            self._check()
            if slot in self._busy or self._stopping:
                continue
            proposal = self._search.ask(slot)
            if isinstance(proposal, str):
                return
            self._start(slot, proposal)

    def _start(self, slot: str, proposal: Proposal) -> None:
        number = self._numbers[proposal.continues] if proposal.continues else len(self._done) + 1
        self._numbers[proposal.id] = number
        config = apply(self._problem.config, proposal.values)
        before, target = self._done.get(number, 0), proposal.epochs or total_epochs(config["training"])
        amounts = amounts_of(self._problem.judge(proposal.values).network, config, *self._images)
        seconds = self._forecaster.trial(amounts, target - before)
        self._done[number] = target
        self._busy[slot] = proposal, before, target
        self.result.runs.append(Run(number, proposal.values, target - before, seconds))
        heapq.heappush(self._events, (self._now + seconds, len(self.result.runs), slot))

    def _end(self, slot: str) -> None:
        proposal, before, target = self._busy.pop(slot)
        score = self._scores.setdefault(self._numbers[proposal.id], float(self._rng.random()))
        for epoch in range(before + 1, target + 1):
            # A made-up curve that rises to a value of its own, so that promotions have something to go by.
            value = score * (1 - 0.5 ** (epoch + 1))
            better = value if self._search.objective.direction == "max" else 1 - value
            if not self._search.report(proposal.id, epoch, {self._search.objective.metric: better}):
                break
        self._search.end(proposal.id, succeeded=True)

    def _check(self) -> None:
        epochs = sum(run.epochs for run in self.result.runs)
        promotes = getattr(self._search.oracle, "promotes", False)
        if self._budget["epochs"] and epochs >= self._budget["epochs"]:
            self._stopping = f"budget.epochs ({self._budget['epochs']}) is spent"
        elif self._budget["trials"] and len(self._done) >= self._budget["trials"] and not promotes:
            self._stopping = f"budget.trials ({self._budget['trials']}) is reached"
        elif len(self.result.runs) >= MOST_RUNS:
            self._stopping = f"only the first {MOST_RUNS:,} runs were played through"

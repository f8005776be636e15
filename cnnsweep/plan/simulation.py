"""The schedule of a sweep played through with the real search, forecast times and made-up results."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search.search import Proposal, Search
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import apply
from cnnsweep.sweep.budget import used_up
from cnnsweep.training.cost_model import Forecaster, amounts_of

MOST_RUNS = 3_000


@dataclass(frozen=True)
class Run:
    """One stretch of training on one worker."""

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


@dataclass
class _Busy:
    """A trial that is being trained."""

    proposal: Proposal
    run: int
    """Its place among the runs."""
    done: int
    """Epochs that the search was told of."""
    until: int
    """Epochs when it is next compared, or ends."""
    target: int
    seconds: float
    """Of an epoch."""


class Simulation:
    """Asks and tells a search like the sweep's own loop, by a clock that jumps from event to event."""

    def __init__(
        self, problem: Problem, search: Search, workers: Sequence[str], forecaster: Forecaster, images: tuple[int, int]
    ) -> None:
        self._problem, self._search, self._forecaster, self._images = problem, search, forecaster, images
        self._slots = list(workers)
        self._budget = problem.config["budget"]
        self._rng = np.random.default_rng(problem.config["seed"])
        self._scores: dict[int, float] = {}
        self._numbers: dict[str, int] = {}
        self._done: dict[int, int] = {}
        self._events: list[tuple[float, int, str]] = []
        self._busy: dict[str, _Busy] = {}
        self._turn = 0
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
            self._now, _, worker = heapq.heappop(self._events)
            minutes = self._budget["minutes"]
            if minutes and self._now >= 60 * minutes:
                self._now, self._stopping = 60 * minutes, f"budget.minutes ({minutes:g}) is spent"
                break
            self._reach(worker)
        self.result.seconds = self._now
        self.result.reason = self._stopping or used_up(self._budget, len(self._done))
        return self.result

    def _fill(self) -> None:
        for worker in self._slots:
            self._check()
            if worker in self._busy or self._stopping:
                continue
            proposal = self._search.ask(worker)
            if isinstance(proposal, str):
                return
            self._start(worker, proposal)

    def _start(self, worker: str, proposal: Proposal) -> None:
        number = self._numbers[proposal.continues] if proposal.continues else len(self._done) + 1
        self._numbers[proposal.id] = number
        config = apply(self._problem.config, proposal.values)
        before, target = self._done.get(number, 0), proposal.epochs or total_epochs(config["training"])
        amounts = amounts_of(self._problem.judge(proposal.values).network, config, *self._images)
        first, other = self._forecaster.parts(amounts)
        self._busy[worker] = _Busy(proposal, len(self.result.runs), before, before, target, other)
        self.result.runs.append(Run(number, proposal.values, 0, 0.0))
        self._go_on(worker, first - other if target > before else 0.0)

    def _go_on(self, worker: str, start: float = 0.0) -> None:
        """Train to the next rung, where the search may stop the trial, or to its end."""
        busy = self._busy[worker]
        busy.done = busy.until
        busy.until = int(min(self._search.next_rung(busy.proposal.id, busy.done), busy.target))
        run, epochs = self.result.runs[busy.run], busy.until - busy.done
        seconds = start + epochs * busy.seconds
        self.result.runs[busy.run] = replace(run, epochs=run.epochs + epochs, seconds=run.seconds + seconds)
        self._done[run.number] = busy.until
        self._turn += 1
        heapq.heappush(self._events, (self._now + seconds, self._turn, worker))

    def _reach(self, worker: str) -> None:
        busy = self._busy[worker]
        score = self._scores.setdefault(self._numbers[busy.proposal.id], float(self._rng.random()))
        keep_on = all(self._report(busy.proposal.id, score, epoch) for epoch in range(busy.done + 1, busy.until + 1))
        if keep_on and busy.until < busy.target:
            self._go_on(worker)
            return
        del self._busy[worker]
        self._search.end(busy.proposal.id, succeeded=True)

    def _report(self, proposal: str, score: float, epoch: int) -> bool:
        # A made-up curve that rises to a value of its own, so that rungs have something to go by.
        value = score * (1 - 0.5 ** (epoch + 1))
        better = value if self._search.objective.direction == "max" else 1 - value
        return self._search.report(proposal, epoch, {self._search.objective.metric: better})

    def _check(self) -> None:
        epochs = sum(run.epochs for run in self.result.runs)
        promotes = getattr(self._search.oracle, "promotes", False)
        if self._budget["epochs"] and epochs >= self._budget["epochs"]:
            self._stopping = f"budget.epochs ({self._budget['epochs']}) is spent"
        elif self._budget["trials"] and len(self._done) >= self._budget["trials"] and not promotes:
            self._stopping = f"budget.trials ({self._budget['trials']}) is reached"
        elif len(self.result.runs) >= MOST_RUNS:
            self._stopping = f"only the first {MOST_RUNS:,} runs were played through"

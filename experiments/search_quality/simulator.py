"""Play a search against the surrogate: its asks and tells are real, the training and the clock are not."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from problem import EPOCHS, OBJECTIVE
from surrogate import Surrogate

from cnnsweep.search.search import Proposal


class Searching(Protocol):
    """What the sweep's loop asks of a search: `cnnsweep.search.search.Search`, and the contenders from elsewhere."""

    def ask(self, worker: str) -> Proposal | Literal["wait", "done"]: ...
    def report(self, proposal: str, epoch: int, metrics: Mapping[str, float]) -> bool: ...
    def end(self, proposal: str, succeeded: bool) -> None: ...


@dataclass
class History:
    """What was known when: one entry an epoch trained, in the order of the clock."""

    seconds: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    """Accuracy, free of noise, of the network that looks best so far, as it was at its best epoch."""
    trials: int = 0
    idle: float = 0.0
    """Seconds for which workers had nothing to do, summed."""

    def after(self, trainings: float) -> float:
        """What was found when so many full trainings' worth of epochs had been trained."""
        spent = min(round(trainings * EPOCHS), len(self.found))
        return self.found[spent - 1]


@dataclass
class _Run:
    proposal: Proposal
    number: int
    done: int
    target: int


class Simulator:
    """Workers that train configurations by looking their curves up. The same seed gives the same noise."""

    def __init__(self, surrogate: Surrogate, workers: int, seed: int) -> None:
        self._surrogate, self._seed = surrogate, seed
        self._slots = [f"cpu{i}" for i in range(workers)]
        self._busy: dict[str, _Run] = {}
        self._events: list[tuple[float, int, str]] = []
        self._numbers: dict[str, int] = {}
        self._observed: dict[int, np.ndarray] = {}
        self._trained: dict[int, int] = {}
        self._best = -np.inf
        self._order = 0

    def run(self, search: Searching, trainings: float) -> History:
        """Search until so many full trainings' worth of epochs are trained, or nothing is left to train."""
        history, now = History(), 0.0
        free = dict.fromkeys(self._slots, 0.0)
        while len(history.found) < trainings * EPOCHS:
            for worker in self._slots:
                if worker not in self._busy:
                    proposal = search.ask(worker)
                    if isinstance(proposal, str):
                        break
                    history.idle += now - free[worker]
                    self._start(worker, proposal, now)
            if not self._busy:
                break
            now, _, worker = heapq.heappop(self._events)
            run = self._busy[worker]
            run.done += 1
            self._trained[run.number] = run.done
            keep_on = search.report(run.proposal.id, run.done, {OBJECTIVE.metric: self._observe(run, history, now)})
            if keep_on and run.done < run.target:
                self._schedule(worker, now)
            else:
                del self._busy[worker]
                free[worker] = now
                search.end(run.proposal.id, succeeded=True)
        history.trials = len(set(self._numbers.values()))
        return history

    def _start(self, worker: str, proposal: Proposal, now: float) -> None:
        number = self._numbers[proposal.continues] if proposal.continues else len(self._observed) + 1
        self._numbers[proposal.id] = number
        if number not in self._observed:
            self._observed[number] = self._noisy(proposal.values, number)
        self._busy[worker] = _Run(proposal, number, self._trained.get(number, 0), proposal.epochs or EPOCHS)
        self._schedule(worker, now)

    def _noisy(self, values: Mapping[str, Any], number: int) -> np.ndarray:
        """The curve that training with another seed might have given."""
        rng = np.random.default_rng([self._seed, number])
        return self._surrogate.curve(values)[0] + self._surrogate.noise(values, rng)

    def _schedule(self, worker: str, now: float) -> None:
        run = self._busy[worker]
        self._order += 1
        seconds = self._surrogate.curve(run.proposal.values)[1][run.done]
        heapq.heappush(self._events, (now + seconds, self._order, worker))

    def _observe(self, run: _Run, history: History, now: float) -> float:
        value = float(self._observed[run.number][run.done - 1])
        found = history.found[-1] if history.found else 0.0
        if value > self._best:
            self._best, found = value, float(self._surrogate.curve(run.proposal.values)[0][run.done - 1])
        history.seconds.append(now)
        history.found.append(found)
        return value

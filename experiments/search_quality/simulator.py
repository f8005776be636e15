"""A sweep against the surrogate: its loop and its search are real, the training and the clock are not."""

from __future__ import annotations

import bisect
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
from contenders import Contender
from problem import OBJECTIVE, problem
from surrogate import Surrogate

from cnnsweep.journal.events import EpochEnded, Event, TrialEnded, TrialStarted
from cnnsweep.plan.simulation import After, VirtualExecutor, virtual_sweep
from cnnsweep.search.oracle import Oracle
from cnnsweep.sweep import loop
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec


@dataclass
class History:
    """What was known when: one entry an epoch trained, in the order of the clock."""

    seconds: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    """Accuracy, free of noise, of the network that looks best so far, as it was at its best epoch."""
    trials: int = 0
    idle: float = 0.0
    """Seconds for which workers had nothing to do, summed."""

    def after(self, seconds: float) -> float:
        """What was found by then; nothing, an accuracy of 0, before the first epoch has ended."""
        known = bisect.bisect_right(self.seconds, seconds)
        return self.found[known - 1] if known else 0.0


class Simulator:
    """Workers that train configurations by looking their curves up. The same seed gives the same noise."""

    def __init__(self, surrogate: Surrogate, workers: int, seed: int) -> None:
        self._surrogate, self._seed = surrogate, seed
        self._executor = VirtualExecutor([f"cpu{i}" for i in range(workers)])
        self._free = dict.fromkeys(self._executor.workers, 0.0)
        self._observed: dict[int, np.ndarray] = {}
        self._best = -np.inf
        self._history = History()

    def run(self, search: Oracle | Contender, seconds: float) -> History:
        """Search for so many seconds of the clock, or until nothing is left to train."""
        self._end = seconds
        self._sweep = virtual_sweep(problem(), search, self._executor)
        self._sweep.job = self._train
        self._sweep.listeners.append(self)
        loop.search(self._sweep)
        self._history.trials = len(self._sweep.state.trials)
        return self._history

    def log(self, event: Event) -> None:
        match event:
            case TrialStarted():
                self._history.idle += event.time - self._free[event.worker]
            case TrialEnded():
                self._free[self._sweep.state.trials[event.trial].worker] = event.time
            case EpochEnded() if event.time <= self._end:
                self._observe(event)
            case EpochEnded():
                self._sweep.stopping = "the time is over"

    def _observe(self, event: EpochEnded) -> None:
        found = self._history.found[-1] if self._history.found else 0.0
        value = event.metrics[OBJECTIVE.metric]
        if value > self._best:
            values = self._sweep.state.trials[event.trial].values
            self._best, found = value, float(self._surrogate.curve(values)[0][event.epoch - 1])
        self._history.seconds.append(event.time)
        self._history.found.append(found)

    def _train(self, spec: TrialSpec) -> Generator[After, bool, TrialResult]:
        curve, seconds = self._surrogate.curve(spec.values)
        if spec.number not in self._observed:  # the curve that training with another seed might have given
            rng = np.random.default_rng([self._seed, spec.number])
            self._observed[spec.number] = curve + self._surrogate.noise(spec.values, rng)
        start = self._surrogate.start_seconds if spec.initial_epoch else 0.0  # that of a first epoch is in the curve
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            value = float(self._observed[spec.number][epoch - 1])
            spent, start = start + float(seconds[epoch - 1]), 0.0
            if not (yield After(spent, EpochReport(spec.number, epoch, {OBJECTIVE.metric: value}))):
                return TrialResult(spec.number, "pruned", None, epoch)
        return TrialResult(spec.number, "completed", None, spec.epochs)

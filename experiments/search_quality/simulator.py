"""A sweep against the surrogate: its loop and its search are real, the training and the clock are not."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np
from contenders import Contender
from problem import EPOCHS, OBJECTIVE, problem
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

    def after(self, trainings: float) -> float:
        """What was found when so many full trainings' worth of epochs had been trained."""
        spent = min(round(trainings * EPOCHS), len(self.found))
        return self.found[spent - 1]


class Simulator:
    """Workers that train configurations by looking their curves up. The same seed gives the same noise."""

    def __init__(self, surrogate: Surrogate, workers: int, seed: int) -> None:
        self._surrogate, self._seed = surrogate, seed
        self._executor = VirtualExecutor([f"cpu{i}" for i in range(workers)])
        self._free = dict.fromkeys(self._executor.workers, 0.0)
        self._observed: dict[int, np.ndarray] = {}
        self._best = -np.inf
        self._history = History()

    def run(self, search: Oracle | Contender, trainings: float) -> History:
        """Search until so many full trainings' worth of epochs are trained, or nothing is left to train."""
        config = problem().config
        self._most = int(np.ceil(trainings * EPOCHS))
        limited = replace(problem(), config=config.replace(budget=config.budget.replace(epochs=self._most)))
        self._sweep = virtual_sweep(limited, search, self._executor)
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
            case EpochEnded() if len(self._history.found) < self._most:
                self._observe(event)

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
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            value = float(self._observed[spec.number][epoch - 1])
            if not (yield After(seconds[epoch - 1], EpochReport(spec.number, epoch, {OBJECTIVE.metric: value}))):
                return TrialResult(spec.number, "pruned", None, epoch)
        return TrialResult(spec.number, "completed", None, spec.epochs)

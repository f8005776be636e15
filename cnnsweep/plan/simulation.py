"""Sweeps on a virtual clock: the loop of a real one, an executor without training, forecast times, made-up results."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from cnnsweep.executors.base import Event, Executor, Job, run_all
from cnnsweep.journal import events
from cnnsweep.journal.journal import FORMAT, SomeEvent
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.search.oracle import Oracle
from cnnsweep.search_space.problem import Problem
from cnnsweep.sweep import finish, loop
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.training.cost_model import Amounts, Forecaster, amounts_of
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

MOST_RUNS = 3_000


@dataclass(frozen=True)
class After:
    """What a job for a `VirtualExecutor` yields: a report, and the seconds that its work takes."""

    seconds: float
    report: Any


class VirtualExecutor(Executor):
    """Runs jobs in this process; their reports come when the seconds that they say have passed on its own clock."""

    workers: Sequence[str] = ()

    def __init__(self, workers: Sequence[str]) -> None:
        self.workers = tuple(workers)
        self.time = 0.0
        """Seconds since the clock started."""
        self._due: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._steps: dict[str, Generator[After, Any, Any]] = {}
        self._ready: dict[str, bool | None] = {}
        """Workers that go on at the next `wait`, with the answer to their last report; None for a new job."""

    def now(self) -> float:
        """The time of its clock, for the sweep's loop and its journal."""
        return self.time

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        self._steps[worker], self._ready[worker] = job(argument), None

    def wait(self, timeout: float | None = None) -> Event | None:
        """Move the clock to the next event and return it, or by `timeout` seconds."""
        for worker, answer in self._ready.items():
            self._advance(worker, answer)
        self._ready.clear()
        limit = self.time + (math.inf if timeout is None else timeout)
        if self._due and self._due[0][0] <= limit:
            self.time, _, event = heapq.heappop(self._due)
            return event
        self.time = limit if math.isfinite(limit) else self.time
        return None

    def kill(self, worker: str, reason: str) -> None:
        """End the worker's job as "lost"."""
        if self._steps.pop(worker, None) is not None:
            self._ready.pop(worker, None)
            self._due = [due for due in self._due if due[2].worker != worker]
            heapq.heapify(self._due)
            self._push(0.0, Event(worker, "lost", reason))

    def close(self) -> None:
        self._steps.clear()
        self._ready.clear()
        self._due.clear()

    def _advance(self, worker: str, answer: bool | None) -> None:
        try:
            step = self._steps[worker].send(answer)
        except StopIteration as end:
            del self._steps[worker]
            self._push(0.0, Event(worker, "result", end.value))
        else:
            answered = functools.partial(self._ready.__setitem__, worker)
            self._push(step.seconds, Event(worker, "report", step.report, answered))

    def _push(self, seconds: float, event: Event) -> None:
        heapq.heappush(self._due, (self.time + seconds, next(self._order), event))


class UnwrittenJournal:
    """Gives events their time on a virtual clock, and keeps none."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

    def append(self, event: SomeEvent) -> SomeEvent:
        return replace(event, time=self.now())


@dataclass
class Run:
    """One stretch of training on one worker."""

    number: int
    values: Mapping[str, Any]
    epochs: int = 0
    seconds: float = 0.0
    """Forecast."""


def virtual_sweep(problem: Problem, search: Oracle, executor: VirtualExecutor) -> Sweep:
    """A sweep that has begun at the start of the executor's clock, and writes nothing."""
    journal, state = UnwrittenJournal(executor.now), SweepState(search.objective)
    sweep = Sweep(Path("virtual"), problem, search, executor, journal, state, patience=np.inf)
    sweep.record(events.SweepStarted(id="virtual", sweep=problem.config.name, format=FORMAT, config={}))
    return sweep


class Simulation:
    """Runs a sweep's loop. The reports of a stretch of epochs in which no trial is compared come at its end."""

    def __init__(
        self, problem: Problem, search: Oracle, workers: Sequence[str], forecaster: Forecaster, images: tuple[int, int]
    ) -> None:
        self.runs: list[Run] = []
        """In the order in which they start."""
        self.seconds, self.reason = 0.0, ""
        """The end of the search, and the reason for it."""
        self.replicates, self.replicate_seconds = 0, 0.0
        """Trainings of finalists with other seeds, and how long they take after the search."""
        self._forecaster, self._images = forecaster, images
        self._rng = np.random.default_rng(problem.config.seed)
        self._scores: dict[int, float] = {}
        self._latest: dict[int, Run] = {}
        self._executor = VirtualExecutor(workers)
        self._sweep = virtual_sweep(problem, search, self._executor)
        self._sweep.job = self._train
        self._sweep.listeners.append(self)

    def run(self, start: float = 0.0) -> Self:
        """Run to the end; `start` is when the workers are ready."""
        self._executor.time = start
        loop.search(self._sweep)
        minutes = self._sweep.config.budget.minutes
        self.seconds = min(self._executor.time, 60 * minutes) if minutes else self._executor.time
        self.reason = self._sweep.stopping or ""
        self._replicate()
        return self

    def _replicate(self) -> None:
        """Train the finalists again, on all workers."""
        before = self._executor.time
        missing = self._sweep.state.missing_replicates(finish.with_replicates(self._sweep))
        run_all(self._executor, [(self._again, trial) for trial, _ in missing], wait=self._executor.wait)
        self.replicates, self.replicate_seconds = len(missing), self._executor.time - before

    def _again(self, trial: TrialState) -> Generator[After, bool, None]:
        yield After(self._forecaster.trial(self._amounts(trial.values), len(trial.curve)), None)

    def _amounts(self, values: Mapping[str, object]) -> Amounts:
        problem = self._sweep.problem
        return amounts_of(problem.validate(values).network, problem.config.with_values(values), *self._images)

    def log(self, event: events.Event) -> None:
        """Note the runs; there may be no more than `MOST_RUNS`."""
        if isinstance(event, events.TrialStarted):
            self._latest[event.trial] = Run(event.trial, event.values)
            self.runs.append(self._latest[event.trial])
            if len(self.runs) >= MOST_RUNS and not self._sweep.stopping:
                self._sweep.stopping = f"only the first {MOST_RUNS:,} runs were played through"

    def _train(self, spec: TrialSpec) -> Generator[After, bool, TrialResult]:
        run, proposal = self._latest[spec.number], self._sweep.state.trials[spec.number].proposal
        first, other = self._forecaster.parts(self._amounts(spec.values))
        done, start = spec.initial_epoch, first - other if spec.epochs > spec.initial_epoch else 0.0
        while done < spec.epochs:
            rung = int(min(self._sweep.search.next_rung(proposal, done), spec.epochs))
            seconds, start = start + (rung - done) * other, 0.0
            run.epochs, run.seconds = run.epochs + rung - done, run.seconds + seconds
            score = self._scores.setdefault(spec.number, float(self._rng.random()))
            for epoch in range(done + 1, rung + 1):
                if not (yield After(seconds, EpochReport(spec.number, epoch, self._metrics(score, epoch)))):
                    return TrialResult(spec.number, "pruned", None, epoch)
                seconds = 0.0
            done = rung
        return TrialResult(spec.number, "completed", None, done)

    def _metrics(self, score: float, epoch: int) -> dict[str, float]:
        """A made-up curve that rises to a value of its own, so that rungs have something to go by."""
        value, objective = score * (1 - 0.5 ** (epoch + 1)), self._sweep.search.objective
        return {objective.metric: value if objective.direction == "max" else 1 - value}

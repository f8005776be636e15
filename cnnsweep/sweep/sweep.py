"""A sweep while it runs: its parts, its events, and its interruption by Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from cnnsweep.config.schema import Config
from cnnsweep.executors.base import Event as Message
from cnnsweep.executors.base import Executor, Job
from cnnsweep.journal.events import Event
from cnnsweep.journal.journal import Log
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.search.oracle import Oracle
from cnnsweep.search_space.problem import Problem
from cnnsweep.sweep.limits import seconds_left
from cnnsweep.training.cost_model import TrialForecaster
from cnnsweep.training.train import train


class Listener(Protocol):
    """Follows the events of a sweep: the tracker, the screen."""

    def log(self, event: Event) -> None: ...


@dataclass
class Sweep:
    """What the loop works with. All calls come from one thread, but for those of a signal's handler."""

    folder: Path
    problem: Problem
    search: Oracle
    executor: Executor
    journal: Log
    state: SweepState
    listeners: list[Listener] = field(default_factory=list)
    pending: dict[int, bool] = field(default_factory=dict)
    """Trials that an earlier run of the sweep did not finish; whether the search wanted to see more of each."""
    job: Job = train
    """Trains a trial."""
    forecaster: TrialForecaster | None = None
    """Predicts how long trials take; without one every proposal is started."""
    say: Callable[[str], None] = lambda _: None
    """Shows one line."""
    patience: float = 1.0
    """Seconds to wait for a worker at most before the limits are looked at again."""
    stopping: str | None = None
    """Why no new trial is started: a budget, too many failures, an interrupt."""
    halt: bool = False
    """Running trials are to stop at the end of their epoch."""
    interrupted: bool = False
    """Someone asked for it, or the disk is full: running trials are to be resumed later."""
    abandoned: bool = False
    """Someone asked twice."""
    running: dict[str, int] = field(default_factory=dict)
    """The trial of each busy worker."""
    begun: dict[int, float] = field(default_factory=dict)
    """The time at which each running trial began; one that waits for shared work has not."""
    pruned: set[int] = field(default_factory=set)
    """Trials that the search stopped; others were stopped by a limit or by someone."""
    _waiting: bool = False

    @property
    def config(self) -> Config:
        return self.problem.config

    def now(self) -> float:
        """The time by the clock of the journal, in seconds since 1970."""
        return self.journal.now()

    def record(self, event: Event) -> None:
        """Write an event to the journal, then apply it to the state and pass it to the listeners."""
        self.notify(self.write(event))

    def write(self, event: Event) -> Event:
        """Write an event to the journal, apply it to the state, and return what is to be passed to the listeners."""
        recorded = self.journal.append(event)
        self.state.apply(recorded)
        return recorded

    def notify(self, recorded: Event) -> None:
        """Pass an event that is in the journal to the listeners."""
        for listener in self.listeners:
            listener.log(recorded)

    def wait(self, timeout: float | None = None) -> Message | None:
        """Wait for a worker, by default until the limits are to be looked at again.

        Raises KeyboardInterrupt once the sweep is abandoned.
        """
        if timeout is None:
            left = math.inf if self.stopping else self.seconds_left
            timeout = min(self.patience, max(0.05, left))
        self._waiting = True
        try:
            if self.abandoned:
                raise KeyboardInterrupt
            return self.executor.wait(timeout)
        finally:
            self._waiting = False
            for worker in self.running.keys() & self.executor.notes.keys():
                self.begun[self.running[worker]] = self.now()

    def seconds_of(self, trial: TrialState) -> float:
        """Seconds since a running trial began; to be asked at its end."""
        return self.now() - self.begun.pop(trial.number, trial.started)

    def interrupt(self, reason: str = "interrupted") -> None:
        """Start no new trials; running ones stop at the end of their epoch."""
        self.stopping, self.halt, self.interrupted = reason, True, True

    def abandon(self) -> None:
        """Do not wait for running trials: KeyboardInterrupt is raised between two events."""
        self.abandoned = True
        if self._waiting:
            raise KeyboardInterrupt

    @property
    def seconds_left(self) -> float:
        """Until budget.minutes are spent; infinite without such a limit."""
        return seconds_left(self.config.budget, self.state, self.now())

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:03d}"

    def costs(self, values: Mapping[str, Any]) -> dict[str, float]:
        """parameters and mmacs of a configuration's network, where its model family has a geometry."""
        network = self.problem.validate(values).network
        return {"parameters": network.parameters, "mmacs": round(network.mmacs, 4)} if network else {}


@contextlib.contextmanager
def responsive() -> Iterator[None]:
    """Let the loop answer a worker within a millisecond while MLflow is written to by another thread.

    By default a thread that computes gives the interpreter up after 5 ms.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def interruptible(sweep: Sweep, grace: float) -> Iterator[None]:
    """Turn a signal into `sweep.interrupt`, a second one into `sweep.abandon`, as `grace` seconds after a SIGTERM."""
    # A second signal to ourselves: the sweep may be training inline, where only a signal gets through.
    timer = threading.Timer(grace, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True

    def on_signal(number: int, _: FrameType | None) -> None:
        if sweep.interrupted:
            sweep.abandon()
        else:
            sweep.interrupt()
            if number == signal.SIGTERM:
                timer.start()

    try:
        before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, as in a notebook or a test
        yield
        return
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)

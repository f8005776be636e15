"""An executor for trials that share work, which is done once, as a job of its own, before the first of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cnnsweep.executors.base import Event, Executor, Job
from cnnsweep.trial import Step, TrialSpec

Prepare = Callable[[TrialSpec], Step | TrialSpec]
"""Returns the work that a trial still needs, or the trial as it is to be run once that work is done."""


class _WaitingTrial(NamedTuple):
    job: Job
    argument: object
    key: str
    """Of the work that it waits for."""


class SharedWorkExecutor(Executor):
    """Passes jobs on to another executor, and delays trials until the work that they share is done.

    `say` is called with a line when shared work ends; `notes` has a line for each worker that waits or does it.
    """

    def __init__(self, executor: Executor, prepare: Prepare, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        self._notes: dict[str, str] = {}
        self._executor, self._prepare = executor, prepare
        self._trials: dict[str, _WaitingTrial] = {}  # by worker
        self._keys: dict[str, str] = {}  # of the work that each worker does
        self._events: deque[Event] = deque()

    @property
    def notes(self) -> Mapping[str, str]:
        return {**self._executor.notes, **self._notes}

    @property
    def workers(self) -> Sequence[str]:
        return self._executor.workers

    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Start a job, or the shared work that it needs first."""
        ready = self._prepare(argument) if isinstance(argument, TrialSpec) else argument
        if not isinstance(ready, Step):
            self._executor.submit(worker, job, ready)
            return
        self._trials[worker] = _WaitingTrial(job, argument, ready.key)
        self._notes[worker] = "waits for features"
        if ready.key not in self._keys.values():
            self._keys[worker] = ready.key
            self._executor.submit(worker, ready.job, ready.argument)

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event of a job; those of shared work are handled here."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            event = self._executor.wait(left)
            if event is None or event.worker not in self._keys:
                return event
            self._handle(event)
            if left == 0:
                break
        return self._events.popleft() if self._events else None

    def kill(self, worker: str, reason: str) -> None:
        """End the worker's job. A trial that waits is lost at once; another waiting trial takes its work over."""
        if worker not in self._trials:
            self._executor.kill(worker, reason)
            return
        if worker in self._keys:
            self._executor.kill(worker, reason)
            while (event := self._executor.wait()) is not None:
                if event.worker == worker and event.kind != "report":
                    break
                if event.worker in self._keys:
                    self._handle(event)
                else:
                    self._events.append(event)
        self._lose(worker, reason)
        self._release(worker)

    def close(self) -> None:
        self._trials.clear()
        self._executor.close()

    def _handle(self, event: Event) -> None:
        worker = event.worker
        if event.kind == "report":
            self._notes[worker] = str(event.value)
            event.answer(True)
            return
        if event.kind == "lost":
            for waiting in self._waiting_for(self._keys[worker]):
                self._lose(waiting, str(event.value))
        else:
            self.say(str(event.value))
        self._release(worker)

    def _lose(self, worker: str, reason: str) -> None:
        del self._trials[worker]
        self._notes.pop(worker, None)
        self._events.append(Event(worker, "lost", reason))

    def _release(self, worker: str) -> None:
        """Submit the trials that waited for this worker's work again: the first restarts it if it was not done."""
        key = self._keys.pop(worker, None)
        for waiting in self._waiting_for(key):
            trial = self._trials.pop(waiting)
            self._notes.pop(waiting, None)
            self.submit(waiting, trial.job, trial.argument)

    def _waiting_for(self, key: str | None) -> list[str]:
        return [worker for worker, trial in self._trials.items() if trial.key == key]

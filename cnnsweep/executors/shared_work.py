"""An executor for trials that share work: it is done once, as a job of its own, before the first that needs it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsweep.executors.base import Event, Executor, Job
from cnnsweep.trial import Step, TrialSpec

Prepare = Callable[[TrialSpec], Step | TrialSpec]
"""What a trial still needs; or, once that is there, the trial as it is to be run."""


@dataclass(frozen=True)
class _Held:
    job: Job
    spec: TrialSpec
    step: Step


class Preparing:
    """Passes everything on to another executor, and holds trials back until what they need is there.

    `say` is called with a line when shared work ends; `notes` has a line for each worker that waits or prepares.
    """

    def __init__(self, executor: Executor, prepare: Prepare) -> None:
        self.say: Callable[[str], None] = lambda _: None
        self.notes: dict[str, str] = {}
        self._executor, self._prepare = executor, prepare
        self._held: dict[str, _Held] = {}
        self._working: dict[str, str] = {}
        """The worker that does the work of each key."""
        self._events: deque[Event] = deque()

    @property
    def workers(self) -> Sequence[str]:
        return self._executor.workers

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        """Start a job, or the shared work that it needs first."""
        ready = self._prepare(argument) if isinstance(argument, TrialSpec) else argument
        if not isinstance(ready, Step):
            self._executor.submit(worker, job, ready)
            return
        self._held[worker] = _Held(job, argument, ready)
        self.notes[worker] = "waits for features"
        if ready.key not in self._working:
            self._working[ready.key] = worker
            self._executor.submit(worker, ready.job, ready.argument)

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event of a trial; those of shared work are dealt with here."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            event = self._executor.wait(left)
            if event is None or event.worker not in self._working.values():
                return event
            self._take(event)
            if left == 0 and not self._events:
                return None
        return self._events.popleft()

    def kill(self, worker: str, reason: str) -> None:
        """End the worker's job; a trial that is held back is lost at once, and another may take its work over."""
        if worker not in self._held:
            self._executor.kill(worker, reason)
            return
        if worker in self._working.values():
            self._executor.kill(worker, reason)
            while (event := self._executor.wait()) is not None:
                if event.worker == worker and event.kind != "report":
                    break
                self._events.append(event)
        self._lose(worker, reason)
        self._release(worker)

    def close(self) -> None:
        """Stop whatever runs."""
        self._held.clear()
        self._executor.close()

    def _take(self, event: Event) -> None:
        worker = event.worker
        if event.kind == "report":
            self.notes[worker] = str(event.value)
            event.answer(True)
            return
        key = self._held[worker].step.key
        if event.kind == "lost":
            for waiting in [s for s, held in self._held.items() if held.step.key == key]:
                self._lose(waiting, str(event.value))
        else:
            self.say(str(event.value))
        self._release(worker)

    def _lose(self, worker: str, reason: str) -> None:
        del self._held[worker]
        self.notes.pop(worker, None)
        self._events.append(Event(worker, "lost", reason))

    def _release(self, worker: str) -> None:
        """Let the trials go on that waited for this worker's work; the first starts it again if it was not done."""
        key = next((k for k, s in self._working.items() if s == worker), None)
        if key is None:
            return
        del self._working[key]
        for worker, held in [(s, h) for s, h in self._held.items() if h.step.key == key]:
            del self._held[worker]
            self.notes.pop(worker, None)
            self.submit(worker, held.job, held.spec)

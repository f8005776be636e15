"""Time limits of running jobs: in all for a trial, between two reports for any job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cnnsweep.executors.base import Event, Executor, Job
from cnnsweep.trial import TrialSpec

LOOK = 1.0  # seconds between looks at the clocks
STOPPED = 60.0  # seconds without a look after which this process must have been stopped (Ctrl-Z), and its workers too


@dataclass
class _Clock:
    began: float
    last_report: float
    trial: bool
    killed: bool = False


class TimeLimitedExecutor(Executor):
    """Passes jobs on to another executor, and kills those that take too long. None: no limit.

    `trial_minutes` is for all epochs of a trial, `hang_minutes` for the time between two reports of any job: an epoch,
    shared work, an evaluation. A job that waits for something (the executor has a note) takes no time.
    """

    def __init__(
        self,
        executor: Executor,
        trial_minutes: float | None = None,
        hang_minutes: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor, self._now = executor, now
        self._trial_minutes, self._hang_minutes = trial_minutes, hang_minutes
        self._clocks: dict[str, _Clock] = {}
        self._looked = now()

    @property
    def notes(self) -> Mapping[str, str]:
        return self._executor.notes

    @property
    def workers(self) -> Sequence[str]:
        return self._executor.workers

    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Start a job on a free worker, and its clock."""
        self._executor.submit(worker, job, argument)
        now, trial = self._now(), isinstance(argument, TrialSpec)
        spent = argument.seconds if isinstance(argument, TrialSpec) else 0.0
        self._clocks[worker] = _Clock(now - spent, now, trial)

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event; jobs that are over their limits are killed meanwhile, and then lost."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._clocks and self._limited:
                left = LOOK if left is None else min(left, LOOK)
            event = self._executor.wait(left)
            if event is not None:
                self._hear(event)
            self._kill_overdue(event is None)
            if event is not None or not self._clocks or (deadline is not None and time.monotonic() >= deadline):
                return event

    def kill(self, worker: str, reason: str) -> None:
        self._executor.kill(worker, reason)

    def close(self) -> None:
        self._clocks.clear()
        self._executor.close()

    @property
    def _limited(self) -> bool:
        return bool(self._trial_minutes or self._hang_minutes)

    def _hear(self, event: Event) -> None:
        if event.kind != "report":
            self._clocks.pop(event.worker, None)
        elif event.worker in self._clocks:
            self._clocks[event.worker].last_report = self._now()

    def _kill_overdue(self, idle: bool) -> None:
        """Kill each job that is over a limit, once; `idle`: no event has come."""
        now, waiting = self._now(), self._executor.notes
        passed, self._looked = now - self._looked, now
        stopped = idle and passed > STOPPED
        for worker, clock in list(self._clocks.items()):
            if stopped or worker in waiting:
                clock.began, clock.last_report = min(now, clock.began + passed), now
            elif not clock.killed and (reason := self._reason(clock, now)):
                clock.killed = True
                self._executor.kill(worker, reason)

    def _reason(self, clock: _Clock, now: float) -> str | None:
        if clock.trial and self._trial_minutes and now - clock.began >= 60 * self._trial_minutes:
            return f"took longer than executor.trial_minutes ({self._trial_minutes:g})"
        if self._hang_minutes and now - clock.last_report >= 60 * self._hang_minutes:
            what = "epoch" if clock.trial else "progress"
            return f"no {what} within executor.hang_minutes ({self._hang_minutes:g})"
        return None

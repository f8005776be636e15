"""How long a trial may take, in all and without a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Clock:
    began: float
    heard: float
    told: bool = False


@dataclass
class Watchdog:
    """Keeps the time of the trials that run, by worker. None: no limit."""

    trial_minutes: float | None = None
    hang_minutes: float | None = None
    now: Callable[[], float] = time.monotonic
    _clocks: dict[str, _Clock] = field(default_factory=dict)

    @classmethod
    def of(cls, executor: Mapping[str, Any]) -> Watchdog:
        """The limits in an executor's config; one of a user's own need not have any."""
        return cls(executor.get("trial_minutes"), executor.get("hang_minutes"))

    def started(self, worker: str, spent: float) -> None:
        """A trial that took `spent` seconds before starts on a worker."""
        now = self.now()
        self._clocks[worker] = _Clock(now - spent, now)

    def heard(self, worker: str) -> None:
        """An epoch was reported."""
        self._clocks[worker].heard = self.now()

    def ended(self, worker: str) -> None:
        self._clocks.pop(worker, None)

    def overdue(self) -> list[tuple[str, str]]:
        """Slots whose trial is to be ended, with the reason; each is told once."""
        found: list[tuple[str, str]] = []
        if not (self.trial_minutes or self.hang_minutes):
            return found
        now = self.now()
        for worker, clock in self._clocks.items():
            reason = self._reason(clock, now)
            if reason and not clock.told:
                clock.told = True
                found.append((worker, reason))
        return found

    def _reason(self, clock: _Clock, now: float) -> str | None:
        if self.trial_minutes and now - clock.began >= 60 * self.trial_minutes:
            return f"took longer than executor.trial_minutes ({self.trial_minutes:g})"
        if self.hang_minutes and now - clock.heard >= 60 * self.hang_minutes:
            return f"no epoch within executor.hang_minutes ({self.hang_minutes:g})"
        return None

"""Where trials run: in the driver, in worker processes on cores or GPUs, or on a cluster.

An executor runs a job, a generator function: its argument in, reports out (`yield`, whose value is the
answer: True to keep on, False to stop), a result at the end (`return`). Nothing above knows where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Job = Callable[[Any], Generator[Any, bool, Any]]


@dataclass(frozen=True)
class Event:
    """Something a running job told, or what became of it."""

    worker: str
    kind: Literal["report", "result", "lost"]
    value: Any
    """The report; the result; or, for a job that raised or whose process died, the reason in one line."""
    answer: Callable[[bool], None] = lambda _: None
    """For a report: must be called once; the job waits for it."""


class ExecutorGoneError(RuntimeError):
    """What runs the trials is gone for good: nothing that is under way will end."""


class Executor(Protocol):
    """Slots that run one job each at a time. A job's last event, "result" or "lost", frees its worker."""

    workers: Sequence[str]
    """Names such as "gpu0", "cpu1". Those of a cluster come and go, while `wait` is called and at no other time."""

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        """Start a job on a free worker; returns at once."""

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds, or sooner where there are new workers.

        Without a timeout, None only if no event can come.
        """

    def kill(self, worker: str, reason: str) -> None:
        """End the worker's job, also one that hangs, as "lost" for this reason; a free worker stays as it is."""

    def close(self) -> None:
        """Stop whatever still runs and release the workers."""

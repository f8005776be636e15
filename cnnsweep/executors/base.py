"""The interface of executors, and running a fixed list of jobs on one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Steps = Generator[Any, bool, Any]
Job = Callable[[Any], Steps]
"""A generator function, importable by name: its argument in, reports out (`yield`, whose value is the answer: True to
continue, False to stop), a result at the end (`return`). Paths in the argument are written to, except those in fields
called `data`, which are only read."""


@dataclass(frozen=True)
class Event:
    """A report of a running job, or its end."""

    worker: str
    kind: Literal["report", "result", "lost"]
    value: Any
    """The report; the result; or, for a job that raised or whose process died, the reason in one line."""
    answer: Callable[[bool], None] = lambda _: None
    """For a report: must be called once; the job waits for it."""


class ExecutorGoneError(RuntimeError):
    """The machines that run the trials cannot be reached any more: no running job will end."""


class Executor(ABC):
    """Workers that run one job each at a time. A job's last event, "result" or "lost", frees its worker."""

    @property
    def notes(self) -> Mapping[str, str]:
        """A line for each worker whose job has not started yet, about what it waits for."""
        return {}

    @property
    @abstractmethod
    def workers(self) -> Sequence[str]:
        """Names such as "gpu0", "cpu1". They change only while `wait` is called, as nodes join a cluster or leave."""

    @abstractmethod
    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Start a job on a free worker; returns at once."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds, or earlier where workers have joined.

        Without a timeout, None only if no event can come.
        """

    @abstractmethod
    def kill(self, worker: str, reason: str) -> None:
        """End the worker's job, even one that hangs, as "lost" for this reason. A free worker is left alone."""

    @abstractmethod
    def close(self) -> None:
        """Stop all running jobs and release the workers."""


def answer_once(send: Callable[[bool], None]) -> Callable[[bool], None]:
    """Return the answer to one report, which raises RuntimeError when it is called again."""
    answered = False

    def answer(keep_on: bool) -> None:
        nonlocal answered
        if answered:
            raise RuntimeError("this report was answered already")
        answered = True
        send(bool(keep_on))

    return answer


def run_all(
    executor: Executor,
    tasks: Sequence[tuple[Job, object]],
    on_report: Callable[[int, Any], bool] = lambda _task, _report: True,
    wait: Callable[[], Event | None] | None = None,
    on_end: Callable[[int, Event], None] = lambda _task, _event: None,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Event]:
    """Run tasks (a job and its argument each) on all workers of an idle executor; return how each ended, in order.

    `on_report` gets a task's index and a report, and answers whether it is to continue. `wait` replaces the
    executor's own, for a caller that can be interrupted. `on_end` gets each end as it comes. Once `go_on` returns
    False, no further task is started; the list then has only those that were.
    """
    ends: dict[int, Event] = {}
    waiting = list(range(len(tasks)))
    running: dict[str, int] = {}
    while running or (waiting and go_on()):
        for worker in executor.workers:
            if waiting and worker not in running and go_on():
                running[worker] = waiting.pop(0)
                executor.submit(worker, *tasks[running[worker]])
        event = wait() if wait else executor.wait(timeout=1.0)
        if event is None or event.worker not in running:
            continue
        if event.kind == "report":
            event.answer(on_report(running[event.worker], event.value))
        else:
            ends[index := running.pop(event.worker)] = event
            on_end(index, event)
    return [ends[index] for index in sorted(ends)]

"""A fixed list of jobs over all workers of an executor that has nothing else to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cnnsweep.executors.base import Event, Executor, Job


def run_all(
    executor: Executor,
    tasks: Sequence[tuple[Job, Any]],
    on_report: Callable[[int, Any], bool] = lambda _task, _report: True,
    wait: Callable[[], Event | None] | None = None,
    on_end: Callable[[int, Event], None] = lambda _task, _event: None,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Event]:
    """Run tasks (a job and its argument each), as many at once as there are workers; return how each ended, in order.

    `on_report` gets a task's index and a report, and answers whether it is to keep on. `wait` stands in for the
    executor's own, for one that can be interrupted. `on_end` gets each end as it comes. Once `go_on` says no, nothing
    more is started, and only those that were are in the list.
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

"""Time limits count the time in which a job runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cnnsweep.executors.base import Event, Executor
from cnnsweep.executors.shared_work import SharedWorkExecutor
from cnnsweep.executors.time_limits import TimeLimitedExecutor
from cnnsweep.trial import Step, TrialSpec

IN_ALL, HANGS = "took longer than executor.trial_minutes (10)", "no {} within executor.hang_minutes (2)"


class Jobs(Executor):
    """Jobs that do what the test says: they report, wait for a node, and are lost where they are killed."""

    workers = ("a", "b")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.waiting: dict[str, str] = {}
        self.running: dict[str, Any] = {}

    @property
    def notes(self) -> Mapping[str, str]:
        return self.waiting

    def submit(self, worker: str, job: Any, argument: Any) -> None:
        self.running[worker] = argument

    def wait(self, timeout: float | None = None) -> Event | None:
        return self.events.pop(0) if self.events else None

    def report(self, worker: str) -> None:
        self.events.append(Event(worker, "report", 1))

    def end(self, worker: str, kind: Any, value: Any) -> None:
        del self.running[worker]
        self.events.append(Event(worker, kind, value))

    def kill(self, worker: str, reason: str) -> None:
        self.end(worker, "lost", reason)

    def close(self) -> None:
        """Nothing runs."""


class Clock:
    minutes = 0.0

    def __call__(self) -> float:
        return 60 * self.minutes


class Timed:
    """Jobs, limits of 10 minutes a trial and 2 without a report, and a clock that the test sets."""

    def __init__(self) -> None:
        self.jobs, self.clock = Jobs(), Clock()
        self.executor = TimeLimitedExecutor(self.jobs, trial_minutes=10, hang_minutes=2, now=self.clock)

    def at(self, minutes: float, *reports: str, executor: Executor | None = None) -> list[tuple[str, Any]]:
        """The jobs that were lost by that time, which comes a minute at a time; a look is taken at each."""
        lost: list[tuple[str, Any]] = []
        while self.clock.minutes < minutes:
            self.clock.minutes = min(minutes, self.clock.minutes + 0.5)
            for worker in reports:
                self.jobs.report(worker)
            for _ in range(6):
                event = (executor or self.executor).wait(0)
                if event is not None and event.kind == "lost":
                    lost.append((event.worker, event.value))
        return lost


def trial(number: int = 1, minutes: float = 0) -> TrialSpec:
    return TrialSpec(number, {}, {}, 0, Path(), Path(), 1, seconds=60 * minutes)  # type: ignore[arg-type]


def job(_: Any) -> Any:
    """Stands for any job."""


def test_a_trial_has_so_many_minutes_for_all_its_epochs() -> None:
    timed = Timed()
    timed.executor.submit("a", job, trial())
    timed.executor.submit("b", job, trial(2, minutes=6))
    assert timed.at(3.5, "a", "b") == []
    assert timed.at(9.5, "a", "b") == [("b", IN_ALL)]
    assert timed.at(20, "a") == [("a", IN_ALL)]


@pytest.mark.parametrize(("argument", "awaited"), [(trial(), "epoch"), ("the best network", "progress")])
def test_every_job_that_does_not_report_hangs(argument: Any, awaited: str) -> None:
    timed = Timed()
    timed.executor.submit("a", job, argument)
    assert timed.at(3, "a") == []
    assert timed.at(4.5) == []
    assert timed.at(5) == [("a", HANGS.format(awaited))]


def test_other_jobs_than_trials_have_no_limit_in_all() -> None:
    timed = Timed()
    timed.executor.submit("a", job, "the best network")
    assert timed.at(60, "a") == []


def test_time_spent_waiting_for_a_node_does_not_count() -> None:
    timed = Timed()
    timed.jobs.waiting = {"a": "waits for a node"}
    timed.executor.submit("a", job, trial())
    assert timed.at(60) == []
    timed.jobs.waiting = {}
    assert timed.at(69.5, "a") == []
    assert timed.at(71, "a") == [("a", IN_ALL)]


def test_time_in_which_the_driver_itself_was_stopped_does_not_count() -> None:
    timed = Timed()
    timed.executor.submit("a", job, trial())
    timed.clock.minutes = 600
    assert timed.executor.wait(0) is None
    assert timed.at(601.5) == []
    assert timed.at(602) == [("a", HANGS.format("epoch"))]


class TestSharedWork:
    def test_trials_that_wait_for_it_take_no_time_and_it_has_no_limit_in_all(self) -> None:
        timed, done = Timed(), set[str]()
        shared = SharedWorkExecutor(timed.executor, lambda spec: spec if done else Step("features", job, "features"))
        shared.submit("a", job, trial(1))
        shared.submit("b", job, trial(2))
        assert timed.at(60, "a", executor=shared) == []
        done.add("features")
        timed.jobs.end("a", "result", "done")
        assert timed.at(69.5, "a", "b", executor=shared) == []
        assert set(timed.at(71, "a", "b", executor=shared)) == {("a", IN_ALL), ("b", IN_ALL)}

    def test_it_is_killed_where_it_hangs_and_costs_the_trials_that_wait_for_it(self) -> None:
        timed = Timed()
        shared = SharedWorkExecutor(timed.executor, lambda spec: Step("features", job, "features"))
        shared.submit("a", job, trial(1))
        shared.submit("b", job, trial(2))
        hangs = HANGS.format("progress")
        assert set(timed.at(3, executor=shared)) == {("a", hangs), ("b", hangs)}

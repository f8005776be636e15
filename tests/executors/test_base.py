"""One suite for every executor."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import executor_jobs as jobs
import pytest
import ray_cluster
from executor_jobs import run, values

from cnnsweep.executors.base import Executor, run_all
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.worker import in_one_line

# A new executor joins the suite by being listed here.
EXECUTORS: dict[str, Callable[[], Executor]] = {
    "inline": InlineExecutor,
    "process": lambda: ProcessExecutor(device="cpu", workers=2),
    "process-reused": lambda: ProcessExecutor(device="cpu", workers=2, trials_per_worker=20),
}


@pytest.fixture(scope="module")
def on_ray() -> Iterator[Executor]:
    """A cluster takes seconds to start, and its workers as long to import TensorFlow: one for all tests."""
    with ray_cluster.two_cores() as executor:
        yield executor


@pytest.fixture(params=[*EXECUTORS, pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param in EXECUTORS:
        with closing(EXECUTORS[request.param]()) as made:
            yield made
            made.close()  # twice does no harm
        return
    shared: Executor = request.getfixturevalue("on_ray")
    yield shared
    for worker in shared.workers:
        shared.kill(worker, "the test is over")
    while shared.wait() is not None:
        pass


def test_reports_arrive_in_order_and_the_result_last(executor: Executor) -> None:
    events = run(executor, jobs.count, 3)
    assert values(events) == [1, 2, 3, "counted to 3"]
    assert [event.kind for event in events] == ["report"] * 3 + ["result"]
    assert {event.worker for event in events} == {executor.workers[0]}


def test_an_answer_false_stops(executor: Executor) -> None:
    assert values(run(executor, jobs.count, 5, [True, False])) == [1, 2, "stopped at 2"]


def test_a_job_without_reports(executor: Executor) -> None:
    assert values(run(executor, jobs.instant, {"a": 1})) == [{"a": 1}]


def test_every_job_begins_with_the_default_settings_of_keras(executor: Executor) -> None:
    defaults = ("channels_last", "float32", 1e-7, "float32", None)
    try:
        assert [values(run(executor, jobs.change_keras, None))[0] for _ in range(2)] == [defaults] * 2
    finally:
        run(executor, jobs.instant, None)  # the inline executor has changed this process


def test_an_exception_costs_the_job_and_not_the_worker(executor: Executor) -> None:
    *_, lost = run(executor, jobs.fail, ValueError("bad luck\nand more"))
    assert (lost.kind, lost.value) == ("lost", "ValueError: bad luck")
    assert values(run(executor, jobs.instant, 7)) == [7]


def test_a_death_is_named_and_costs_the_job(executor: Executor) -> None:
    if isinstance(executor, InlineExecutor):
        pytest.skip("its jobs run in this process")
    *_, lost = run(executor, jobs.call, partial(signal.raise_signal, signal.SIGKILL))
    assert (lost.kind, lost.value.partition(":")[0]) == ("lost", "killed by SIGKILL (signal 9)")
    assert values(run(executor, jobs.instant, 7)) == [7]


def test_a_killed_job_is_lost_for_that_reason(executor: Executor) -> None:
    worker = executor.workers[0]
    executor.submit(worker, jobs.count, 3)
    report = executor.wait(60)
    assert report is not None
    executor.kill(worker, "too slow")
    lost = executor.wait(60)
    assert lost is not None
    assert (lost.kind, lost.worker, lost.value) == ("lost", worker, "too slow")
    report.answer(True)  # too late, and harmless
    executor.kill(worker, "not running")
    assert values(run(executor, jobs.instant, 7)) == [7]


def test_every_job_ends_exactly_once(executor: Executor) -> None:
    ends = run_all(executor, [(jobs.count, number) for number in range(1, 21)])
    assert [end.value for end in ends] == [f"counted to {number}" for number in range(1, 21)]
    assert {end.worker for end in ends} == set(executor.workers)
    assert executor.wait(0) is None


def test_nothing_to_wait_for(executor: Executor) -> None:
    assert executor.wait() is None
    assert executor.wait(0) is None


def test_a_busy_worker_takes_no_second_job(executor: Executor) -> None:
    executor.submit(executor.workers[0], jobs.count, 1)
    with pytest.raises(RuntimeError, match="busy"):
        executor.submit(executor.workers[0], jobs.count, 1)


def test_a_list_of_jobs(executor: Executor) -> None:
    tasks = [(jobs.count, 2), (jobs.fail, ValueError("bad luck")), (jobs.count, 3), (jobs.instant, 7)]
    ended: list[int] = []
    reports: list[tuple[int, object]] = []

    def on_report(index: int, report: object) -> bool:
        reports.append((index, report))
        return (index, report) != (2, 1)

    ends = run_all(executor, tasks, on_report, on_end=lambda index, event: ended.append(index))
    assert [end.value for end in ends] == ["counted to 2", "ValueError: bad luck", "stopped at 1", 7]
    assert sorted(ended) == [0, 1, 2, 3]
    assert sorted(report for report in reports if report[0] != 1) == [(0, 1), (0, 2), (2, 1)]
    assert run_all(executor, tasks, go_on=lambda: False) == []


def test_the_line_that_tells_of_lost_memory() -> None:
    class ResourceExhaustedError(Exception):
        pass

    error = ResourceExhaustedError(
        "Graph execution error:\n\nDetected at node a/b defined at (most recent call last):\n"
        "<stack traces unavailable>\nOOM when allocating tensor with shape[9] by allocator GPU_0_bfc\n\t[[a]]"
    )
    expected = "ResourceExhaustedError: OOM when allocating tensor with shape[9] by allocator GPU_0_bfc"
    assert in_one_line(error) == expected

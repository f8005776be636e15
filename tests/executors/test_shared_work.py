"""Work that trials share: done by one worker while the others wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from executor_jobs import instant, run

from cnnsweep.executors.base import Event, Executor
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.shared_work import SharedWorkExecutor
from cnnsweep.trial import Step, TrialSpec


class Manual(Executor):
    """An executor of two workers whose jobs end when the test says so."""

    workers = ("a", "b")

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[Any, Any]] = {}
        self.events: list[Event] = []

    def submit(self, worker: str, job: Any, argument: Any) -> None:
        assert worker not in self.jobs
        self.jobs[worker] = (job, argument)

    def end(self, worker: str, kind: Any, value: Any) -> None:
        del self.jobs[worker]
        self.events.append(Event(worker, kind, value))

    def wait(self, timeout: float | None = None) -> Event | None:
        return self.events.pop(0) if self.events else None

    def kill(self, worker: str, reason: str) -> None:
        self.end(worker, "lost", reason)

    def close(self) -> None:
        """Nothing runs."""


class Shared:
    """Trials that need the work their values name, which is done once `there` has it."""

    def __init__(self, **needs: str) -> None:
        self.workers, self.there, self.said = Manual(), set[str](), list[str]()
        self.executor = SharedWorkExecutor(self.workers, self.prepare, self.said.append)
        for number, (worker, name) in enumerate(needs.items(), start=1):
            self.executor.submit(worker, train, trial_of(number, name))

    def prepare(self, trial: TrialSpec) -> Step | TrialSpec:
        needs = trial.values["needs"]
        return trial if needs in self.there else Step(needs, compute, needs)


def trial_of(number: int, needs: str) -> TrialSpec:
    return TrialSpec(number, {"needs": needs}, {}, 0, Path(), Path(), 1)


def compute(_: Any) -> None:
    """Stands for the shared work."""


def train(_: Any) -> None:
    """Stands for a trial."""


def test_shared_work_is_done_by_one_while_others_wait() -> None:
    shared = Shared(a="x", b="x")
    executor, workers = shared.executor, shared.workers
    assert workers.jobs == {"a": (compute, "x")}
    assert executor.notes.keys() == {"a", "b"}
    answers: list[bool] = []
    workers.events.append(Event("a", "report", "half", answers.append))
    assert executor.wait(0) is None
    assert executor.notes["a"] == "half"
    assert answers == [True]
    shared.there.add("x")
    workers.end("a", "result", "done")
    assert executor.wait(0) is None
    assert shared.said == ["done"]
    assert workers.jobs == {"a": (train, trial_of(1, "x")), "b": (train, trial_of(2, "x"))}
    assert not executor.notes
    workers.end("b", "result", 7)
    assert executor.wait(0) == Event("b", "result", 7)


def test_different_work_is_done_side_by_side() -> None:
    shared = Shared(a="x", b="y")
    assert shared.workers.jobs == {"a": (compute, "x"), "b": (compute, "y")}


def test_work_that_fails_costs_the_trials_that_wait_for_it() -> None:
    shared = Shared(a="x", b="x")
    shared.workers.end("a", "lost", "out of memory")
    lost = [shared.executor.wait(0), shared.executor.wait(0)]
    assert {(e.worker, e.kind, e.value) for e in lost if e} == {(w, "lost", "out of memory") for w in "ab"}
    shared.executor.submit("b", train, trial_of(3, "x"))
    assert shared.workers.jobs == {"b": (compute, "x")}


def test_a_trial_that_is_killed_leaves_its_work_to_another() -> None:
    shared = Shared(a="x", b="x")
    shared.executor.kill("a", "too slow")
    assert shared.executor.wait(0) == Event("a", "lost", "too slow")
    assert shared.workers.jobs == {"b": (compute, "x")}


def test_work_of_another_that_ends_while_a_trial_is_killed_is_no_end_of_that_trial() -> None:
    shared = Shared(a="x", b="y")
    shared.there.add("y")
    shared.workers.end("b", "result", "done")
    shared.executor.kill("a", "too slow")
    assert shared.executor.wait(0) == Event("a", "lost", "too slow")
    assert shared.workers.jobs == {"b": (train, trial_of(2, "y"))}


def test_progress_of_other_work_that_comes_while_a_trial_is_killed_is_a_note() -> None:
    shared, answers = Shared(a="x", b="y"), list[bool]()
    shared.workers.events.append(Event("b", "report", "half", answers.append))
    shared.executor.kill("a", "too slow")
    assert (shared.executor.notes["b"], answers) == ("half", [True])
    assert shared.executor.wait(0) == Event("a", "lost", "too slow")
    assert shared.executor.wait(0) is None


def test_jobs_other_than_trials_pass_through() -> None:
    (end,) = run(SharedWorkExecutor(InlineExecutor(), lambda _: Step("x", compute, "x")), instant, 3)
    assert end == Event("inline", "result", 3)

"""The sweep's loop and a slow search: a worker that gets free is filled at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import fake_sweeps
import pytest

from cnnsweep.executors.base import Event
from cnnsweep.journal import journal

OVERRIDES = ("search=gp", "search.startup=2", "budget.trials=10")


@pytest.fixture(autouse=True)
def _from_the_first_trial_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnsweep.search.oracle.AHEAD_FROM", 0)


class Busy:
    """Two workers whose jobs take long, as far as the loop can see: at once there is never an event."""

    workers = ("a", "b")

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self._jobs: dict[str, Any] = {}
        self._answers: dict[str, bool | None] = {}

    def submit(self, worker: str, job: Any, argument: Any) -> None:
        self.told.append("start")
        self._jobs[worker], self._answers[worker] = job(argument), None

    def wait(self, timeout: float | None = None) -> Event | None:
        if timeout == 0:
            return None
        worker = next(iter(self._jobs))
        steps = self._jobs.pop(worker)
        try:
            report = next(steps) if self._answers[worker] is None else steps.send(self._answers[worker])
        except StopIteration as end:
            self.told.append("end")
            return Event(worker, "result", end.value)
        self._jobs[worker] = steps
        return Event(worker, "report", report, lambda keep_on: self._answers.__setitem__(worker, keep_on))

    def kill(self, worker: str, reason: str) -> None:
        raise AssertionError(reason)

    def close(self) -> None:
        pass


def make(folder: Path) -> tuple[Any, list[str]]:
    told: list[str] = []
    sweep = fake_sweeps.make(folder, OVERRIDES, executor=Busy(told))
    draw = sweep.search.oracle.draw

    def counted() -> Any:
        told.append("draw")
        return draw()

    sweep.search.oracle.draw = counted
    return sweep, told


def test_nothing_is_drawn_between_the_end_of_a_trial_and_the_start_of_the_next(tmp_path: Path) -> None:
    sweep, told = make(tmp_path / "whole")
    sweep.run()
    sweep.journal.close()
    assert told.count("start") == 10
    assert told.count("draw") == 10, "made for no trial, or made twice"
    begun = told[told.index("end") :]
    assert [b for a, b in itertools.pairwise(begun) if a == "end"][:8] == ["start"] * 8


@pytest.mark.parametrize("starts", [3, 6, 9])
def test_a_driver_that_dies_with_a_proposal_made_ahead_loses_and_repeats_nothing(tmp_path: Path, starts: int) -> None:
    sweep, told = make(tmp_path / "killed")
    prepare = sweep.search.prepare

    def die() -> None:
        prepare()
        if told.count("start") == starts:
            raise InterruptedError

    sweep.search.prepare = die
    with pytest.raises(InterruptedError):
        sweep.run()
    sweep.journal.close()
    begun = [e for e in journal.read(sweep.journal.path) if e["event"] == "trial"]
    assert len(begun) == starts, "made ahead is no trial"
    stock = sweep.search.oracle._stock
    again, _ = make(tmp_path / "killed")
    again.run()
    again.journal.close()
    entries = [again.ledger.entries[number] for number in range(1, 11)]
    assert len({again.problem.judge(e.values).signature for e in entries}) == 10
    assert sorted(again.ledger.entries) == list(range(1, 11))
    assert stock == (dict(entries[starts].values),), "the same is proposed after the resume"

"""Slow searches make their proposals ahead, so that no worker waits for one."""

from __future__ import annotations

import itertools
from collections import Counter

import fake_sweeps
import pytest
from searching import DISCRETE, TINY, drive, everything, new, score, signature

from cnnsweep.executors.base import Event, Executor
from cnnsweep.journal import journal
from cnnsweep.journal.events import TrialStarted
from cnnsweep.sweep import loop

SLOW = ("bayesian", "gp", "asha gp")
slow_search = pytest.mark.parametrize("name", SLOW)


@pytest.fixture
def from_the_start(monkeypatch):
    monkeypatch.setattr("cnnsweep.search.oracle.AHEAD_FROM", 0)


@pytest.mark.usefixtures("from_the_start")
@pytest.mark.parametrize("workers", [1, 3])
@slow_search
def test_a_proposal_made_ahead_is_the_one_that_would_be_made_later(start, name, workers, monkeypatch):
    def run(ahead):
        search = start(name, DISCRETE, budget={"trials": 16})[1]
        draw, prepare, count = search.draw, search.prepare, Counter()
        monkeypatch.setattr(search, "draw", lambda: count.update(["draw"]) or draw())

        def prepared():
            before = count["draw"]
            prepare()
            count["ahead"] += count["draw"] - before

        monkeypatch.setattr(search, "prepare", prepared)
        return drive(search, workers, most=16, ahead=ahead), count["draw"] - count["ahead"]

    late, _ = run(ahead=False)
    assert run(ahead=True) == (late, workers), "the first of each worker is asked for while nothing runs"


def end_one(search, proposal):
    search.report(proposal.id, 1, {"val_accuracy": score(proposal.values)})
    search.end(proposal.id, succeeded=True)


@pytest.mark.usefixtures("from_the_start")
def test_a_proposal_made_ahead_lacks_the_last_result_only(start):
    _, search = start("gp", DISCRETE, budget={"trials": 30})
    running = [search.ask(worker) for worker in "ab"]
    for number in range(6):
        search.prepare()
        end_one(search, running.pop(0))
        history = search.history()
        assert len(history.seen) == number
        assert len(history.pending) == 2
        running.append(search.ask("ab"[number % 2]))
    assert len(search.history().seen) == 6


def test_while_there_are_few_trials_a_proposal_knows_the_newest_result(start, monkeypatch):
    monkeypatch.setattr("cnnsweep.search.oracle.AHEAD_FROM", 4)
    _, search = start("gp", DISCRETE, budget={"trials": 30})
    for number in range(6):
        end_one(search, search.ask("a"))
        assert len(search.history().seen) == (number + 1 if number < 3 else number)


@pytest.mark.usefixtures("from_the_start")
@slow_search
def test_proposals_made_ahead_end_with_the_space_none_twice(start, name):
    problem, search = start(name, TINY, budget={"trials": 100}, training={"epochs": 1})
    proposals = drive(search, workers=2, ahead=True)
    assert Counter(signature(problem, p) for p in new(proposals)) == Counter(everything(problem))
    search.prepare()
    assert search.ask("worker0") == "done"


class Busy(Executor):
    """An executor with two workers whose jobs take long: an event is never there at once."""

    workers = ("a", "b")

    def __init__(self, log):
        self.log = log
        self._jobs, self._answers = {}, {}

    def submit(self, worker, job, argument):
        self.log.append("start")
        self._jobs[worker], self._answers[worker] = job(argument), None

    def wait(self, timeout=None):
        if timeout == 0:
            return None
        worker = next(iter(self._jobs))
        steps = self._jobs.pop(worker)
        try:
            report = next(steps) if self._answers[worker] is None else steps.send(self._answers[worker])
        except StopIteration as end:
            self.log.append("end")
            return Event(worker, "result", end.value)
        self._jobs[worker] = steps
        return Event(worker, "report", report, lambda keep_on: self._answers.__setitem__(worker, keep_on))

    def kill(self, worker, reason):
        raise AssertionError(reason)

    def close(self):
        pass


def make(folder):
    """A sweep on two busy workers, and the log of its starts, ends and draws."""
    log = []
    overrides = ("search=gp", "search.startup=2", "budget.trials=10")
    sweep = fake_sweeps.make(folder, overrides, executor=Busy(log))
    draw = sweep.search.draw

    def counted():
        log.append("draw")
        return draw()

    sweep.search.draw = counted
    return sweep, log


def run(sweep):
    try:
        loop.search(sweep)
    finally:
        sweep.journal.close()


def started(folder):
    return [event for event in journal.read(folder / journal.FILE) if isinstance(event, TrialStarted)]


@pytest.mark.usefixtures("from_the_start")
def test_a_sweep_draws_nothing_between_the_end_of_a_trial_and_the_start_of_the_next(tmp_path):
    sweep, log = make(tmp_path / "whole")
    run(sweep)
    assert log.count("start") == 10
    assert log.count("draw") == 10, "made for no trial, or made twice"
    later = log[log.index("end") :]
    assert [b for a, b in itertools.pairwise(later) if a == "end"][:8] == ["start"] * 8


@pytest.mark.usefixtures("from_the_start")
@pytest.mark.parametrize("starts", [3, 6, 9])
def test_a_driver_that_dies_with_a_proposal_made_ahead_loses_and_repeats_nothing(tmp_path, starts):
    sweep, log = make(tmp_path / "killed")
    prepare = sweep.search.prepare

    def die():
        prepare()
        if log.count("start") == starts:
            raise InterruptedError

    sweep.search.prepare = die
    with pytest.raises(InterruptedError):
        run(sweep)
    assert len(started(tmp_path / "killed")) == starts, "a proposal made ahead is no trial"
    ahead = sweep.search._ahead
    again, _ = make(tmp_path / "killed")
    run(again)
    trials = {event.trial: event.values for event in started(tmp_path / "killed")}
    assert sorted(trials) == list(range(1, 11))
    assert len({again.search.problem.validate(values).signature for values in trials.values()}) == 10
    assert ahead == (trials[starts + 1],), "the same is proposed after the resume"

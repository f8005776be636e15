"""Running trials when a budget is spent, and trials that would take longer than what is left."""

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import fake_sweeps
import pytest
from searching import ACCURACY, drive

from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.journal.events import EpochEnded, TrialEnded, TrialStarted
from cnnsweep.journal.state import SweepState
from cnnsweep.plan.simulation import After, VirtualExecutor, virtual_sweep
from cnnsweep.search.oracle import Oracle, Proposal
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import make_problem
from cnnsweep.sweep import limits, loop
from cnnsweep.sweep.resume import rebuild
from cnnsweep.training.cost_model import Forecaster, TrialForecaster
from cnnsweep.trial import EpochReport, TrialResult

SETTINGS = ("training.epochs=9", "budget.minutes=0.01", "budget.trials=2")


def job(seconds):
    """Training whose first epoch outlasts the budget, and whose others are said to take `seconds` each."""

    def train(spec):
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            if epoch == 1:
                time.sleep(0.7)
            metrics = {"val_accuracy": 0.1 * epoch, "loss": 1.0, "epoch_seconds": seconds}
            if not (yield EpochReport(spec.number, epoch, metrics)):
                return TrialResult(spec.number, "pruned", "stopped", epoch, {})
        return TrialResult(spec.number, "completed", None, spec.epochs, {})

    return train


@pytest.mark.parametrize(
    ("search", "seconds", "epochs", "status"),
    [
        ("random", 0.0, 9, "completed"),
        ("random", 1e6, 1, "completed"),
        ("asha search.variant=stopping", 1e5, 3, "completed"),
        ("hyperband", 1e5, 1, "pruned"),  # it was left at its rung
    ],
)
def test_a_trial_reaches_its_next_rung_if_that_takes_little_longer(
    tmp_path, monkeypatch, search, seconds, epochs, status
):
    monkeypatch.setattr(limits, "GRACE", 4e5)  # 240,000 s: two epochs of 100,000 s, no more
    name, *more = f"search={search}".split()
    made = fake_sweeps.make(tmp_path, [name, *more, *SETTINGS], job=job(seconds))
    loop.search(made)
    made.journal.close()
    assert made.stopping.startswith("budget.minutes")
    assert [len(e.curve) for e in made.state.trials.values()] == [epochs]
    assert made.state.trials[1].status == status


class Waiting(InlineExecutor):
    """Its first trial waits a hundred seconds for features; each step of a trial takes one, by its own clock."""

    seconds, left = 0.0, 100

    @property
    def notes(self):
        return {"inline": "waits for features"} if self.left else {}

    def wait(self, timeout=None):
        if self.left:
            self.left, self.seconds = self.left - 1, self.seconds + 1
            return None
        self.seconds += 1
        return super().wait(timeout)


def test_waiting_for_features_is_no_time_of_a_trial(tmp_path):
    """Else the next trial would be thought too long for what is left of the budget."""
    executor = Waiting()
    made = fake_sweeps.make(tmp_path, ("budget.trials=2",), job=job(1.0), executor=executor)
    made.journal.now = lambda: executor.seconds
    made.forecaster = TrialForecaster.load(made.problem, tmp_path, 1, (100, 10))
    loop.search(made)
    made.journal.close()
    assert executor.seconds > 100
    assert [entry.summary["actual_seconds"] < 10 for entry in made.state.trials.values()] == [True, True]


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_set_and_a_machine_that_was_suspended_spend_no_minutes(tmp_path, monkeypatch, seconds):
    clock, jumps = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: clock() + sum(jumps))

    def train(spec):
        jumps.append(seconds)
        return (yield from fake_sweeps.train(spec))

    made = fake_sweeps.make(tmp_path, ("budget.minutes=5", "budget.trials=3"), job=train)
    loop.search(made)
    made.journal.close()
    assert made.stopping == "budget.trials (3) is reached"
    assert 200 < made.seconds_left <= 300
    assert all(0 <= trial.seconds < 100 for trial in made.state.trials.values())


@pytest.mark.parametrize(
    ("overrides", "values", "rungs", "expected"),
    [
        ((), {}, (), 3),
        (("training.unfreeze=2 blocks", "training.unfreeze_epochs=5"), {}, (), 8),
        ((), {"training.epochs": 20}, (), 20),
        (("training.unfreeze_epochs=5",), {"training.unfreeze": "0.5", "training.epochs": 4}, (), 9),
        (("training.unfreeze=2 blocks",), {"training.epochs": 20}, (2, 20), 2),
    ],
)
def test_a_trial_is_priced_by_all_of_its_epochs_or_those_of_its_first_rung(overrides, values, rungs, expected):
    asked = []
    forecaster = SimpleNamespace(seconds=lambda _, count: asked.append(count) or 61.0)
    state = SimpleNamespace(ended=[1], began=0.0)
    config = fake_sweeps.config("budget.minutes=1", *overrides)
    assert not limits.fitting(rungs, forecaster, config, state, 0.0)(values)
    assert asked == [expected]


@pytest.mark.parametrize(("left", "starts"), [(20.0, False), (31.0, True)])
def test_a_proposal_is_started_where_half_of_an_epoch_fits(left, starts):
    forecaster, state = SimpleNamespace(seconds=lambda _values, _epochs: 60.0), SimpleNamespace(ended=[1], began=0.0)
    reason = limits.too_late(Proposal("1", {}), forecaster, fake_sweeps.config("budget.minutes=1"), state, 60 - left)
    assert (reason is None) == starts
    assert starts or reason == "budget.minutes (1) is spent: the next epoch would take 60 s, 20 s are left"


def play(seconds, *overrides, workers=2):
    """A sweep on a virtual clock whose epochs take `seconds(values)`; returns it and each worker's seconds of work."""
    problem = make_problem(fake_sweeps.config("budget.trials=null", *overrides), (8, 8, 1), 10)
    executor, busy = VirtualExecutor([f"cpu{i}" for i in range(workers)]), Counter()
    made = virtual_sweep(problem, build(problem.config, problem, ACCURACY), executor)
    made.forecaster = TrialForecaster(problem, Forecaster(), (1000, 100))

    def train(spec):
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            took = seconds(spec.values)
            start = executor.time
            metrics = {"val_accuracy": (spec.seed % 1000) / 2000 + 0.01 * epoch, "epoch_seconds": took}
            keep_on = yield After(took, EpochReport(spec.number, epoch, metrics))
            busy[made.state.trials[spec.number].worker] += min(executor.time, 600) - min(start, 600)
            if not keep_on:
                return TrialResult(spec.number, "pruned", None, epoch)
        return TrialResult(spec.number, "completed", None, spec.epochs)

    made.job = train
    loop.search(made)
    return made, busy


def of_size(values):
    return float(values["model.filters.1"])


SIZES = ("space.model.filters.values=[4, 8, 16]", "training.epochs=9", "budget.minutes=10")


@pytest.mark.parametrize("search", ["random", "asha", "hyperband", "tpe", "auto"])
def test_the_whole_of_the_time_is_used(search):
    made, busy = play(of_size, *SIZES, f"search={search}")
    assert made.stopping.startswith("budget.minutes (10) is spent")
    assert made.stopping.count("is spent") == 1
    assert 600 <= made.now() <= 660
    assert min(busy.values()) > 0.98 * 600


@pytest.mark.parametrize("search", ["random", "tpe", "auto"])
@pytest.mark.parametrize("sizes", [{4}, set()])
def test_what_fits_into_the_time_left_is_preferred_where_there_is_such(search, sizes):
    problem = make_problem(fake_sweeps.config(*SIZES, f"search={search}"), (8, 8, 1), 10)
    made = build(problem.config, problem, ACCURACY)
    made.untried.fits = lambda values: values["model.filters.1"] in sizes
    found = {proposal.values["model.filters.1"] for proposal in drive(made, most=12)}
    assert found == sizes or (not sizes and len(found) > 1)


def test_minutes_stop_running_trials_after_all_trials_are_started():
    made, _ = play(lambda _: 100.0, *SIZES, "budget.trials=2")
    assert made.stopping == "budget.trials (2) is reached; budget.minutes (10) is spent"
    assert made.now() <= 700
    assert {len(trial.curve) for trial in made.state.trials.values()} == {6}


def test_the_last_rung_is_the_end_of_the_trials_own_epochs(tmp_path):
    made = fake_sweeps.make(tmp_path, ["space.training.epochs={values: [20]}"])
    made.journal.close()
    proposal = made.search.ask("inline")
    assert made.search.next_rung(proposal.id, 5) == 20


@pytest.mark.parametrize(("stop", "status"), [(True, "pruned"), (False, "completed")])
def test_a_trial_that_the_search_stops_is_pruned_also_while_the_sweep_is_stopping(tmp_path, monkeypatch, stop, status):
    asked = Oracle.report

    def report(self, id_, epoch, metrics):
        return asked(self, id_, epoch, metrics) and not (stop and epoch == 2)

    monkeypatch.setattr(Oracle, "report", report)
    made = fake_sweeps.make(tmp_path, ["training.epochs=9", "budget.epochs=2"], job=job(1.0))
    loop.search(made)
    made.journal.close()
    assert made.stopping.startswith("budget.epochs")
    assert (made.state.trials[1].status, len(made.state.trials[1].curve)) == (status, 2)
    assert made.state.trials[1].reason == ("stopped" if stop else made.stopping)


def test_a_continued_trial_that_the_time_cuts_off_can_go_on_with_more_time():
    """Its checkpoint is kept, and the journal says why it ended, though the search had stopped it once before."""
    made, _ = play(lambda _: 20.0, *SIZES, "search=auto", "training.epochs=60")
    cut = [t for t in made.state.trials.values() if (t.reason or "").startswith("budget.minutes")]
    assert {(trial.status, trial.since > 0, len(trial.curve) < 60) for trial in cut} == {("pruned", True, True)}
    assert {trial.proposal for trial in cut} <= made.search.promotable()


def test_a_journal_that_is_replayed_says_which_trials_can_go_on():
    """Those that the time cut off, not those that their own patience ended."""
    problem = make_problem(fake_sweeps.config(*SIZES, "search=auto"), (8, 8, 1), 10)
    for status, goes_on in (("pruned", True), ("completed", False)):
        search, state = build(problem.config, problem, ACCURACY), SweepState(ACCURACY)
        proposal = build(problem.config, problem, ACCURACY).ask("inline")
        started = TrialStarted(
            trial=1, title="", values=proposal.values, seed=1, epochs=9, proposal=proposal.id, worker="inline",
            config=problem.config.plain(), network={}, time=0.0,
        )  # fmt: skip
        search.rungs = (3, 9)
        epoch = EpochEnded(trial=1, epoch=1, metrics={"val_accuracy": 0.5}, time=1.0)
        ended = TrialEnded(trial=1, status=status, reason="why", epochs=1, summary={}, time=2.0)
        rebuild(search, state, [started, epoch, ended], Path("journal.jsonl"))
        assert (proposal.id in search.promotable()) == goes_on

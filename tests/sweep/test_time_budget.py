"""Running trials when a budget is spent, and trials that would take longer than what is left."""

import time
from types import SimpleNamespace

import fake_sweeps
import pytest

from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.search.oracle import Oracle, Proposal
from cnnsweep.sweep import limits, loop
from cnnsweep.training.cost_model import TrialForecaster
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
    made.now = lambda: executor.seconds
    made.forecaster = TrialForecaster.load(made.problem, tmp_path, 1, (100, 10))
    loop.search(made)
    made.journal.close()
    assert executor.seconds > 100
    assert [entry.summary["actual_seconds"] < 10 for entry in made.state.trials.values()] == [True, True]


@pytest.mark.parametrize(
    ("overrides", "values", "epochs", "expected"),
    [
        ((), {}, None, 3),
        (("training.unfreeze=2 blocks", "training.unfreeze_epochs=5"), {}, None, 8),
        ((), {"training.epochs": 20}, None, 20),
        (("training.unfreeze_epochs=5",), {"training.unfreeze": "0.5", "training.epochs": 4}, None, 9),
        (("training.unfreeze=2 blocks",), {"training.epochs": 20}, 2, 2),
    ],
)
def test_a_trial_is_priced_by_all_of_its_epochs(overrides, values, epochs, expected):
    asked = []
    forecaster = SimpleNamespace(seconds=lambda _, count: asked.append(count))
    state = SimpleNamespace(ended=[1], began=0.0)
    config = fake_sweeps.config("budget.minutes=1", *overrides)
    assert limits.too_long(Proposal("1", values, epochs), forecaster, config, state, 0.0) is None
    assert asked == [expected]


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

"""An earlier sweep in the store informs a new one."""

from __future__ import annotations

import fake_sweeps
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.sweep import session
from cnnsweep.sweep.session import Watcher

pytestmark = pytest.mark.slow


class Ear(Watcher):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def sweep(folder, *overrides, watcher=None):
    common = ("+sweep=smoke", "executor=inline", "budget.trials=6", "tracking.report=false", "tracking.gallery=0")
    config = compose([*common, f"tracking.dir={folder}", *overrides])
    return session.start(config, watcher or Watcher(), job=fake_sweeps.train)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("learning") / "mlruns"
    sweep(made, "name=first")
    return made


def test_earlier_trials_inform_the_sampler_and_are_counted(folder):
    ear = Ear()
    outcome = sweep(folder, "search=tpe", "search.learn_from=first", "model.kernel_size=3", watcher=ear)
    told = next(line for line in ear.said if line.startswith("learning from first-"))
    assert "inside today's space" in told
    first = (folder / "sweeps" / outcome.id / "journal.jsonl").read_text().splitlines()[0]
    assert '"earlier"' in first


def test_a_sweep_that_is_not_there_or_has_another_objective_is_an_error(folder):
    with pytest.raises(UserError, match=r"search.learn_from: there is no sweep 'fisrt', did you mean 'first"):
        sweep(folder, "search=tpe", "search.learn_from=fisrt")
    with pytest.raises(UserError, match=r"search.learn_from: first-.* has another objective: val_accuracy, and this"):
        sweep(folder, "search=tpe", "search.learn_from=first", "objective=val_loss")

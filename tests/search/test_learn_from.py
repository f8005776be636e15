"""An earlier sweep in the store informs a new one."""

from __future__ import annotations

import json

import fake_sweeps
import pytest

import cnnsweep
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


SHARED = ("model.filters=16", "space.model.filters.per_block=false", "space.model.filters.values=[8,16]")


def test_a_value_of_all_blocks_is_that_of_each_and_the_other_way_round(folder):
    """Not the config's own, 16, which no trial had in place of 8."""
    sweep(folder, *SHARED, "name=shared")
    outcome = sweep(folder, "search=tpe", "search.learn_from=shared", "name=blocks")
    learned = [trial["values"] for trial in first_event(folder, outcome)["earlier"]]
    assert {trial["model.filters.1"] for trial in learned} == {8, 16}
    assert all(trial["model.filters.1"] == trial["model.filters.2"] for trial in learned)
    back = sweep(folder, *SHARED, "search=tpe", "search.learn_from=blocks", "name=back")
    blocks, learned = cnnsweep.trials("blocks", f"tracking.dir={folder}"), first_event(folder, back)["earlier"]
    for (_, one), trial in zip(blocks[blocks["status"] != "failed"].iterrows(), learned, strict=True):
        used = set(one[["model.filters.1", "model.filters.2"]].dropna())
        assert trial["values"].get("model.filters") == (used.pop() if len(used) == 1 else None)


def first_event(folder, outcome):
    return json.loads((folder / "sweeps" / outcome.id / "journal.jsonl").read_text().splitlines()[0])


def test_any_objective_is_learned_from_and_words_that_look_like_numbers_stay_words(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_words.py").write_text("def main(config, trial):\n    return {'score': float(len(config.word))}\n")
    own = ("job=function", "job.call=own_words.main", "+job.word=1", "objective=score")
    own = (*own, "space.job.word.values=['1', '01', '1.0']", f"tracking.dir={tmp_path / 'mlruns'}", "executor=inline")
    config = compose([*own, "name=first"])
    session.start(config, Watcher())
    ear = Ear()
    session.start(compose([*own, "name=second", "search=tpe", "search.learn_from=first"]), ear)
    assert any("3 trials inside today's space, 0 of use in part, 0 of none" in line for line in ear.said)
    assert set(cnnsweep.trials("first", f"tracking.dir={tmp_path / 'mlruns'}")["job.word"]) == {"1", "01", "1.0"}

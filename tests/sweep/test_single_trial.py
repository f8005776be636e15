"""One configuration trained as a run of its own, without the training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trials import SMALL

from cnnsweep.config.compose import compose
from cnnsweep.data import loading
from cnnsweep.executors.base import Event
from cnnsweep.sweep import single_trial
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.trial import TrialSpec


@pytest.mark.parametrize(("overrides", "epochs"), [((), 2), (("training.unfreeze=1 block",), 7)])
def test_it_has_all_its_epochs_and_says_what_data_it_was_trained_on(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], epochs: int
) -> None:
    specs: list[TrialSpec] = []
    sent: list[dict[str, Any]] = []

    def run_all(_: object, tasks: Any, *__: object) -> list[Event]:
        specs.extend(spec for _, spec in tasks)
        return [Event("cpu0", "lost", "it is not trained here")]

    run = SimpleNamespace(id="1", began=0, send=lambda **update: sent.append(update))
    replaced = {"run_all": run_all, "open_store": lambda _: "", "SingleRun": lambda *_: run}
    replaced |= {"make_executor": lambda *_: SimpleNamespace(close=lambda: None), "check_code": lambda *_: None}
    for name, stand_in in replaced.items():
        monkeypatch.setattr(single_trial, name, stand_in)
    config = compose([*SMALL, "data=digits", "data.limit=60", f"tracking.dir={tmp_path}", *overrides])
    assert single_trial.train_once(config, lambda _: None).result.status == "failed"
    assert [spec.epochs for spec in specs] == [epochs]
    data = loading.load(config.data, config.seed)
    assert (sent[0]["tags"]["cnnsweep.data.digest"], sent[0]["tags"]["cnnsweep.data.test"]) == (data.digest, "359")


APP = """
import hydra

@hydra.main(version_base="1.3", config_path="app", config_name="main")
def main(cfg):
    return cfg.rate * cfg.steps
"""


def test_an_application_gets_what_is_given_and_the_values_of_the_trial_that_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was run with the defaults of its own config."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.yaml").write_text("rate: 1\nsteps: 1\n")
    (tmp_path / "once_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sent: list[dict[str, Any]] = []
    run = SimpleNamespace(id="1", began=0, send=lambda **update: sent.append(update))
    monkeypatch.setattr(single_trial, "SingleRun", lambda *_: run)
    monkeypatch.setattr(single_trial, "open_store", lambda _: "")
    config = compose(["job=hydra", "job.call=once_app.main", "job.config.steps=3", "executor.workers=1"])
    assert single_trial.train_once(config, lambda _: None).result.status == "completed"
    assert sent[-1]["metrics"][1][:2] == ("best_val_accuracy", 3.0)
    trial = StoredTrial("run", "uri", config, 5, {}, "sweep", "001", job={"job.config.rate": 4})
    monkeypatch.setattr(single_trial, "find_trial", lambda *_: trial)
    single_trial.train_again("run", config, [], lambda _: None, None)
    assert sent[-1]["metrics"][1][:2] == ("best_val_accuracy", 12.0)

"""One configuration trained as a run of its own, without the training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from trials import SMALL

from cnnsweep.config.compose import compose
from cnnsweep.data import loading
from cnnsweep.executors.base import Event
from cnnsweep.sweep import single_trial
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

"""A KerasTuner `HyperModel` that trains by a `fit` of its own: what it reports, keeps, and goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import check_section
from cnnsweep.training import checkpoint
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

VALUES = {
    "WithFit": {"units": 4, "batch_size": 16, "shuffle": True},
    "WithLoop": {"rate": 1e-3},
}


def spec(name: str, data: Path, folder: Path, *overrides: str) -> TrialSpec:
    config = compose(["model=keras_tuner", f"model.hypermodel=own_models.{name}", "data=digits", "training.epochs=3",
                      *overrides])  # fmt: skip
    model = config.model.plain() | {"discover": None, "hp": VALUES.get(name, {"units": 4})}
    config = config.replace(model=check_section("model", model))
    return TrialSpec(1, {}, config, 42, folder, data, 3)


def run(trial: TrialSpec, stop: int = 0) -> tuple[list[EpochReport], TrialResult]:
    steps, reports = train(trial), []
    try:
        reports.append(next(steps))
        while True:
            reports.append(steps.send(reports[-1].epoch != stop))
    except StopIteration as end:
        return reports, end.value


def weights(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {key: file[key] for key in file if key.startswith(("model/", "optimizer/"))}


def test_its_epochs_are_reported_and_its_network_is_that_of_the_trial(digits: Path, tmp_path: Path) -> None:
    trial = spec("WithFit", digits, tmp_path)
    reports, result = run(trial)
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(reports[0].metrics)
    assert (result.status, result.summary["parameters"]) == ("completed", 65 * 4 + 5 * 10)
    with pytest.raises(StopIteration) as end:
        next(evaluate_best(FinalSpec(trial)))
    assert set(end.value.value["metrics"]) == {"test_accuracy", "test_loss"}


def test_it_goes_on_from_its_checkpoint_and_is_stopped(digits: Path, tmp_path: Path) -> None:
    trial = spec("WithFit", digits, tmp_path)
    run(replace(trial, epochs=1))
    first = weights(tmp_path / checkpoint.LAST)
    reports, result = run(replace(trial, initial_epoch=1), stop=2)
    assert [(report.epoch, report.note) for report in reports] == [(2, None)]
    assert (result.status, result.epochs) == ("pruned", 2)
    after = weights(tmp_path / checkpoint.LAST)
    steps = {int(w["optimizer/0"]) for w in (first, after)}
    assert len(steps) == 2, "the optimizer goes on where it was"
    assert max(steps) == 2 * min(steps)


def test_a_loop_of_its_own_begins_again_and_says_so(digits: Path, tmp_path: Path) -> None:
    trial = spec("WithLoop", digits, tmp_path, "objective=my_loss")
    run(replace(trial, epochs=1))
    reports, result = run(replace(trial, initial_epoch=1))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert reports[0].note == "trial 1 begins again: own_models.WithLoop went on from no checkpoint"
    assert result.status == "completed"


@pytest.mark.parametrize(
    ("name", "fault"),
    {
        "FitsChanging": "own_models.FitsChanging asks for late, which it did not ask for when its space was found",
        "FitsSilently": "own_models.FitsSilently.fit reported no epoch and returned History",
    }.items(),
)
def test_a_fit_that_cannot_be_followed_fails_its_trial(name: str, fault: str, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=fault):
        run(spec(name, digits, tmp_path))

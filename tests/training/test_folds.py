"""Cross-validation: a trial is the mean of its folds, and each fold continues where it was."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import config as data_config
from trials import run

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.data.groups import assign_folds
from cnnsweep.data.labels import Labels
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.folds import train_folds
from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, Rival, TrialResult, TrialSpec

SETTINGS = ["data=digits", "space=none", "model.blocks=1", "model.filters=4", "training.batch_size=32"]


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folded") / "data"
    save(load(data_config("cnnsweep.data.digits.load", folds=3, limit=90), 0), folder)
    return folder


def spec(folder: Path, data: Path, epochs: int, **changes: object) -> TrialSpec:
    config = compose([*SETTINGS, "data.folds=3", f"training.epochs={epochs}"])
    return TrialSpec(1, {}, config, 5, folder, data, epochs, **changes)  # type: ignore[arg-type]


def test_each_image_validates_once(folded):
    data = open_saved(folded)
    assert (len(data.x_train), data.facts()["folds"], data.images_an_epoch) == (90, 3, (180, 90))
    assert "90 images in 3 folds, 359 test images" in data.describe()
    parts = [data.fold(number) for number in (1, 2, 3)]
    assert [len(part.x_train) for part in parts] == [60, 60, 60]
    everything = np.concatenate([part.y_val for part in parts])
    np.testing.assert_array_equal(np.bincount(everything), np.bincount(data.y_train))
    for part in parts:
        assert {*part.y_val} == {*range(10)}
    assert len(data.fold(0).x_train) == 90


def fake(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Fold n has the value n + epoch / 10; fold 3 of a trial numbered 2 fails after an epoch."""
    epoch = spec.initial_epoch
    while (epoch := epoch + 1) <= spec.epochs:
        if spec.number == 2 and spec.fold == 3 and epoch == 2:
            return TrialResult(2, "failed", "loss is nan", 1)
        metrics = {"loss": 1.0, "val_accuracy": spec.fold + epoch / 10, "epoch_seconds": 2.0}
        if not (yield EpochReport(spec.number, epoch, metrics)):
            return TrialResult(spec.number, "pruned", "", epoch, {"parameters": 7.0})
    return TrialResult(spec.number, "completed", None, epoch - 1, {"parameters": 7.0})


def never(rows: object, objective: Objective) -> str | None:
    return None


def test_a_trial_is_the_mean_of_its_folds(tmp_path):
    reports, result = run(train_folds(spec(tmp_path, tmp_path, 2), 3, fake, never))
    assert [report.metrics["val_accuracy"] for report in reports] == pytest.approx([2.1, 2.2])
    assert (reports[0].metrics["epoch_seconds"], reports[0].metrics["folds_std_val_accuracy"]) == (
        6.0,
        pytest.approx(1),
    )
    assert (result.status, result.epochs, result.summary) == ("completed", 2, {"parameters": 7.0})
    assert (tmp_path / "artifacts" / "curves.png").exists()


def test_a_trial_stops_by_the_means_and_no_fold_by_itself(tmp_path):
    stopping = compose([*SETTINGS, "data.folds=3", "training.epochs=4", "training.patience=1", "training.target=0.5"])
    seen = []

    def watched(part: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        seen.append((part.config.training.patience, part.config.training.target))
        return fake(part)

    trial = TrialSpec(1, {}, stopping, 5, tmp_path, tmp_path, 4)
    reports, result = run(train_folds(trial, 3, watched, lambda rows, _: "enough" if len(rows) == 2 else None))
    assert seen == [(None, None)] * 3
    assert (len(reports), result.status, result.reason) == (2, "completed", "enough")


def test_a_fold_that_fails_ends_the_trial(tmp_path):
    failing = spec(tmp_path, tmp_path, 3)
    reports, result = run(train_folds(TrialSpec(**{**vars(failing), "number": 2}), 3, fake, never))
    assert (len(reports), result.status, result.reason) == (1, "failed", "fold 3: loss is nan")


@pytest.mark.slow
def test_a_trial_that_is_resumed_gives_the_same_numbers_and_a_network_of_all_images(folded, tmp_path):
    whole, _ = run(train(spec(tmp_path / "whole", folded, 2)))
    run(train(spec(tmp_path / "halves", folded, 1)))
    second, result = run(train(spec(tmp_path / "halves", folded, 2, initial_epoch=1)))
    drop = {"epoch_seconds"}
    assert [{k: v for k, v in r.metrics.items() if k not in drop} for r in second] == [
        {k: v for k, v in r.metrics.items() if k not in drop} for r in whole[1:]
    ]
    assert (result.status, result.epochs) == ("completed", 2)
    everything = spec(tmp_path / "all", folded, 2, fold=0)
    run(train(everything))
    (everything.folder / "last.npz").rename(everything.folder / "best.npz")
    _, final = run(evaluate_best(FinalSpec(everything)))
    assert final["images"] == 359


@pytest.mark.parametrize(
    ("labels", "groups", "error"),
    [
        ([0] * 9 + [1] * 2, None, r"data.folds=3: class b has 2 images for training, so that a fold would have none"),
        ([0] * 2, None, r"data.folds=3: 2 images for training are not enough: a fold would have none"),
        ([0, 1] * 6, np.repeat([0, 1], 6), r"data.folds=3: 2 groups are not enough"),
        ([0] * 8 + [1] * 4, np.repeat([0, 1, 2], 4), r"fold \d has no image of class [ab]; take fewer folds"),
    ],
)
def test_a_fold_without_a_class_is_an_error_before_training(labels, groups, error):
    with pytest.raises(UserError, match=error):
        assign_folds(Labels(np.array(labels, np.int32), "classification", ("a", "b")), 3, 0, groups)


def test_groups_are_in_one_fold():
    groups = np.repeat(np.arange(12), 4)
    found = assign_folds(Labels(np.tile([0, 1], 24), "classification", ("a", "b")), 4, 0, groups)
    assert all(len({*found[groups == group]}) == 1 for group in range(12))
    assert {*found} == {1, 2, 3, 4}


@pytest.mark.slow
def test_folds_one_after_another_are_what_they_are_together_also_when_killed_between(folded, tmp_path):
    drop = {"epoch_seconds"}
    together, _ = run(train(spec(tmp_path / "together", folded, 2)))
    alone = spec(tmp_path / "alone", folded, 2, rival=Rival())
    killed = train(alone)
    assert [next(killed).epoch, *(killed.send(True).epoch for _ in range(2))] == [0, 0, 0]
    killed.close()
    first = (alone.folder / "fold1" / "last.npz").stat().st_mtime_ns
    reports, result = run(train(replace(alone, again=True)))
    assert [{k: v for k, v in r.metrics.items() if k not in drop} for r in reports if r.epoch] == [
        {k: v for k, v in r.metrics.items() if k not in drop} for r in together
    ]
    assert (result.status, result.epochs) == ("completed", 2)
    assert (alone.folder / "fold1" / "last.npz").stat().st_mtime_ns == first

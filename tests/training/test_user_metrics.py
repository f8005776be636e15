"""Losses and metrics of the user's own: measured, optimised, and not in the way of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from trials import run, straight_and_resumed

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.config.trust import find_strange
from cnnsweep.errors import UserError
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.metrics import make_loss, make_metrics
from cnnsweep.training.train import train
from cnnsweep.training.user_metrics import check
from cnnsweep.trial import Inspection, TrialSpec

NETWORK = ("data=digits", "space=none", "model.blocks=1", "model.filters=2", "training.batch_size=32")
OWN = (
    "training.loss={_target_: own_metrics.brier, power: 2}",
    "training.metrics=[accuracy,{_target_: own_metrics.FoundShare, label: 3},"
    "{_target_: own_metrics.brier, name: l1, power: 1}]",
    "objective={val_found_share: max}",
)
Y, SCORES = np.eye(3, dtype="float32"), np.full((3, 3), [0.2, 0.5, 0.3], "float32")


def found(*overrides: str) -> Config:
    return compose([*NETWORK, "training.epochs=2", "training.precision=float32", *overrides])


def test_they_are_what_the_functions_say():
    config = found(*OWN, "training.class_weights=balanced")
    assert config.objective == "val_found_share: max"
    assert Objective.of(config.objective) == Objective("val_found_share", "max")
    loss = make_loss(config.training, "classification", True)
    each = ((Y - SCORES) ** 2).sum(1)
    assert float(loss(Y, SCORES)) == pytest.approx(each.mean())
    assert float(loss(Y, SCORES, sample_weight=np.array([1.0, 0, 0]))) == pytest.approx(each[0] / 3)
    metrics = make_metrics(config.training, "classification", 3, True)
    assert [metric.name for metric in metrics] == ["accuracy", "found_share", "l1"]
    metrics[2].update_state(Y, SCORES)
    assert float(metrics[2].result()) == pytest.approx(np.abs(Y - SCORES).sum(1).mean())
    assert Config.from_plain(config.plain()).objective == config.objective


def test_a_trial_resumes_with_them_and_its_model_is_plain_keras(digits: Path, tmp_path: Path) -> None:
    trial = TrialSpec(1, {}, found(*OWN), 5, tmp_path / "a", digits, 2)
    straight, resumed = straight_and_resumed(trial, train)
    assert straight == resumed
    assert {"val_found_share", "val_l1", "found_share"} <= {*straight[0]}
    _, final = run(evaluate_best(FinalSpec(trial, tmp_path / "best")))
    assert {"test_found_share", "test_l1"} <= {*final["metrics"]}
    loaded = keras.models.load_model(tmp_path / "best" / "model.keras", safe_mode=True)
    assert loaded.loss.__class__ is keras.losses.CategoricalCrossentropy


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        ("FoundSare", "training.metrics: found_sare: 'own_metrics' has no class or function 'FoundSare', did you mean"),
        ("FoundShare, lable: 1", "training.metrics: found_share: own_metrics.FoundShare cannot be made: TypeError"),
        ("EachClass", "own_metrics.EachClass returns numbers of the shape (3,), where one is needed"),
        ("EVENTS", "'own_metrics' has no class or function 'EVENTS'"),
        ("Other", "own_metrics.Other is neither a keras Metric nor a function"),
    ],
)
def test_a_metric_that_cannot_be_used_is_found_before_the_first_trial(metric, fault):
    assert fault in fault_of(f"training.metrics=[{{_target_: own_metrics.{metric}}}]")


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        ("own_metric.brier", "training.loss: cannot import 'own_metric.brier'"),
        ("own_metrics.broken", "training.loss: own_metrics.broken fails on (y_true, y_pred): RuntimeError: no such"),
        ("own_metrics.brier, sharp: 1", "fails on (y_true, y_pred): TypeError: brier() got an unexpected"),
    ],
)
def test_a_loss_that_cannot_be_used_is_found_before_the_first_trial(loss, fault):
    assert fault in fault_of(f"training.loss={{_target_: {loss}}}")


@pytest.mark.parametrize("loss", ["own_metrics.scalar", "keras.losses.Dice"])
def test_a_loss_of_one_number_has_no_labels_to_weigh(loss):
    entry = f"training.loss={{_target_: {loss}}}"
    fault = f"training.class_weights: {loss} returns numbers of the shape () for labels of the shape (4, 3)"
    assert fault in fault_of(entry, "training.class_weights=balanced")
    fault = f"data.augment.mix_up: {loss} returns numbers of the shape () for labels of the shape (4, 3)"
    assert fault in fault_of(entry, "data.augment.mix_up=0.2")
    assert fault in fault_of(entry, "space.data.augment.mix_up.values=[0.0,0.2]")
    assert faults_of(entry) == []
    assert faults_of("training.loss={_target_: own_metrics.brier}", "training.class_weights=balanced") == []


def fault_of(*overrides: str) -> str:
    (text,) = faults_of(*overrides)
    return text


def faults_of(*overrides: str) -> list[str]:
    with pytest.raises(StopIteration) as end:
        next(check(Inspection(found(*overrides, "objective=val_loss"), (8, 8, 1), 3)))
    return [*end.value.value]


SKILL = "training.metrics=[{_target_: m.Skill}]"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([SKILL], "objective: is val_skill better the larger or the smaller? say objective={val_skill: max}"),
        ([SKILL, "objective=val_skil"], "unknown objective 'val_skil', did you mean 'val_skill'"),
        (["training.metrics=[{_target_: 3}]"], "training.metrics: expected a name, or {_target_: module.name"),
        (["training.metrics=[{_target_: m.Accuracy}]"], "'accuracy' cannot be the name of a metric of your own"),
        (["training.metrics=[{_target_: m.S},{_target_: n.S}]"], "training.metrics: s is given twice"),
        (["training.loss={name: 3}"], "training.loss: expected a name, or {_target_: module.name"),
        (["training.loss={_target_: m.l}", "training.loss_settings={a: 1}"], "stand beside its _target_"),
    ],
)
def test_a_config_that_says_too_little_is_refused_without_importing_anything(overrides, fault):
    with pytest.raises(UserError) as error:
        found(*overrides)
    assert fault in str(error.value)


def test_a_name_that_tells_its_direction_needs_no_more():
    assert Objective.of(found("training.metrics=[{_target_: m.DepthError}]").objective).direction == "min"


@pytest.mark.parametrize("task", ["classification", "multi_label", "regression", "segmentation"])
def test_they_are_tried_on_the_labels_of_each_task(task):
    more = ["model=unet", "objective=val_loss"] if task == "segmentation" else ["objective=val_loss"]
    config = found(f"task={task}", "training.loss={_target_: own_metrics.brier}", *more)
    with pytest.raises(StopIteration) as end:
        next(check(Inspection(config, (8, 8, 1), 3)))
    assert end.value.value == []


def test_a_stored_config_that_names_them_needs_trust():
    strange: Any = find_strange(found(*OWN).plain(), frozenset())
    assert ("training.loss._target_", "own_metrics.brier") in strange
    assert ("training.metrics.1._target_", "own_metrics.FoundShare") in strange

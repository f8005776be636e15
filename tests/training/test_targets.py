"""Labels that a loss or a metric cannot measure."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from data_sets import config, made

from cnnsweep.config.compose import compose
from cnnsweep.data import loading
from cnnsweep.data.arrays import Arrays
from cnnsweep.errors import UserError
from cnnsweep.training.building import build_model
from cnnsweep.training.targets import check_labels
from cnnsweep.training.train import run_epoch

GIVEN: list[Arrays] = []


def given(_: object) -> Arrays:
    return GIVEN.pop()


def check(task: str, labels: np.ndarray, *overrides: str) -> None:
    GIVEN.append(made(y_train=labels[:12], y_test=labels[12:]))
    data = loading.load(config(f"{__name__}.given"), 0, task)
    check_labels(compose([f"task={task}", *overrides]), data)


@pytest.mark.parametrize(
    ("first", "override", "error"),
    [
        (
            -3,
            "training.loss=mean_squared_logarithmic_error",
            "needs labels from 0, and there are some down to -3; m",
        ),
        (-3, "training.metrics=[mae,msle]", "training.metrics: msle needs labels from 0"),
        (-3, "space.training.loss.values=[huber,msle]", "training.loss: msle needs labels from 0"),
        (0, "training.metrics=[{name: mape}]", "training.metrics: mape divides by the labels, of which 1 are 0"),
    ],
)
def test_numbers_that_a_loss_or_a_metric_cannot_measure_are_named(first, override, error):
    with pytest.raises(UserError, match=error):
        check("regression", first + np.arange(18.0), override)
    check("regression", 1 + np.arange(18.0), override)


@pytest.mark.parametrize(
    ("metric", "works"), [("top_2", True), ("top_3", False), ("top_k_categorical_accuracy", False)]
)
def test_the_right_class_is_always_among_all(metric, works):
    labels, override = np.arange(18) % 3, f"training.metrics=[accuracy,{metric}]"
    if works:
        check("classification", labels, override)
    else:
        with pytest.raises(UserError, match=f"{metric} is always 1: there are 3 classes"):
            check("classification", labels, override)


@pytest.mark.parametrize("setting", ["class_id: 3 (must be at most 2", "top_k: 4 (must be at most 3"])
def test_a_class_that_there_is_not_is_named_before_training(setting):
    override = f"training.metrics=[{{name: recall, {setting.partition(' (')[0]}}}]"
    with pytest.raises(UserError, match=re.escape(f"recall: {setting}: there are 3 classes)")):
        check("classification", np.arange(18) % 3, override)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_unit_of_a_target_makes_no_difference_to_its_training(optimizer, tmp_path):
    """Units that are powers of two, so that the numbers are the same to the last digit but for their exponents."""
    rng = np.random.default_rng(0)
    x = (rng.random((80, 1, 1, 1)) * rng.random((80, 6, 6, 1))).astype(np.float32)
    target = x.mean(axis=(1, 2)) * np.float32(8)
    scores = {}
    for unit in (0, -40, 30):
        y = np.concatenate([target, target * np.float32(2.0**unit)], axis=1)
        np.savez(tmp_path / "made.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
        chosen = compose(
            ["task=regression", "data=npz", f"data.file={tmp_path / 'made.npz'}", "model.filters=4", "model.blocks=1",
             "training.epochs=4", "training.learning_rate=0.01", "training.batch_size=8",
             f"training.optimizer={optimizer}"]
        )  # fmt: skip
        data = loading.load(chosen.data, 0, "regression")
        model, spec = build_model(chosen, data, 1), SimpleNamespace(config=chosen, seed=1)
        rows = [run_epoch(model, data, spec, epoch) for epoch in range(1, 5)]
        scores[unit] = [row["val_r2"] for row in rows]
        errors = np.asarray(model.predict(data.x_val, verbose=0)) - data.y_val
        assert rows[-1]["val_loss"] == pytest.approx(np.square(errors).mean(), rel=1e-3)  # in the targets' units
    assert scores[0][-1] > 0.3
    assert scores[-40] == pytest.approx(scores[0], abs=1e-3)
    assert scores[30] == pytest.approx(scores[0], abs=1e-3)

"""Labels that a loss or a metric cannot measure."""

from __future__ import annotations

import numpy as np
import pytest
from data_sets import config, made

from cnnsweep.config.compose import compose
from cnnsweep.data import loading
from cnnsweep.data.arrays import Arrays
from cnnsweep.errors import UserError
from cnnsweep.training.targets import check_labels

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

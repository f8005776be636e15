"""Losses and metrics as a user would write them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class FoundShare(keras.metrics.Metric):
    """The share of the images of one class that are found; it takes no name."""

    def __init__(self, label: int = 0) -> None:
        super().__init__()
        self.label = label
        self.found = self.add_weight(initializer="zeros")
        self.all = self.add_weight(initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        there = y_true[..., self.label]
        right = ops.cast(ops.equal(ops.argmax(y_pred, -1), self.label), "float32")
        self.found.assign_add(ops.sum(there * right))
        self.all.assign_add(ops.sum(there))

    def result(self) -> Any:
        return self.found / ops.maximum(self.all, 1)


def brier(y_true: Any, y_pred: Any, power: float = 2.0) -> Any:
    """A loss, or a metric, of each image."""
    return ops.sum(ops.abs(y_true - y_pred) ** power, axis=-1)


def scalar(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(brier(y_true, y_pred))


def each_class(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(y_true - y_pred, axis=0)


class EachClass(FoundShare):
    def result(self) -> Any:
        return ops.ones(3)


class Other:
    """No metric."""


EVENTS: list[str] = []


def broken(y_true: Any, y_pred: Any) -> Any:
    raise RuntimeError("no such thing")

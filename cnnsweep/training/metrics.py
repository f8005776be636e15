"""The losses and metrics of a config as Keras' objects, and metrics that Keras does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from cnnsweep.config.schema import Training
from cnnsweep.config.tasks import (
    AUTO_METRICS,
    OF_THE_USER,
    ONE_CLASS,
    REGION_LOSSES,
    TARGET,
    Kind,
    Named,
    Task,
    kind_of,
    loss_of,
    named,
)
from cnnsweep.errors import UserError
from cnnsweep.training import user_metrics

if TYPE_CHECKING:
    import tensorflow as tf


class BalancedAccuracy(keras.metrics.MeanIoU):
    """The mean of the classes' recalls, over the classes that there are, as in scikit-learn."""

    def result(self) -> tf.Tensor:
        right, images, _ = self._counts()
        return _mean(right, images, images)

    def _counts(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of each class: how often it was right, how often it was there, how often it was predicted."""
        matrix = ops.cast(self.total_cm, "float32")
        return ops.diagonal(matrix), ops.sum(matrix, axis=1), ops.sum(matrix, axis=0)


class MeanDice(BalancedAccuracy):
    """The mean of the classes' Dice coefficients (F1 over pixels), over the classes that there are or are predicted."""

    def result(self) -> tf.Tensor:
        right, images, predicted = self._counts()
        return _mean(2 * right, images + predicted, images + predicted)


def _mean(above: tf.Tensor, below: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    known = ops.cast(present > 0, "float32")
    return ops.sum(known * above / ops.maximum(below, 1)) / ops.maximum(ops.sum(known), 1)


OWN = {"BalancedAccuracy": BalancedAccuracy, "MeanDice": MeanDice}
COUNTED = (*OWN, "MeanIoU")
"""Metrics that count how often each class is taken for each."""


def needs_one_hot(training: Training, task: Task) -> bool:
    """Whether the loss or one of the metrics takes class labels as vectors with a 1 only.

    Raises `UserError` where another takes them as numbers only.
    """
    if task not in ONE_CLASS:
        return False
    metrics = [named(entry) for entry in _entries(training.metrics, task)]
    loss = named(training.loss)[0]
    kinds = [(loss, loss_of(training.loss, task)), *((name, _kind(name, given)) for name, given in metrics)]
    vectors = [name for name, kind in kinds if kind.takes == "one_hot"]
    numbers = [name for name, kind in kinds if kind.takes == "numbers"]
    if training.loss_settings.get("label_smoothing"):
        vectors.append("label_smoothing")
    if vectors and numbers:
        raise UserError(f"training.loss: {numbers[0]} cannot be used together with {vectors[0]}")
    return bool(vectors)


def make_loss(training: Training, task: Task, one_hot: bool) -> keras.losses.Loss:
    """The loss of a config, for class labels as vectors with a 1, or as numbers."""
    if not isinstance(training.loss, str):
        return user_metrics.make_loss(training.loss)
    kind = loss_of(training.loss, task)
    settings = {name: value for name, value in training.loss_settings.items() if name in kind.settings}
    name = _class_name(kind, task, one_hot)
    if name.startswith("Sparse"):
        settings.pop("label_smoothing", None)
    if training.loss in REGION_LOSSES and task == "segmentation":
        settings["axis"] = (0, 1, 2)  # each class by itself: over all together a background of many pixels is enough
    return getattr(keras.losses, name)(**settings)


def make_metrics(
    training: Training, task: Task, classes: int, one_hot: bool, own: bool = True
) -> list[keras.metrics.Metric]:
    """The metrics of a config in its order; those of Keras alone where `own` is false."""
    made = []
    for entry in _entries(training.metrics, task):
        name, settings = named(entry)
        kind = _kind(name, settings)
        if kind.keras in ("", *OWN) and not own:
            continue
        if not kind.keras:
            made.append(user_metrics.make_metric(name, settings))
            continue
        arguments: dict[str, Any] = {**kind.defaults, **settings, "name": name}
        if kind.keras in COUNTED:
            arguments |= {"num_classes": classes, "sparse_y_true": not one_hot, "sparse_y_pred": False}
        if kind.keras == "AUC":
            arguments["num_labels"] = classes
        if task == "multi_label" and kind.keras in ("F1Score", "FBetaScore"):
            arguments = {"threshold": 0.5} | arguments
        made.append((OWN.get(kind.keras) or getattr(keras.metrics, _class_name(kind, task, one_hot)))(**arguments))
    return made


def _class_name(kind: Kind, task: Task, one_hot: bool) -> str:
    if kind.keras == "CategoricalAccuracy" and task == "multi_label":
        return "BinaryAccuracy"
    sparse = kind.takes == "either" and kind.keras.endswith(("CategoricalAccuracy", "CategoricalCrossentropy"))
    return f"Sparse{kind.keras}" if sparse and task in ONE_CLASS and not one_hot else kind.keras


def _entries(metrics: str | Sequence[Named], task: Task) -> Sequence[Named]:
    return AUTO_METRICS[task] if isinstance(metrics, str) else metrics


def _kind(name: str, settings: Mapping[str, Any]) -> Kind:
    kind = OF_THE_USER if TARGET in settings else kind_of(name)
    assert kind is not None  # the config was checked
    return kind

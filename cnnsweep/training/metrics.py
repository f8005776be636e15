"""The losses and metrics of a config as Keras' objects, and metrics that Keras does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from cnnsweep.config.measure_settings import as_keras_takes
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

    from cnnsweep.data.arrays import Array

Shape = tuple[int, ...]
TYPICAL = 10_000
"""Training targets from which the typical value of a loss is taken."""
MOST_TARGETS = 50
"""More of an example are taken together."""
LOGITS = -88.0, 20.0
"""Of the probabilities that float32 has: down to 1e-38, and up to 1 - 6e-8."""
SMALLEST = 1.2e-38
"""The smallest number that TensorFlow does not take for 0."""


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


class R2Score(keras.metrics.R2Score):
    """R² of values less the mean of the first batch, which leaves it as it is.

    Keras' own takes the difference of two sums of squares in float32, which is rounding where the mean is large.
    Where all values are equal it is 1 for the right ones and 0 for others, as in scikit-learn.
    """

    def _build(self, y_true_shape: Shape, y_pred_shape: Shape) -> None:
        super()._build(y_true_shape, y_pred_shape)
        self.offset = self.add_variable(name="offset", shape=[y_pred_shape[-1]], initializer="zeros")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        y_true = ops.reshape(ops.cast(y_true, self.dtype), ops.shape(y_pred))
        if not self._built:
            self._build(y_true.shape, y_pred.shape)
        offset = ops.where(self.count > 0, ops.convert_to_tensor(self.offset), ops.mean(y_true, axis=0))
        self.offset.assign(offset)
        super().update_state(y_true - offset, y_pred - offset, sample_weight)

    def result(self) -> tf.Tensor:
        total = self.squared_sum - self.sum * self.sum / self.count
        varied = total > 0
        equal = ops.where(self.total_mse > 0, 0.0, 1.0)
        return ops.mean(ops.where(varied, 1 - self.total_mse / ops.where(varied, total, 1.0), equal))


class OfPresentClasses:
    """An F score whose `macro` average leaves out classes that are neither there nor predicted, as in scikit-learn."""

    average: str | None
    beta: float
    true_positives: tf.Tensor
    false_positives: tf.Tensor
    false_negatives: tf.Tensor

    def result(self) -> tf.Tensor:
        if self.average != "macro":
            return super().result()  # type: ignore[misc]
        right = (1 + self.beta**2) * self.true_positives
        below = right + self.beta**2 * self.false_negatives + self.false_positives
        return _mean(right, below, below)


class ByLogits:
    """A metric with thresholds for logits of all sizes: those of a confident network lie between few of Keras' own."""

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        p = ops.cast(y_pred, "float32")
        low, high = np.arcsinh(LOGITS)
        place = ops.arcsinh(ops.log(p + SMALLEST) - ops.log(1 - p + SMALLEST))  # linear about 0, then a logarithm
        super().update_state(y_true, (ops.clip(place, low, high) - low) / (high - low), sample_weight)  # type: ignore[misc]


class AUC(ByLogits, keras.metrics.AUC):
    """The mean of the areas of the classes that have one: an absent class has neither curve."""

    def result(self) -> tf.Tensor:
        there, others = self.true_positives[0] > 0, self.false_positives[0] > 0  # the first threshold is below all
        known = there if self.curve.name == "PR" else ops.logical_and(there, others)
        try:
            self.label_weights = ops.cast(known, "float32")
            return super().result()
        finally:
            self.label_weights = None


def _mean(above: tf.Tensor, below: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    known = ops.cast(present > 0, "float32")
    return ops.sum(known * above / ops.maximum(below, 1)) / ops.maximum(ops.sum(known), 1)


AT_A_POINT = ("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity")
OWN: dict[str, type[keras.metrics.Metric]] = {
    **{each.__name__: each for each in (AUC, BalancedAccuracy, MeanDice, R2Score)},
    **{name: type(name, (OfPresentClasses, getattr(keras.metrics, name)), {}) for name in ("F1Score", "FBetaScore")},
    **{name: type(name, (ByLogits, getattr(keras.metrics, name)), {}) for name in AT_A_POINT},
}
COUNTED = ("BalancedAccuracy", "MeanDice", "MeanIoU")
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


class Relative(keras.losses.Loss):
    """A loss whose gradient in each target's prediction is multiplied by a factor, (targets,)."""

    def __init__(self, loss: keras.losses.Loss, factors: Array) -> None:
        super().__init__(name=loss.name)
        self._loss, self._factors = loss, factors

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        return self._loss(y_true, self._weighed(y_pred), sample_weight)

    def _weighed(self, predicted: tf.Tensor) -> tf.Tensor:
        @ops.custom_gradient
        def same(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
            def gradient(*args: tf.Tensor, upstream: tf.Tensor | None = None) -> tf.Tensor:
                return (args[0] if upstream is None else upstream) * ops.cast(self._factors, x.dtype)

            return x, gradient

        return same(predicted)


def relative(loss: keras.losses.Loss, y: Array) -> keras.losses.Loss:
    """The loss with gradients in relation to what each target adds to it where its mean is predicted.

    So the units of the targets, `y` of shape (examples, targets), make no difference to the optimizer, as they do to
    Adam's epsilon and to the learning rate of SGD: the gradient of a squared error grows with the square of the unit.
    """
    labels, count = np.asarray(y[:TYPICAL], np.float32), y.shape[1]
    mean = np.asarray(y, np.float64).mean(axis=0).astype(np.float32)
    exact, factors = float(loss(labels, labels)), np.ones(count, np.float32)
    for columns in range(count) if count <= MOST_TARGETS else (slice(None),):
        predicted = labels.copy()
        predicted[:, columns] = mean[columns]
        typical = (float(loss(labels, predicted)) - exact) * count / np.size(mean[columns])
        if 1e-37 < typical < 1e37:
            factors[columns] = 1 / typical
    return Relative(loss, factors)


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
        name_in_keras = _class_name(kind, task, one_hot)
        if not own and not hasattr(keras.metrics, name_in_keras):
            continue
        if not kind.keras:
            made.append(user_metrics.make_metric(name, settings))
            continue
        arguments: dict[str, Any] = {**kind.defaults, **as_keras_takes(settings), "name": name}
        if kind.keras in COUNTED:
            arguments |= {"num_classes": classes, "sparse_y_true": not one_hot, "sparse_y_pred": False}
        if kind.keras == "AUC":
            arguments["num_labels"] = classes
        if task == "multi_label" and kind.keras in ("F1Score", "FBetaScore"):
            arguments = {"threshold": 0.5} | arguments
        ours = OWN.get(kind.keras) if own else None
        made.append((ours or getattr(keras.metrics, name_in_keras))(**arguments))
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

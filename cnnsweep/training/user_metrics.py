"""Losses and metrics of the user's own, which `_target_` names: classes of Keras, or functions of (y_true, y_pred)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import keras
import numpy as np

from cnnsweep.config.augment import MIXING
from cnnsweep.config.components import locate
from cnnsweep.config.section import Plain
from cnnsweep.config.tasks import ONE_CLASS, TARGET, named
from cnnsweep.errors import UserError
from cnnsweep.trial import Inspection

if TYPE_CHECKING:
    import tensorflow as tf

Function = Callable[..., "tf.Tensor"]
Made = TypeVar("Made", keras.losses.Loss, keras.metrics.Metric)
IMAGES = 4
"""On which a loss and a metric are tried."""


class FunctionLoss(keras.losses.Loss):
    """The loss that a function returns for each label, or for each image."""

    def __init__(self, function: Function, settings: Plain) -> None:
        super().__init__()
        self.function, self.settings = function, settings

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self.function(y_true, y_pred, **self.settings)


def make_loss(entry: Plain) -> keras.losses.Loss:
    """The loss of `training.loss`. Raises `UserError` where it cannot be made."""
    return _make("training.loss", entry, keras.losses.Loss, FunctionLoss)


def make_metric(name: str, entry: Plain) -> keras.metrics.Metric:
    """A metric of `training.metrics`, under this name. Raises `UserError` where it cannot be made."""

    def of_function(function: Function, settings: Plain) -> keras.metrics.Metric:
        return keras.metrics.MeanMetricWrapper(function, name=name, **settings)

    made = _make(f"training.metrics: {name}", entry, keras.metrics.Metric, of_function)
    made.name = name
    return made


def _make(key: str, entry: Plain, kind: type[Made], of_function: Callable[[Function, Plain], Made]) -> Made:
    target, settings = entry[TARGET], {name: value for name, value in entry.items() if name != TARGET}
    found = locate(key, target)
    try:
        made = found(**settings) if isinstance(found, type) else of_function(found, settings)
    except Exception as error:  # of the user's own class
        raise UserError(f"{key}: {target} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, kind):
        raise UserError(f"{key}: {target} is neither a {kind.__module__.split('.')[0]} {kind.__name__} nor a function")
    return made


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: what is wrong with the losses and metrics of the user's own in a config, tried on a few labels."""
    training, faults = inspection.config.training, []
    entries = [] if isinstance(training.metrics, str) else [named(entry) for entry in training.metrics]
    tries = [partial(_try_metric, name, given, inspection) for name, given in entries if TARGET in given]
    if not isinstance(training.loss, str):
        tries.append(partial(_try_loss, training.loss, inspection))
    for one in tries:
        try:
            one()
        except UserError as error:
            faults.append(str(error))
    return faults
    yield


def _try_loss(entry: Plain, inspection: Inspection) -> None:
    loss, given = make_loss(entry), _labels(inspection)
    _expect_number("training.loss", entry, lambda: loss(*given))
    config = inspection.config
    searched = (config.space.get("data") or {}).get("augment") or {}
    mixing = [name for name in MIXING if getattr(config.data.augment, name) or searched.get(name)]
    weights = "training.class_weights" if config.training.class_weights != "none" else ""
    if key := weights or "".join(f"data.augment.{name}" for name in mixing[:1]):
        _expect_one_for_each(key, entry, loss, *given)


def _expect_one_for_each(
    key: str, entry: Plain, loss: keras.losses.Loss, labels: np.ndarray, predicted: np.ndarray
) -> None:
    """Raise `UserError` where a loss has no value of each label, which a weight, or a share, would multiply."""
    try:
        shape = tuple(np.shape(loss.call(*map(keras.ops.convert_to_tensor, (labels, predicted)))))
    except NotImplementedError:  # it is computed in its __call__
        return
    if shape[: labels.ndim - 1] != labels.shape[:-1]:
        what, off = ("classes", "none") if key == "training.class_weights" else ("shares of a mixture", "0")
        raise UserError(f"{key}: {entry[TARGET]} returns numbers of the shape {shape} for labels of the shape "
                        f"{labels.shape}, which {what} cannot weigh; let it return one for each label, or "
                        f"set {key}={off}")  # fmt: skip


def _try_metric(name: str, entry: Plain, inspection: Inspection) -> None:
    metric, given = make_metric(name, entry), _labels(inspection)

    def measure() -> object:
        metric.update_state(*given)
        return metric.result()

    _expect_number(f"training.metrics: {name}", entry, measure)


def _expect_number(key: str, entry: Plain, compute: Callable[[], object]) -> None:
    """Raise `UserError` where this fails or is no number; one that is not finite may be so for these labels alone."""
    try:
        value = np.asarray(compute(), np.float64)
    except Exception as error:  # of the user's own code
        text = str(error).splitlines()[0] if str(error) else ""
        raise UserError(f"{key}: {entry[TARGET]} fails on (y_true, y_pred): {type(error).__name__}: {text}") from error
    if value.shape:
        raise UserError(f"{key}: {entry[TARGET]} returns numbers of the shape {value.shape}, where one is needed")


def _labels(inspection: Inspection) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions in the form that training has."""
    task, classes = inspection.config.task, inspection.classes
    size = inspection.input_shape[:2] if task == "segmentation" else ()
    numbers = np.arange(IMAGES * int(np.prod(size, dtype=int))).reshape(IMAGES, *size) % classes
    labels = np.eye(classes, dtype=np.float32)[numbers]
    return labels, np.full_like(labels, 1 / classes if task in ONE_CLASS else 0.5)

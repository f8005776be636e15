"""Labels as a loss takes them, with the weights of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.schema import Config, Training
from cnnsweep.config.tasks import SHORT, Named, kind_of, named
from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.errors import UserError, unknown

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Targets:
    """How labels are encoded: as they are, or each class as a vector with a 1; and the weight of each class."""

    one_hot: int | None = None
    """The number of classes; None: as they are."""
    weights: Array | None = None
    """float32 (classes,)"""

    @property
    def plain(self) -> bool:
        """Whether labels stay as they are, without weights."""
        return self.one_hot is None and self.weights is None

    def encode(self, y: Array) -> tuple[Array, ...]:
        """A batch's labels and, where there are weights, the weights of them."""
        labels = y if self.one_hot is None else np.eye(self.one_hot, dtype=np.float32)[y]
        return (labels,) if self.weights is None else (labels, self.weights[y])

    def encode_tensor(self, y: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The same in TensorFlow's pipeline."""
        import tensorflow as tf

        labels = y if self.one_hot is None else tf.one_hot(y, self.one_hot)
        return (labels,) if self.weights is None else (labels, tf.gather(self.weights, y))


AS_THEY_ARE = Targets()


def check_labels(config: Config, data: Dataset) -> None:
    """Raise `UserError` where labels do not fit the class weights, the losses or the metrics of a config.

    What is refused would be a finite number that means nothing.
    """
    class_weights(config.training, data)
    searched = (config.space.get("training") or {}).get("loss") or {}
    losses: list[Named] = [*searched.get("values", []), config.training.loss]
    metrics = [] if isinstance(config.training.metrics, str) else config.training.metrics
    for key, entries in (("training.loss", losses), ("training.metrics", metrics)):
        for entry in entries:
            if isinstance(entry, str) or "name" in entry:
                _check_label_values(key, entry, data)


def _check_label_values(key: str, entry: Named, data: Dataset) -> None:
    name, settings = named(entry)
    kind = kind_of(name)
    top = kind is not None and kind.keras == "TopKCategoricalAccuracy" and settings.get("k", kind.defaults.get("k", 5))
    if top and top >= data.classes:
        raise UserError(f"{key}: {name} is always 1: there are {data.classes} classes")
    for setting, most in (("class_id", data.classes - 1), ("top_k", data.classes)):
        if kind is not None and (value := settings.get(setting)) is not None and value > most:
            raise UserError(
                f"{key}: {name}: {setting}: {value} (must be at most {most}: there are {data.classes} classes)"
            )
    if data.task != "regression":
        return
    labels = np.concatenate([np.asarray(y, np.float32).reshape(-1) for y in (data.y_train, data.y_val, data.y_test)])
    others = "; mean_squared_error, mean_absolute_error, huber and log_cosh take any numbers"
    if SHORT.get(name, name) == "mean_squared_logarithmic_error" and (low := labels.min(initial=0.0)) < 0:
        raise UserError(f"{key}: {name} needs labels from 0, and there are some down to {low:g}{others}")
    if SHORT.get(name, name) == "mean_absolute_percentage_error" and (zeros := int((labels == 0).sum())):
        raise UserError(f"{key}: {name} divides by the labels, of which {zeros:,} are 0{others}")


def targets_of(training: Training, data: Dataset, weighted: bool = True) -> Targets:
    """The encoding that a config's loss and metrics take; `weighted` for training."""
    from cnnsweep.training.metrics import needs_one_hot

    one_hot = needs_one_hot(training, data.task)
    return Targets(data.classes if one_hot else None, class_weights(training, data) if weighted else None)


def class_weights(training: Training, data: Dataset) -> Array | None:
    """The weight of each class in the loss: float32 (classes,); None where all count the same.

    `balanced` is n / (classes · n_c) for a class with n_c of the n labels, as in scikit-learn. Raises `UserError` for
    a class that the data does not have, and one without a weight.
    """
    setting = training.class_weights
    if setting == "none":
        return None
    if isinstance(setting, str):
        counts = np.bincount(np.asarray(data.y_train).reshape(-1), minlength=data.classes)
        return (counts.sum() / (data.classes * np.maximum(counts, 1))).astype(np.float32)
    for name in setting:
        if name not in data.class_names:
            raise unknown("class in training.class_weights", name, data.class_names)
    missing = [name for name in data.class_names if name not in setting]
    if missing:
        raise UserError(f"training.class_weights: no weight for {', '.join(missing)}")
    return np.array([setting[name] for name in data.class_names], np.float32)

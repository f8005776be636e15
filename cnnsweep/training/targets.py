"""Labels as a loss takes them, with the weights of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.schema import Training
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

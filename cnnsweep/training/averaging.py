"""A moving average of the weights, with which a trial is validated and which it keeps.

Between epochs the model holds the average, and the optimizer the weights that training goes on with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


class Averaging:
    """An optimizer whose average is of few steps at the start, and which leaves the weights as they are."""

    iterations: keras.Variable
    _model_variables_moving_average: list[keras.Variable | None]

    @property
    def ema_momentum(self) -> keras.KerasTensor:
        """After t steps (1 + t) / (10 + t), up to what was asked for, as in TensorFlow's ExponentialMovingAverage."""
        from keras import ops

        steps = ops.cast(self.iterations, "float32")
        return ops.minimum(vars(self)["ema_momentum"], (1 + steps) / (10 + steps))

    def _update_model_variables_moving_average(self, trainable_variables: list[keras.Variable]) -> None:
        """Keras' version computes the momentum again for each variable, which takes long to trace."""
        from keras import ops

        first = ops.cast(ops.equal(self.iterations, 0), "float32")
        share = 1 - (1 - first) * self.ema_momentum
        for weights, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                average.assign(average + ops.cast(share, weights.dtype) * (weights - average))

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Keras would put the average in the place of the weights at the end of each `fit`, and train on from there."""


def use(model: keras.Model) -> None:
    """Let a compiled model's optimizer average in this way, where it averages at all."""
    optimizer = _averaging(model)
    if optimizer is not None:
        kind = type(optimizer)
        optimizer.__class__ = type(f"Averaging{kind.__name__}", (Averaging, kind), {})


@contextmanager
def training_weights(model: keras.Model) -> Iterator[None]:
    """Give the model the weights that it trains with, and afterwards their average."""
    _exchange(model)
    yield
    _exchange(model)


def _averaging(model: keras.Model) -> keras.optimizers.Optimizer | None:
    """The optimizer if it averages; one with loss scaling wraps another."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return optimizer if optimizer.use_ema else None


def _exchange(model: keras.Model) -> None:
    """Exchange the weights and their average, if there is one yet."""
    optimizer = _averaging(model)
    if optimizer is None or not int(np.asarray(optimizer.iterations)):
        return
    pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
    for weights, average in pairs:
        kept = np.array(weights)
        weights.assign(np.array(average))
        average.assign(kept)

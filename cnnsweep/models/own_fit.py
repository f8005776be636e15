"""The training of a KerasTuner `HyperModel` that has a `fit` of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.inputs import zeros
from cnnsweep.errors import UserError
from cnnsweep.search_space.space import Value

if TYPE_CHECKING:
    import keras
    from keras_tuner import HyperParameters

EXAMPLES = 32
"""Of zeros, on which it is called to learn what it asks for."""


class ReachedTrainingError(BaseException):
    """Ends a fit that is only to ask for its hyperparameters; no `except Exception` of the user's catches it."""


@dataclass(frozen=True)
class OwnFit:
    """A `HyperModel.fit`, and the values of the hyperparameters that it is called with, by KerasTuner's names."""

    path: str
    fit: Callable[..., object]
    values: Mapping[str, Value]

    def hyperparameters(self) -> HyperParameters:
        """Its first argument."""
        import keras_tuner

        hp = keras_tuner.HyperParameters()
        hp.values = dict(self.values)
        return hp

    def call(self, hp: HyperParameters, model: keras.Model, **given: object) -> object:
        """Call it with those of the arguments that it takes; with a batch size only where it names one."""
        parameters = inspect.signature(self.fit).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        taken = {k: v for k, v in given.items() if k in parameters or (takes_any and k != "batch_size")}
        return self.fit(hp, model, **taken)

    def expect_known(self, hp: HyperParameters) -> None:
        """Raise UserError where it has asked for a hyperparameter that the space does not have."""
        if new := sorted({p.name for p in hp.space if type(p).__name__ != "Fixed"} - set(self.values)):
            raise UserError(late(self.path, new))

    def ask(self, hp: HyperParameters, model: keras.Model, input_shape: Sequence[int]) -> None:
        """Call it up to its first step or epoch: what it asks for until then is known."""
        import keras

        def end(*_: object, **__: object) -> None:
            raise ReachedTrainingError

        x, y = zeros(EXAMPLES, input_shape), np.zeros(EXAMPLES, np.int32)
        model.fit, last = end, keras.callbacks.LambdaCallback(on_epoch_end=end, on_train_batch_end=end)
        try:
            self.call(hp, model, x=x, y=y, validation_data=(x, y), batch_size=EXAMPLES, epochs=1, initial_epoch=0,
                      callbacks=[last], verbose=0)  # fmt: skip
        except (Exception, ReachedTrainingError) as error:  # zeros may not do; in a trial it fails by itself
            if isinstance(error, TypeError) and " argument" in str(error):
                fault = str(error).rpartition("() ")[2]
                raise UserError(f"model.hypermodel: {self.path}.fit {fault}; x, y, validation_data, epochs, callbacks "
                                "and verbose are the sweep's") from error  # fmt: skip


def late(path: str, new: Sequence[str]) -> str:
    """The reason of a trial whose model or training asks for hyperparameters that the space does not have."""
    return (f"{path} asks for {', '.join(new)}, which it did not ask for when its space was found: ask for it in every "
            "build, or in a conditional_scope")  # fmt: skip

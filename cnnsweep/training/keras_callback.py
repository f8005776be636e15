"""Reports and checkpoints of a training function that calls Keras' `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import keras

from cnnsweep.training import checkpoint

if TYPE_CHECKING:
    from cnnsweep.training.own_trial import Trial


class ReportEpochs(keras.callbacks.Callback):
    """Restores the model and its optimizer before the first epoch, and saves and reports them after each.

    `before` is called before each report.
    """

    def __init__(
        self, trial: Trial, model: keras.Model | None = None, before: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._trial, self._before = trial, before
        if model is not None:  # a loop of the user's own may not say which
            self.set_model(model)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.model.optimizer.build(self.model.trainable_variables)
        if (folder := self._trial.restored()) is not None:
            checkpoint.load(folder / checkpoint.LAST, self.model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        keras.utils.set_random_seed((self._trial.seed + epoch) % 2**31)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._before()
        self.save()
        if not self._trial._report(epoch + 1, {name: float(value) for name, value in (logs or {}).items()}):
            self.model.stop_training = True

    def save(self) -> None:
        """Save the model and its optimizer, for the next report."""
        with self._trial.checkpoint() as folder:
            checkpoint.save(folder, self.model, checkpoint.State([], 0.0, 0), is_best=False)

"""Reports and checkpoints of a training function that calls Keras' `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

from cnnsweep.training import checkpoint

if TYPE_CHECKING:
    from cnnsweep.training.own_trial import Trial


class ReportEpochs(keras.callbacks.Callback):
    """Restores the model and its optimizer before the first epoch, and saves and reports them after each."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self.model.optimizer.build(self.model.trainable_variables)
        if (folder := self._trial.restored()) is not None:
            checkpoint.load(folder / checkpoint.LAST, self.model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        keras.utils.set_random_seed((self._trial.seed + epoch) % 2**31)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        with self._trial.checkpoint() as folder:
            checkpoint.save(folder, self.model, checkpoint.State([], 0.0, 0), is_best=False)
        if not self._trial.report(epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}):
            self.model.stop_training = True

"""Keras callbacks as a user would write them."""

from __future__ import annotations

from typing import Any

import keras

EVENTS: list[tuple[Any, ...]] = []


class Noting(keras.callbacks.Callback):
    """Notes what it is called with; may stop the training."""

    def __init__(self, stop: int = 0) -> None:
        super().__init__()
        self.stop = stop

    def on_train_begin(self, logs: Any = None) -> None:
        EVENTS.append(("begin", self.params["epochs"]))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        EVENTS.append(("epoch", epoch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        EVENTS.append(("batch", batch))

    def on_test_end(self, logs: Any = None) -> None:
        EVENTS.append(("validated",))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        EVENTS.append(("ended", epoch, "val_accuracy" in (logs or {})))
        if epoch + 1 == self.stop:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        EVENTS.append(("end",))


class Raising(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise RuntimeError("no room for the log")

"""Keras callbacks of the user's own, called as `fit` calls them in one training of all epochs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import keras

from cnnsweep.config import own_code
from cnnsweep.config.components import locate
from cnnsweep.config.schema import Config
from cnnsweep.config.tasks import measured
from cnnsweep.errors import UserError, unknown
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.trial import Inspection

Settings = Mapping[str, Any]
SETS_RATE = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
"""Set the learning rate, which an optimizer with a schedule does not allow."""


class Callbacks:
    """The callbacks of a trial. Each epoch is a `fit` of its own: events of the whole training are given here."""

    def __init__(self, entries: Sequence[Settings], model: keras.Model, epochs: int) -> None:
        self._model = model
        made = [make(number, entry) for number, entry in enumerate(entries)]
        self._all = keras.callbacks.CallbackList(made, model=model, epochs=epochs, verbose=0)
        self.inner = [BatchEvents(self._all)] if made else []
        """For `fit` and `evaluate`."""
        self._all.on_train_begin()

    def begin(self, epoch: int) -> None:
        """An epoch, counted from 1, begins."""
        self._all.on_epoch_begin(epoch - 1)

    def end(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """An epoch was trained and validated; returns whether a callback stops the training."""
        self._all.on_epoch_end(epoch - 1, dict(metrics))
        return bool(self._model.stop_training)

    def finish(self) -> None:
        """The training is over."""
        self._all.on_train_end()


class BatchEvents(keras.callbacks.Callback):
    """Passes the events of batches on to other callbacks."""

    def __init__(self, to: keras.callbacks.CallbackList) -> None:
        super().__init__()
        self._to = to

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_test_begin(logs)

    def on_test_end(self, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_test_end(logs)

    def on_test_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._to.on_test_batch_end(batch, logs)


def make(number: int, entry: Settings) -> keras.callbacks.Callback:
    """The callback of an entry of `training.callbacks`. Raises UserError where it cannot be made."""
    key = f"training.callbacks.{number}"
    if not isinstance(entry, Mapping) or not isinstance(target := entry.get("_target_"), str):
        raise UserError(f"{key}: expected {{_target_: module.Class, …}}, got '{entry}'")
    settings = {name: value for name, value in entry.items() if name != "_target_"}
    try:
        made = locate(f"{key}._target_", target)(**settings)
    except UserError:
        raise
    except Exception as error:  # of the user's own class
        raise UserError(f"{key}: {target} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, keras.callbacks.Callback):
        raise UserError(f"{key}: {target} is no keras.callbacks.Callback")
    if isinstance(made, keras.callbacks.LearningRateScheduler) and not callable(made.schedule):
        raise UserError(f"{key}: schedule is '{made.schedule}', {target} takes a function, which a config cannot hold; "
                        "name a class of your own that is derived from it, or choose a training.schedule")  # fmt: skip
    return made


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: what is wrong with the callbacks of a config."""
    config, faults, before = inspection.config, [], []
    own = own_code.is_run_by(config.plain())  # has an optimizer and metrics of its own
    for number, entry in enumerate(config.training.callbacks):
        try:
            before.append(make(number, entry))
            if not own:
                _check_rate(number, before[-1], config)
                _check_monitor(number, before, config)
        except UserError as error:
            faults.append(str(error))
    return faults
    yield


def _check_rate(number: int, made: keras.callbacks.Callback, config: Config) -> None:
    if not isinstance(made, SETS_RATE):
        return
    needed = {"training.schedule": "constant", "training.warmup_epochs": 0}
    given = {"training.schedule": config.training.schedule, "training.warmup_epochs": config.training.warmup_epochs}
    given |= {parameter.name: "searched" for parameter in parse_space(config).parameters if parameter.name in needed}
    for key, value in given.items():
        if value != needed[key]:
            raise UserError(f"training.callbacks.{number}: {type(made).__name__} sets the learning rate, which needs "
                            f"{key}={needed[key]}; it is {value}")  # fmt: skip


def _check_monitor(number: int, made: Sequence[keras.callbacks.Callback], config: Config) -> None:
    """Of Keras' callbacks alone: one of the user's own may measure more, for those behind it as well."""
    monitor = getattr(made[-1], "monitor", None)
    if isinstance(monitor, str) and all(type(each).__module__.startswith("keras.") for each in made):
        allowed = [*measured(config.training.metrics, config.task), "epoch_seconds", "learning_rate"]
        if monitor not in allowed:
            raise unknown(f"training.callbacks.{number}: monitor", monitor, allowed)

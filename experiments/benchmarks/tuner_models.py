"""Models as KerasTuner documents them, and a callback that notes each epoch, for compare_keras_tuner.py."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras import layers


class Log(keras.callbacks.Callback):
    """Appends a line to a file when a training begins, after each of its epochs, and when it ends."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def note(self, event: str) -> None:
        with Path(self.path).open("a") as file:
            file.write(json.dumps([event, time.time(), os.getpid()]) + "\n")

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self.note("begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.note("epoch")

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
        self.note("end")


def guide(hp: Any) -> keras.Model:
    """Layers in a loop, as in "Getting started with KerasTuner"."""
    model = keras.Sequential([layers.Flatten()])
    for i in range(hp.Int("num_layers", 1, 3)):
        units = hp.Int(f"units_{i}", min_value=32, max_value=512, step=32)
        model.add(layers.Dense(units, activation=hp.Choice("activation", ["relu", "tanh"])))
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    return _compiled(model, hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log"))


def scopes(hp: Any) -> keras.Model:
    """Hyperparameters in conditional scopes, as in the documentation of `HyperParameters.conditional_scope`."""
    model = keras.Sequential()
    kind = hp.Choice("model_type", ["mlp", "cnn"])
    with hp.conditional_scope("model_type", ["mlp"]):
        if kind == "mlp":
            model.add(layers.Flatten())
            model.add(layers.Dense(hp.Int("units", 32, 256, step=32), activation="relu"))
    with hp.conditional_scope("model_type", ["cnn"]):
        if kind == "cnn":
            model.add(layers.Conv2D(hp.Choice("filters", [16, 32]), 3, activation="relu"))
            model.add(layers.GlobalAveragePooling2D())
    return _compiled(model, hp.Choice("learning_rate", [1e-2, 1e-3]))


class Fit(keras_tuner.HyperModel):
    """A `fit` with hyperparameters of its own, as in "Tune model training" of the guide."""

    def build(self, hp: Any) -> keras.Model:
        model = keras.Sequential([layers.Flatten(), layers.Dense(hp.Int("units", 32, 256, step=32), activation="relu")])
        return _compiled(model, 1e-3)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("batch_size", None)
        return model.fit(*args, batch_size=hp.Choice("batch_size", [32, 64]), shuffle=hp.Boolean("shuffle"), **kwargs)


def _compiled(model: keras.Sequential, rate: float) -> keras.Model:
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(keras.optimizers.Adam(rate), loss="categorical_crossentropy", metrics=["accuracy"])
    return model

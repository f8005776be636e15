"""The output of a network for its task: probabilities, or another last activation and the targets' own units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Dataset
from cnnsweep.errors import UserError
from cnnsweep.models.own import is_graph

if TYPE_CHECKING:
    import keras

ACTIVATIONS: dict[Task, str] = {"multi_label": "sigmoid", "regression": "linear"}
"""In place of softmax, with which every model family ends."""


def with_output_of(model: keras.Model, data: Dataset) -> keras.Model:
    """Return a model that gives class probabilities with the output of the data's task in their place.

    For regression a last layer without weights puts the outputs into the units of the targets, by the mean and the
    standard deviation of the training data: (images, targets). Logits of classes, from a model of the user's own,
    become probabilities. Raises `UserError` where the last layer has no activation, or a subclassed model gives logits.
    """
    if data.task not in ACTIVATIONS:
        _make_probabilities(model, data)
        return model
    import keras

    last = list(all_layers(model))[-1]
    if not hasattr(last, "activation"):
        raise UserError(
            f"model: {model.name} ends with {last.name}, which has no activation to be replaced for task={data.task}"
        )
    last.activation = keras.activations.get(ACTIVATIONS[data.task])
    if data.task == "multi_label":
        return model
    y = np.asarray(data.y_train, np.float64)
    mean, deviation = y.mean(axis=0), y.std(axis=0)
    scale = np.where(deviation > 0, deviation, np.maximum(1e-9 * np.abs(mean), 1e-9))
    outputs = keras.layers.Rescaling(scale.tolist(), mean.tolist(), name="to_units", dtype="float32")(model.output)
    return keras.Model(model.inputs, outputs, name=model.name)


def _make_probabilities(model: keras.Model, data: Dataset) -> None:
    import keras

    if is_graph(model):
        last = list(all_layers(model))[-1]
        if getattr(last, "activation", None) is keras.activations.linear:
            last.activation = keras.activations.softmax
    elif isinstance(data.x_train, np.ndarray) and np.min(model(data.x_train[:8])) < 0:
        raise UserError(
            f"model: {model.name} gives negative numbers (logits): let it end with softmax, or compile it with a loss "
            "that has from_logits=True"
        )


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers in order, a nested model's in its place."""
    for layer in model.layers:
        yield from all_layers(layer) if hasattr(layer, "layers") else (layer,)

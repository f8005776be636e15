"""Sizes of any built Keras model: parameters, multiply-adds and activations, layer by layer, asked of the model."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, Measured, Network

if TYPE_CHECKING:
    import keras

VIEWS = ("Flatten", "Reshape", "Dropout", "SpatialDropout2D", "Permute", "InputLayer")
"""Layers whose outputs need no memory of their own."""
ELEMENTWISE = ("bias", "gamma", "beta", "alpha")
"""Names of weights that are no matrices, of any shape."""


def leave_gpus_alone() -> None:
    """Keep TensorFlow from opening the GPUs in this process, which builds networks but trains none."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # it has opened them
            tf.config.set_visible_devices([], "GPU")


def measure_model(build: Callable[[], keras.Model], input_shape: Sequence[int]) -> Network:
    """Build a model on the CPU and measure it. Raises UserError where it cannot be built."""
    import keras

    try:
        with keras.device("cpu:0"):
            return sizes_of(build(), input_shape)
    except UserError:
        raise
    except Exception as error:  # of the user's own function
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UserError(f"the network cannot be built: {type(error).__name__}: {first[:200]}") from error


def _name(layer: keras.layers.Layer, used: Counter[str]) -> str:
    """Its name; Keras' own, "dense_182", has the number that it would have in the first model of a process."""
    base, _, number = layer.name.rpartition("_")
    base = base if number.isdecimal() else layer.name
    if base.replace("_", "") != type(layer).__name__.lower():
        return str(layer.name)
    used[base] += 1
    return base if used[base] == 1 else f"{base}_{used[base] - 1}"


def sizes_of(model: keras.Model, input_shape: Sequence[int]) -> Network:
    """Measure a built model for one image."""
    used: Counter[str] = Counter()
    rows = [
        Measured(
            Layer(type(layer).__name__, _name(layer, used)),
            shape,
            layer.count_params(),
            multiply_adds(layer, shape),
            0 if type(layer).__name__ in VIEWS else 4 * math.prod(shape),
        )
        for layer, shape in _layers(model)
    ]
    return Network(tuple(input_shape), tuple(rows))


def _layers(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, tuple[int, ...]]]:
    """All layers with their output shapes, a nested model's in its place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer, _output_shape(layer)


def _output_shape(layer: keras.layers.Layer) -> tuple[int, ...]:
    """Without the batch; sizes that are not known count as 1, and so does a layer that was called by itself."""
    try:
        output = layer.output
    except (AttributeError, ValueError):
        return ()
    first = output[0] if isinstance(output, (list, tuple)) else output
    return tuple(int(size or 1) for size in first.shape[1:])


def multiply_adds(layer: keras.layers.Layer, output_shape: Sequence[int]) -> int:
    """Multiplications of a layer's kernels for one image, each with its addition.

    A kernel of a convolution is applied at each place of the output, one of a dense layer at each place before the
    last axis. A layer of another kind counts its matrices once for each place of its output.
    """
    import keras

    channels_first = getattr(layer, "data_format", None) == "channels_first"
    places = math.prod(output_shape[1:] if channels_first else output_shape[:-1])
    if type(layer).__name__.endswith("Transpose") and isinstance(layer.input.shape, tuple):
        places = math.prod(int(size or 1) for size in layer.input.shape[1:-1])
    recurrent = getattr(layer, "forward_layer", layer)  # of one in both directions
    if isinstance(recurrent, keras.layers.RNN):  # at each step, and of a convolution at each place
        inputs = layer.input[0] if isinstance(layer.input, (list, tuple)) else layer.input
        sides = getattr(recurrent.cell, "rank", 0)
        places = int(inputs.shape[1] or 1) * math.prod(output_shape[len(output_shape) - 1 - sides : -1])
    kernels = [w for w in layer.weights if len(w.shape) > 1 and w.name not in ELEMENTWISE]
    if type(layer).__name__ == "Embedding":
        return 0
    return sum(places * math.prod(w.shape) for w in kernels)

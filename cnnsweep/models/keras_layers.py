"""Keras layers with the settings of a `Layer`, applied to their input."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from cnnsweep.geometry.branches import Inner, hidden_units
from cnnsweep.geometry.network import Layer

if TYPE_CHECKING:
    import keras


def layer_seed(seed: int, name: str) -> int:
    """A seed for one layer that depends on no other layer, so that adding one does not change the others' weights."""
    return random.Random(f"{seed} {name}").getrandbits(31)


def apply(layer: Layer, inputs: keras.KerasTensor, seed: int) -> keras.KerasTensor:
    """Return the output of a layer on `inputs`, built of Keras' own layers; initial weights derive from the seed."""
    from keras import layers as kl

    match layer.kind:
        case "residual":
            return _residual(layer, inputs, seed)
        case "squeeze_excite":
            shape = tuple(inputs.shape[1:])
            outputs = kl.GlobalAveragePooling2D(keepdims=True, name=f"{layer.name}_squeeze")(inputs)
            sizes = ((hidden_units(layer.settings, shape), layer.settings["activation"]), (shape[-1], "sigmoid"))
            for name, (units, activation) in zip(("reduce", "excite"), sizes, strict=True):
                settings = {"units": units, "activation": activation}
                outputs = apply(Layer("dense", f"{layer.name}_{name}", settings), outputs, seed)
            return kl.Multiply(name=f"{layer.name}_scale")([inputs, outputs])
        case _:
            if "expansion" in layer.settings:
                filters = inputs.shape[-1] * layer.settings["expansion"]
                layer = dataclasses.replace(layer, settings={**layer.settings, "filters": filters})
            return keras_layer(layer, layer_seed(seed, layer.name))(inputs)


def _residual(layer: Layer, inputs: keras.KerasTensor, seed: int) -> keras.KerasTensor:
    from keras import layers as kl

    def through(parts: tuple[Inner, ...]) -> keras.KerasTensor:
        outputs = inputs
        for part in parts:
            outputs = apply(Layer(part.kind, f"{layer.name}_{part.name}", dict(part.settings)), outputs, seed)
        return outputs

    branch = through(layer.settings["branch"])
    if branch.shape == inputs.shape:
        return kl.Add(name=f"{layer.name}_add")([inputs, branch])
    if not layer.settings["projection"]:
        return branch
    return kl.Add(name=f"{layer.name}_add")([through(layer.settings["projection"]), branch])


def keras_layer(layer: Layer, seed: int) -> keras.layers.Layer:
    """Return the layer of Keras that an elementary layer is."""
    from keras import initializers
    from keras import layers as kl

    name, s = layer.name, layer.settings
    start = initializers.GlorotUniform(seed)
    match layer.kind:
        case "rescaling":
            return kl.Rescaling(s["scale"], name=name, dtype="float32")
        case "conv":
            sizes = s["filters"], s["kernel_size"], s["stride"], s["padding"]
            common = {"dilation_rate": s["dilation"], "use_bias": s["use_bias"], "kernel_initializer": start}
            return kl.Conv2D(*sizes, **common, name=name)
        case "depthwise_conv":
            common = {"dilation_rate": s["dilation"], "use_bias": s["use_bias"], "depthwise_initializer": start}
            return kl.DepthwiseConv2D(s["kernel_size"], s["stride"], s["padding"], **common, name=name)
        case "batch_norm":
            return kl.BatchNormalization(name=name)
        case "activation":
            return kl.Activation(s["function"], name=name)
        case "max_pool":
            return kl.MaxPooling2D(s["pool_size"], s["stride"], s["padding"], name=name)
        case "average_pool":
            return kl.AveragePooling2D(s["pool_size"], s["stride"], s["padding"], name=name)
        case "flatten":
            return kl.Flatten(name=name)
        case "global_average_pool":
            return kl.GlobalAveragePooling2D(name=name)
        case "global_max_pool":
            return kl.GlobalMaxPooling2D(name=name)
        case "dropout":
            return kl.Dropout(s["rate"], seed=seed, name=name)
        case _:
            # Under a mixed-precision policy small probabilities would round to zero.
            dtype = "float32" if name == "classifier" else None
            return kl.Dense(s["units"], s["activation"], s.get("use_bias", True), start, dtype=dtype, name=name)

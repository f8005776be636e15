"""A stack of convolution blocks and a classifier head: as a list of layers, and as a Keras model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnsweep.errors import UserError, unknown
from cnnsweep.geometry.network import PADDINGS, Layer, Stages, measure

if TYPE_CHECKING:
    import keras

POOLINGS = ("max", "average", "none")
HEADS = ("flatten", "average")
_PER_BLOCK = ("filters", "kernel_size", "stride", "dilation", "padding", "pooling", "pool_size")
_SCALARS = ("blocks", "activation", "batch_norm", "head", "dense_units", "dropout")

_RESCALING_KEYS = {"scale": "data.scale"}
_CONV_KEYS = {name: f"model.{name}" for name in _PER_BLOCK}
_ACTIVATION_KEYS = {"function": "model.activation"}
_POOL_KEYS = {"pool_size": "model.pool_size", "stride": "model.pool_size"}
_DENSE_KEYS = {"units": "model.dense_units", "activation": "model.activation"}
_DROPOUT_KEYS = {"rate": "model.dropout"}
_CLASSIFIER_KEYS = {"units": "classes"}


def layers(model: Mapping[str, Any], input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> list[Layer]:
    """Return the network that a `model` config describes, from the rescaled input to class probabilities.

    `input_shape` is (height, width, channels). Settings of blocks are one value for all, or a list with one
    value a block. Raises UserError for a wrong name, type or number of values; `measure` checks the sizes.
    """
    if len(input_shape) != 3:
        raise UserError(f"a cnn takes images, height × width × channels; got the shape {tuple(input_shape)}")
    _settings(model)
    stack: list[Layer] = []
    for index in range(model["blocks"] + 2):
        stack += stage(model, index, classes, scale)
    return stack


def stage(model: Mapping[str, Any], index: int, classes: int, scale: float = 1 / 255) -> list[Layer]:
    """Return one part of `layers`: 0 is the rescaled input, then the blocks from 1, then the head."""
    if index == 0:
        return [Layer("rescaling", "rescaling", {"scale": scale}, "the input", _RESCALING_KEYS)]
    if index > model["blocks"]:
        return _head(model, classes)
    values = {name: _per_block(name, model[name], model["blocks"])[index - 1] for name in _PER_BLOCK}
    return _block(index, values, model["activation"], model["batch_norm"])


# Tells cnnsweep.chain how the stack falls into parts, for counting networks without building each.
layers.stages = Stages(stage, frozenset({"model.head", "model.dense_units", "model.dropout"}))  # type: ignore[attr-defined]


def build(
    model: Mapping[str, Any],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),
    *,
    seed: int,
) -> keras.Model:
    """Build the uncompiled Keras model of a `model` config: `augment`, then `layers` one by one.

    Images of shape `input_shape` go in, float32 class probabilities come out. Initial weights and dropout
    derive from `seed` and the layers' names alone, so that one seed always gives the same model.
    Raises GeometryError where a layer does not fit its input.
    """
    stack = layers(model, input_shape, classes, scale)
    measure(stack, input_shape)
    check_activation(model["activation"])
    import keras

    images = outputs = keras.Input(tuple(input_shape), name="image")
    for layer in augment:
        outputs = layer(outputs)
    for layer in stack:
        outputs = _keras_layer(layer, layer_seed(seed, layer.name))(outputs)
    return keras.Model(images, outputs, name="cnn")


def _settings(model: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Check the names and types, and return the values of each block setting, one a block."""
    for name in (*_SCALARS, *_PER_BLOCK):
        if name not in model:
            raise UserError(f"model.{name} is missing")
    blocks = model["blocks"]
    if type(blocks) is not int or blocks < 1:
        raise UserError(f"model.blocks: {blocks!r} is not a positive integer")
    for name, kind in (("activation", str), ("batch_norm", bool)):
        if not isinstance(model[name], kind):
            raise UserError(f"model.{name}: {model[name]!r} is not a {kind.__name__}")
    settings = {name: _per_block(name, model[name], blocks) for name in _PER_BLOCK}
    _check_names("head", [model["head"]], HEADS)
    _check_names("padding", settings["padding"], PADDINGS)
    _check_names("pooling", settings["pooling"], POOLINGS)
    return settings


def _per_block(name: str, value: Any, blocks: int) -> Sequence[Any]:
    if type(value) in (int, str) or not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * blocks
    if len(value) != blocks:
        raise UserError(
            f"model.{name}: {len(value)} values {list(value)} for model.blocks={blocks}; "
            "give one value for all blocks, or one a block"
        )
    return value


def _check_names(key: str, values: Sequence[Any], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            raise unknown(f"model.{key}", value, allowed)


def _block(number: int, values: Mapping[str, Any], activation: str, batch_norm: bool) -> list[Layer]:
    name, part = f"block{number}", f"block {number}"
    conv = {key: values[key] for key in ("filters", "kernel_size", "stride", "dilation", "padding")}
    conv["use_bias"] = not batch_norm  # normalisation would take a bias out again
    block = [Layer("conv", f"{name}_conv", conv, part, _CONV_KEYS)]
    if batch_norm:
        block.append(Layer("batch_norm", f"{name}_norm"))
    block.append(Layer("activation", f"{name}_activation", {"function": activation}, part, _ACTIVATION_KEYS))
    if values["pooling"] != "none":
        size = values["pool_size"]
        pool = {"pool_size": size, "stride": size, "padding": "valid"}
        block.append(Layer(f"{values['pooling']}_pool", f"{name}_pool", pool, part, _POOL_KEYS))
    return block


def _head(model: Mapping[str, Any], classes: int) -> list[Layer]:
    kind = "flatten" if model["head"] == "flatten" else "global_average_pool"
    head = [Layer(kind, kind)]
    if model["dense_units"] != 0:
        dense = {"units": model["dense_units"], "use_bias": True, "activation": model["activation"]}
        head.append(Layer("dense", "dense", dense, "the dense layer", _DENSE_KEYS))
    if model["dropout"] != 0:
        head.append(Layer("dropout", "dropout", {"rate": model["dropout"]}, "dropout", _DROPOUT_KEYS))
    classifier = {"units": classes, "use_bias": True, "activation": "softmax"}
    return [*head, Layer("dense", "classifier", classifier, "the classifier", _CLASSIFIER_KEYS)]


def layer_seed(seed: int, name: str) -> int:
    """A seed for one layer that depends on no other layer, so adding one leaves the others' weights alone."""
    return random.Random(f"{seed} {name}").getrandbits(31)


def check_activation(name: str) -> None:
    from keras import activations

    try:
        activations.get(name)
    except ValueError:
        functions = set(dir(activations)) - {"get", "serialize", "deserialize", "glu"}
        known = [function for function in functions if not function.startswith("_")]
        raise unknown("model.activation", name, known) from None


def _keras_layer(layer: Layer, seed: int) -> keras.layers.Layer:
    from keras import layers as kl

    name, s = layer.name, layer.settings
    match layer.kind:
        case "rescaling":
            return kl.Rescaling(s["scale"], name=name)
        case "conv":
            return _conv(layer, seed)
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
        case "dropout":
            return kl.Dropout(s["rate"], seed=seed, name=name)
        case _:
            return _dense(layer, seed)


def _conv(layer: Layer, seed: int) -> keras.layers.Layer:
    from keras import initializers
    from keras import layers as kl

    s = layer.settings
    return kl.Conv2D(
        s["filters"],
        s["kernel_size"],
        strides=s["stride"],
        padding=s["padding"],
        dilation_rate=s["dilation"],
        use_bias=s["use_bias"],
        kernel_initializer=initializers.GlorotUniform(seed),
        name=layer.name,
    )


def _dense(layer: Layer, seed: int) -> keras.layers.Layer:
    from keras import initializers
    from keras import layers as kl

    s = layer.settings
    return kl.Dense(
        s["units"],
        activation=s["activation"],
        use_bias=s["use_bias"],
        kernel_initializer=initializers.GlorotUniform(seed),
        # Under a mixed-precision policy small probabilities would round to zero.
        dtype="float32" if layer.name == "classifier" else None,
        name=layer.name,
    )

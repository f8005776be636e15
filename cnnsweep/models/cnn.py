"""A stack of convolution blocks and a classifier head: as a list of layers, and as a Keras model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ModelConfig
from cnnsweep.config.validation import Float, Int, Sizes, validate, words
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers, measure

if TYPE_CHECKING:
    import keras

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "squareplus", "swish", "tanh",
)  # fmt: skip
"""The activations of Keras, listed here so that a wrong name is found without loading Keras."""

Family = TypeVar("Family", bound=ModelConfig)
_CONV = ("filters", "kernel_size", "stride", "dilation", "padding")
_RESCALING_KEYS = {"scale": "data.scale"}
_CONV_KEYS = {name: f"model.{name}" for name in _CONV}
_ACTIVATION_KEYS = {"function": "model.activation"}
_POOL_KEYS = {"pool_size": "model.pool_size", "stride": "model.pool_size"}
_DENSE_KEYS = {"units": "model.dense_units", "activation": "model.activation"}
_DROPOUT_KEYS = {"rate": "model.dropout"}
_CLASSIFIER_KEYS = {"units": "classes"}


class CnnConfig(ModelConfig):
    """A stack of blocks and a head; a block's settings are one value for all blocks, or a list with one a block."""

    takes: ClassVar[tuple[str, ...]] = ("image",)
    blocks: Int = Field(ge=1, le=100)
    filters: Sizes
    kernel_size: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Annotated[str | list[str], words("same", "valid", "causal")]
    pooling: Annotated[str | list[str], words("max", "average", "none")]
    pool_size: Sizes
    activation: Annotated[str, words(*ACTIVATIONS)]
    batch_norm: bool
    head: Literal["flatten", "average", "max"]
    dense_units: Int = Field(ge=0)
    dropout: Float = Field(ge=0, lt=1)

    def per_block(self, name: str) -> Sequence[int | str]:
        """The values of a setting of blocks, one a block. Raises UserError for a list of another length."""
        value = getattr(self, name)
        if not isinstance(value, list):
            return [value] * self.blocks
        if len(value) != self.blocks:
            raise UserError(
                f"model.{name}: {len(value)} values {value} for model.blocks={self.blocks}; "
                "give one value for all blocks, or one a block"
            )
        return value

    def describe(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - independent of what is searched
        """The network in a few characters: "32-64-96 k3 same max"."""

        def joined(name: str) -> str:
            value = getattr(self, name)
            each = [str(v) for v in (value[: self.blocks] if isinstance(value, list) else [value] * self.blocks)]
            return each[0] if len(set(each)) == 1 and name != "filters" else "-".join(each)

        stride = joined("stride")
        parts = [joined("filters"), f"k{joined('kernel_size')}", "" if stride == "1" else f"s{stride}"]
        return " ".join(part for part in (*parts, joined("padding"), joined("pooling")) if part)


def typed(family: type[Family], model: Family | Mapping[str, object]) -> Family:
    """A family's config; that of a user's own builder comes as a mapping, which may have more keys."""
    if isinstance(model, family):
        return model
    known = {"_target_", *family.model_fields}
    return validate("model", family, {key: value for key, value in dict(model).items() if key in known})


def _layers(
    model: CnnConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, scale: float = 1 / 255
) -> list[Layer]:
    """Return the network that a `model` config describes, from the rescaled input to class probabilities.

    `input_shape` is (height, width, channels). Raises UserError for a wrong number of values; `measure` checks the
    sizes.
    """
    if len(input_shape) != 3:
        raise UserError(f"a cnn takes images, height × width × channels; got the shape {tuple(input_shape)}")
    model = typed(CnnConfig, model)
    return [layer for index in range(model.blocks + 2) for layer in stage(model, index, classes, scale)]


def stage(model: CnnConfig | Mapping[str, object], index: int, classes: int, scale: float = 1 / 255) -> list[Layer]:
    """Return one part of `layers`: 0 is the rescaled input, then the blocks from 1, then the head."""
    if index == 0:
        return [Layer("rescaling", "rescaling", {"scale": scale}, "the input", _RESCALING_KEYS)]
    model = typed(CnnConfig, model)
    return _head(model, classes) if index > model.blocks else _block(model, index)


layers = StagedLayers(_layers, stage, frozenset({"model.head", "model.dense_units", "model.dropout"}))


@configured_by(CnnConfig)
def build(
    model: CnnConfig | Mapping[str, object],
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
    import keras

    images = outputs = keras.Input(tuple(input_shape), name="image")
    for layer in augment:
        outputs = layer(outputs)
    for layer in stack:
        outputs = keras_layer(layer, layer_seed(seed, layer.name))(outputs)
    return keras.Model(images, outputs, name="cnn")


def _block(model: CnnConfig, number: int) -> list[Layer]:
    name, part = f"block{number}", f"block {number}"
    # Normalisation would take a bias out again.
    conv = {**{key: model.per_block(key)[number - 1] for key in _CONV}, "use_bias": not model.batch_norm}
    pooling, size = (model.per_block(key)[number - 1] for key in ("pooling", "pool_size"))
    block = [Layer("conv", f"{name}_conv", conv, part, _CONV_KEYS)]
    if model.batch_norm:
        block.append(Layer("batch_norm", f"{name}_norm"))
    block.append(Layer("activation", f"{name}_activation", {"function": model.activation}, part, _ACTIVATION_KEYS))
    if pooling != "none":
        pool = {"pool_size": size, "stride": size, "padding": "valid"}
        block.append(Layer(f"{pooling}_pool", f"{name}_pool", pool, part, _POOL_KEYS))
    return block


def _head(model: CnnConfig, classes: int) -> list[Layer]:
    kind = {"flatten": "flatten", "average": "global_average_pool", "max": "global_max_pool"}[model.head]
    head = [Layer(kind, kind)]
    if model.dense_units != 0:
        dense = {"units": model.dense_units, "use_bias": True, "activation": model.activation}
        head.append(Layer("dense", "dense", dense, "the dense layer", _DENSE_KEYS))
    if model.dropout != 0:
        head.append(Layer("dropout", "dropout", {"rate": model.dropout}, "dropout", _DROPOUT_KEYS))
    classifier = {"units": classes, "use_bias": True, "activation": "softmax"}
    return [*head, Layer("dense", "classifier", classifier, "the classifier", _CLASSIFIER_KEYS)]


def layer_seed(seed: int, name: str) -> int:
    """A seed for one layer that depends on no other layer, so that adding one does not change the others' weights."""
    return random.Random(f"{seed} {name}").getrandbits(31)


def keras_layer(layer: Layer, seed: int) -> keras.layers.Layer:
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
            return kl.Dense(s["units"], s["activation"], s["use_bias"], start, dtype=dtype, name=name)

"""A stack of convolution blocks and a classifier head: as a list of layers, and as a Keras model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ModelConfig
from cnnsweep.config.validation import Counts, Float, Int, Sizes, validate, words
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted
from cnnsweep.geometry.network import Layer, StagedLayers, measure
from cnnsweep.models.blocks import KINDS, BlockSettings, block_layers
from cnnsweep.models.keras_layers import apply

if TYPE_CHECKING:
    import keras

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "squareplus", "swish", "tanh",
)  # fmt: skip
"""The activations of Keras, listed here so that a wrong name is found without loading Keras."""

Family = TypeVar("Family", bound=ModelConfig)
PER_BLOCK = ("block", "repeats", "filters", "kernel_size", "stride", "dilation", "padding", "pooling", "pool_size")
_RESCALING_KEYS = {"scale": "data.scale"}
_DENSE_KEYS = {"units": "model.dense_units", "activation": "model.activation"}
_DROPOUT_KEYS = {"rate": "model.dropout"}
_CLASSIFIER_KEYS = {"units": "classes"}


class CnnConfig(ModelConfig):
    """A stack of blocks and a head; a block's settings are one value for all blocks, or a list with one a block."""

    takes: ClassVar[tuple[str, ...]] = ("image",)
    blocks: Int = Field(ge=1, le=100)
    block: Annotated[str | list[str], words(*KINDS)]
    repeats: Counts
    filters: Sizes
    kernel_size: Sizes
    stride: Sizes
    dilation: Sizes
    padding: Annotated[str | list[str], words("same", "valid", "causal")]
    pooling: Annotated[str | list[str], words("max", "average", "none")]
    pool_size: Sizes
    activation: Annotated[str, words(*ACTIVATIONS)]
    batch_norm: bool
    expansion: Int = Field(ge=1)
    squeeze_excite: Int = Field(ge=0)
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
                f"model.{name}: {counted(len(value), 'value')} {value} for model.blocks={self.blocks}; "
                "give one value for all blocks, or one a block"
            )
        return value

    @property
    def title(self) -> str:
        """What kind of network it is."""
        return "a convolutional network"

    def describe(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - independent of what is searched
        """The network in a few characters: "32-64-96 k3 same max"."""

        def joined(name: str) -> str:
            value = getattr(self, name)
            each = [str(v) for v in (value[: self.blocks] if isinstance(value, list) else [value] * self.blocks)]
            return each[0] if len(set(each)) == 1 and name != "filters" else "-".join(each)

        def unless(usual: str, name: str, sign: str = "") -> str:
            return "" if joined(name) == usual else f"{sign}{joined(name)}"

        kinds = (unless("plain", "block"), unless("1", "repeats", "×"))
        sizes = (joined("filters"), f"k{joined('kernel_size')}", unless("1", "stride", "s"))
        return " ".join(part for part in (*kinds, *sizes, joined("padding"), joined("pooling")) if part)


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
    if index > model.blocks:
        return _head(model, classes)
    settings: dict[str, Any] = {name: model.per_block(name)[index - 1] for name in PER_BLOCK}
    whole = {name: getattr(model, name) for name in ("activation", "batch_norm", "expansion", "squeeze_excite")}
    return block_layers(f"block{index}", f"block {index}", BlockSettings(**settings, **whole))


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
        outputs = apply(layer, outputs, seed)
    return keras.Model(images, outputs, name="cnn")


def _head(model: CnnConfig, classes: int) -> list[Layer]:
    kind = "flatten" if model.head == "flatten" else f"global_{model.head}_pool"
    head = [Layer(kind, kind)]
    if model.dense_units != 0:
        dense = {"units": model.dense_units, "use_bias": True, "activation": model.activation}
        head.append(Layer("dense", "dense", dense, "the dense layer", _DENSE_KEYS))
    if model.dropout != 0:
        head.append(Layer("dropout", "dropout", {"rate": model.dropout}, "dropout", _DROPOUT_KEYS))
    classifier = {"units": classes, "use_bias": True, "activation": "softmax"}
    return [*head, Layer("dense", "classifier", classifier, "the classifier", _CLASSIFIER_KEYS)]

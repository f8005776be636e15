"""An encoder and a decoder with skip connections (U-Net, Ronneberger et al. 2015): a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ModelConfig
from cnnsweep.config.tasks import Task
from cnnsweep.config.validation import Float, Int, Sizes, words
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted
from cnnsweep.geometry.network import Layer, measure
from cnnsweep.models.cnn import ACTIVATIONS, typed
from cnnsweep.models.keras_layers import layer_seed

if TYPE_CHECKING:
    import keras

_CONV_KEYS = {"filters": "model.filters", "kernel_size": "model.kernel_size"}


class UnetConfig(ModelConfig):
    """Blocks of convolutions, each followed by max pooling, a bottleneck, and the same blocks upwards."""

    takes: ClassVar[tuple[str, ...]] = ("image",)
    fits: ClassVar[tuple[Task, ...]] = ("segmentation",)

    blocks: Int = Field(ge=1, le=8)
    filters: Sizes
    kernel_size: Sizes
    convolutions: Int = Field(ge=1, le=4)
    bottleneck: Int = Field(ge=1)
    activation: Annotated[str, words(*ACTIVATIONS)]
    batch_norm: bool
    dropout: Float = Field(ge=0, lt=1)

    def of_block(self, name: str, number: int) -> int:
        """A setting of a block, counted from 1. Raises UserError for a list of another length."""
        value = getattr(self, name)
        if not isinstance(value, list):
            return int(value)
        if len(value) != self.blocks:
            raise UserError(
                f"model.{name}: {counted(len(value), 'value')} {value} for model.blocks={self.blocks}; "
                "give one value for all blocks, or one a block"
            )
        return int(value[number - 1])

    @property
    def title(self) -> str:
        """What kind of network it is."""
        return "a U-Net"

    def describe(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - independent of what is searched
        """The network in a few characters: "unet 16-32 bottleneck 64 k3"."""
        value = self.filters
        filters = [str(v) for v in (value[: self.blocks] if isinstance(value, list) else [value] * self.blocks)]
        sizes = self.kernel_size if isinstance(self.kernel_size, list) else [self.kernel_size]
        kernels = "-".join(map(str, sizes)) if len(set(sizes)) > 1 else str(sizes[0])
        return f"unet {'-'.join(filters)} bottleneck {self.bottleneck} k{kernels}"


def layers(
    model: UnetConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, scale: float = 1 / 255
) -> list[Layer]:
    """Return the network of a `model` config, from the rescaled input to the class probabilities of each pixel.

    Sizes that are no multiples of a power of two are rounded up by the pooling, and cropped after each upsampling.
    `input_shape` is (height, width, channels). Raises UserError for a wrong number of values.
    """
    if len(input_shape) != 3:
        raise UserError(f"a unet takes images, height × width × channels; got the shape {tuple(input_shape)}")
    model = typed(UnetConfig, model)
    stack = [Layer("rescaling", "rescaling", {"scale": scale}, "the input", {"scale": "data.scale"})]
    sizes = [(int(input_shape[0]), int(input_shape[1]))]
    for number in range(1, model.blocks + 1):
        stack += _convolutions(model, f"block{number}", model.of_block("filters", number), number)
        pool = {"pool_size": 2, "stride": 2, "padding": "same"}
        stack.append(Layer("max_pool", f"block{number}_pool", pool, f"block {number}"))
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    stack += _convolutions(model, "bottleneck", model.bottleneck, model.blocks)
    if model.dropout:
        stack.append(Layer("dropout", "dropout", {"rate": model.dropout}, "dropout", {"rate": "model.dropout"}))
    for number in range(model.blocks, 0, -1):
        name, filters = f"up{number}", model.of_block("filters", number)
        (height, width), below = sizes[number - 1], sizes[number]
        stack.append(Layer("upsample", f"{name}_upsample", {"size": 2}))
        if (height, width) != (2 * below[0], 2 * below[1]):
            stack.append(Layer("crop", f"{name}_crop", {"height": height, "width": width}))
        stack.append(Layer("concatenate", f"{name}_concatenate", {"block": number, "channels": filters}))
        stack += _convolutions(model, name, filters, number)
    last = {"units": classes, "use_bias": True, "activation": "softmax"}
    return [*stack, Layer("dense", "classifier", last, "the classifier", {"units": "classes"})]


@configured_by(UnetConfig)
def build(
    model: UnetConfig | Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),  # noqa: ARG001
    *,
    seed: int,
) -> keras.Model:
    """Build the uncompiled Keras model of a `model` config, layer by layer as `layers` has it.

    Images of shape `input_shape` go in, float32 class probabilities (height, width, classes) come out. Initial weights
    and dropout derive from `seed` and the layers' names alone. `augment` is empty: it would change images without their
    masks. Raises GeometryError where a layer does not fit.
    """
    stack = layers(model, input_shape, classes, scale)
    measure(stack, input_shape)
    import keras

    images = outputs = keras.Input(tuple(input_shape), name="image")
    skips: dict[int, keras.KerasTensor] = {}
    for layer in stack:
        match layer.kind:
            case "max_pool":
                skips[len(skips) + 1] = outputs
                outputs = _keras_layer(layer, seed)(outputs)
            case "concatenate":
                outputs = keras.layers.Concatenate(name=layer.name)([skips[layer.settings["block"]], outputs])
            case "crop":
                over = [outputs.shape[i + 1] - layer.settings[side] for i, side in enumerate(("height", "width"))]
                outputs = keras.layers.Cropping2D([(0, over[0]), (0, over[1])], name=layer.name)(outputs)
            case _:
                outputs = _keras_layer(layer, seed)(outputs)
    return keras.Model(images, outputs, name="unet")


def _convolutions(model: UnetConfig, name: str, filters: int, block: int) -> list[Layer]:
    found, part = [], "the bottleneck" if name == "bottleneck" else f"block {block}"
    keys = {"filters": "model.bottleneck"} if name == "bottleneck" else {}
    for number in range(1, model.convolutions + 1):
        place = f"{name}_{number}" if model.convolutions > 1 else name
        size = model.of_block("kernel_size", block)
        conv = {"filters": filters, "kernel_size": size, "padding": "same", "use_bias": not model.batch_norm}
        found.append(Layer("conv", f"{place}_conv", conv, part, _CONV_KEYS | keys))
        if model.batch_norm:
            found.append(Layer("batch_norm", f"{place}_norm"))
        function = {"function": model.activation}
        found.append(Layer("activation", f"{place}_activation", function, part, {"function": "model.activation"}))
    return found


def _keras_layer(layer: Layer, seed: int) -> keras.layers.Layer:
    from keras import initializers
    from keras import layers as kl

    name, s = layer.name, layer.settings
    start = initializers.GlorotUniform(layer_seed(seed, name))
    match layer.kind:
        case "rescaling":
            return kl.Rescaling(s["scale"], name=name, dtype="float32")
        case "conv":
            common = {"padding": "same", "use_bias": s["use_bias"], "kernel_initializer": start}
            return kl.Conv2D(s["filters"], s["kernel_size"], **common, name=name)
        case "batch_norm":
            return kl.BatchNormalization(name=name)
        case "activation":
            return kl.Activation(s["function"], name=name)
        case "max_pool":
            return kl.MaxPooling2D(2, padding="same", name=name)
        case "upsample":
            return kl.UpSampling2D(s["size"], name=name)
        case "dropout":
            return kl.Dropout(s["rate"], seed=layer_seed(seed, name), name=name)
        case _:
            # Under a mixed-precision policy small probabilities would round to zero.
            return kl.Dense(s["units"], s["activation"], kernel_initializer=start, dtype="float32", name=name)

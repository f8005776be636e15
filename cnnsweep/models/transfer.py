"""A pre-trained backbone and a new head, as one Keras model that takes images, or the head alone."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import Config, ModelConfig
from cnnsweep.config.validation import Float, Int, words
from cnnsweep.data.mnist import cache_folders, stall_limit
from cnnsweep.errors import UserError, nearest
from cnnsweep.models.backbone_weights import load_file
from cnnsweep.models.cnn import ACTIVATIONS, typed
from cnnsweep.models.keras_layers import layer_seed

if TYPE_CHECKING:
    import keras

BACKBONES = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge", "DenseNet121", "DenseNet169",
    "DenseNet201", "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3", "EfficientNetB4",
    "EfficientNetB5", "EfficientNetB6", "EfficientNetB7", "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2",
    "EfficientNetV2B3", "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S", "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetLarge", "NASNetMobile", "ResNet101",
    "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2", "VGG16", "VGG19", "Xception",
)  # fmt: skip
"""The networks of keras.applications, listed here so that a wrong name is found without loading Keras."""

RANDOM_SEED = 0
"""Seed of a backbone with `weights: none`: the same for all trials, since they share its features."""


class TransferConfig(ModelConfig):
    """A backbone and a head."""

    takes: ClassVar[tuple[str, ...]] = ("image",)
    head_builder: ClassVar[str] = "cnnsweep.models.transfer.build_head"
    """The function that builds the part after the pooling."""
    backbone: Annotated[str, words(*BACKBONES)]
    weights: str
    cut: str | None
    input_size: Int | None = Field(ge=1)
    pooling: Literal["average", "max", "flatten"]
    dense_layers: Int = Field(ge=0)
    dense_units: Int = Field(ge=1)
    activation: Annotated[str, words(*ACTIVATIONS)]
    dropout: Float = Field(ge=0, lt=1)
    cache: str | None

    @property
    def backbone_name(self) -> str:
        """The backbone with its cut: "MobileNet at conv_pw_12_relu"."""
        return f"{self.backbone} at {self.cut}" if self.cut else self.backbone

    @property
    def title(self) -> str:
        """What kind of network it is."""
        return f"a {'' if self.weights == 'none' else 'pre-trained '}{self.backbone} with a new head"

    def describe(self, values: Mapping[str, object]) -> str:
        """The network in a few characters: "MobileNet average 128"; its cut too if that is searched."""
        cut = self.cut if "model.cut" in values else None
        head = "-".join([str(self.dense_units)] * self.dense_layers) or "no dense"
        return " ".join(part for part in (self.backbone, cut, self.pooling, head) if part)


def settings(config: Config) -> TransferConfig:
    """The model of a config with model=transfer, or of a user's own model with the same keys."""
    return typed(TransferConfig, config.model.argument())


@configured_by(TransferConfig)
def build(
    model: TransferConfig | Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),
    *,
    seed: int,
) -> keras.Model:
    """Build the whole uncompiled model of a `model` config, its backbone frozen and in inference mode.

    Images of `input_shape` go in, whose values times `scale` are 0..1; float32 class probabilities come out. The
    parts are the layers "backbone", "pooling" and "head". Raises UserError for settings that do not fit together.
    """
    return connect(typed(TransferConfig, model), build_head, input_shape, classes, scale, augment, seed)


def connect(
    model: TransferConfig,
    make_head: Callable[..., keras.Model],
    input_shape: Sequence[int],
    classes: int,
    scale: float,
    augment: Sequence[keras.layers.Layer],
    seed: int,
) -> keras.Model:
    """Build the whole model with a head of `make_head`."""
    import keras

    images = outputs = keras.Input(tuple(input_shape), name="image")
    for layer in augment:
        outputs = layer(outputs)
    (features,) = all_features(model, outputs, scale, [model.pooling])
    head = make_head(model, features.shape[1:], classes, seed=seed)
    keras.utils.set_random_seed(seed)  # a random backbone has set its own
    return keras.Model(images, head(features), name="transfer")


def build_head(
    model: TransferConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, *, seed: int, **_: object
) -> keras.Model:
    """Build the part after the pooling: features (height, width, channels) in, probabilities out.

    Its weights derive from `seed` and are those of the head in `build`.
    """
    from keras import layers

    model = typed(TransferConfig, model)
    return finish_head(model, input_shape, classes, seed, [layers.Flatten(name="flatten")])


def finish_head(
    model: TransferConfig, input_shape: Sequence[int], classes: int, seed: int, stack: list[keras.layers.Layer]
) -> keras.Model:
    """Build a head that begins with some layers, which make numbers of the features; dense layers follow."""
    import keras
    from keras import layers

    def dense(units: int, name: str, activation: str, dtype: str | None = None) -> keras.layers.Layer:
        start = keras.initializers.GlorotUniform(layer_seed(seed, name))
        return layers.Dense(units, activation=activation, kernel_initializer=start, name=name, dtype=dtype)

    for number in range(model.dense_layers + 1):
        if number:
            stack.append(dense(model.dense_units, f"dense{number}", model.activation))
        if model.dropout:
            name = f"dropout{number}"
            stack.append(layers.Dropout(model.dropout, seed=layer_seed(seed, name), name=name))
    stack.append(dense(classes, "classifier", "softmax", dtype="float32"))
    features = outputs = keras.Input(tuple(input_shape), name="features")
    for layer in stack:
        outputs = layer(outputs)
    return keras.Model(features, outputs, name="head")


def all_features(
    model: TransferConfig, images: keras.KerasTensor, scale: float, kinds: Sequence[str]
) -> list[keras.KerasTensor]:
    """The head's inputs for images or videos, one for each pooling.

    These are 1×1×channels of an image, or its maps as they are; of a video a row for each frame.
    """
    from keras import ops

    *frames, height, width, channels = images.shape[1:]
    if frames:  # the backbone sees them as so many images
        images = ops.reshape(images, (-1, height, width, channels))
    maps = backbone_maps(model, images, scale)
    features = [pooled(maps, kind) for kind in kinds]
    return [ops.reshape(found, (-1, *frames, prod(found.shape[1:]))) for found in features] if frames else features


def backbone_maps(model: TransferConfig, images: keras.KerasTensor, scale: float) -> keras.KerasTensor:
    """Send images through resizing, preprocessing and the frozen backbone; returns its maps."""
    from keras import layers

    *shape, channels = images.shape[1:]
    size = input_size(model, (*shape, channels))
    if abs(255 * scale - 1) > 1e-6:
        images = layers.Rescaling(255 * scale, name="to_255", dtype="float32")(images)
    if size != tuple(shape):
        images = layers.Resizing(*size, name="resize", dtype="float32")(images)
    if channels == 1:
        images = layers.Concatenate(name="grey_to_rgb", dtype="float32")([images, images, images])
    for layer in preprocessing(model.backbone):
        images = layer(images)
    backbone = build_backbone(model, size)
    backbone.trainable = False
    return backbone(images, training=False)


def pooled(maps: keras.KerasTensor, kind: str) -> keras.KerasTensor:
    """Reduce feature maps to the head's input: 1×1×channels, or the maps as they are."""
    from keras import layers

    if kind == "flatten":
        return maps
    pool = layers.GlobalAveragePooling2D if kind == "average" else layers.GlobalMaxPooling2D
    return pool(keepdims=True, name=f"{kind}_pooling")(maps)


def build_backbone(model: TransferConfig, size: tuple[int, int]) -> keras.Model:
    """Build a `model` config's backbone with its weights up to its cut, for RGB images of `size` (height, width).

    Values 0..255 go in after `preprocessing`; the output of the layer `cut` comes out. Raises UserError for an unknown
    layer, images that are too small, and weights that are missing or do not fit.
    """
    import keras

    whole, cut = _application(model, size), model.cut
    names = [layer.name for layer in whole.layers]
    if cut is not None and cut not in names:
        raise UserError(f"model.cut: {model.backbone} has no layer '{cut}'{nearest(cut, names)} "
                        f"(its last layers: {', '.join(names[-6:])})")  # fmt: skip
    output = whole.output if cut is None else whole.get_layer(cut).output
    if len(output.shape) != 4:
        raise UserError(f"model.cut: '{cut}' of {model.backbone} gives no feature maps, but {output.shape[1:]}")
    return keras.Model(whole.input, output, name="backbone")


def preprocessing(name: str) -> list[keras.layers.Layer]:
    """Layers with the effect of the application's own `preprocess_input` on RGB values 0..255.

    They are Keras' own layers, so that a saved model does not need this package; the function's effect is found by
    applying it to single pixels.
    """
    import keras
    from keras import layers, ops

    function = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
    offset = _apply(function, np.zeros(3))
    matrix = np.stack([_apply(function, 255 * unit) - offset for unit in np.eye(3)]) / 255
    made: list[keras.layers.Layer | Callable[[keras.KerasTensor], keras.KerasTensor]] = []
    if np.array_equal(matrix != 0, np.fliplr(np.eye(3)) != 0):
        made.append(lambda images: ops.flip(images, axis=-1))
        matrix = np.fliplr(matrix)
    elif not np.array_equal(matrix != 0, np.eye(3) != 0):
        raise UserError(f"model.backbone: the preprocessing of {name} mixes channels, which a layer here cannot do")
    if not np.allclose(matrix, np.eye(3), atol=1e-6) or offset.any():
        scale, shift = (np.asarray(v, float).round(12).tolist() for v in (matrix.diagonal(), offset))
        made.append(layers.Rescaling(scale, shift, name="preprocessing", dtype="float32"))
    return made


def _apply(function: Callable[[np.ndarray], np.ndarray], pixel: np.ndarray) -> np.ndarray:
    # A copy each time: some of these functions work in place.
    return np.asarray(function(pixel.astype("float64").reshape(1, 1, 1, 3).copy()))[0, 0, 0]


def _application(model: TransferConfig, size: tuple[int, int]) -> keras.Model:
    import keras

    name, weights = model.backbone, model.weights
    if weights == "none":
        keras.utils.set_random_seed(RANDOM_SEED)
    ready_made = "imagenet" if weights == "imagenet" else None
    try:
        with stall_limit(), warnings.catch_warnings():
            if ready_made:
                warnings.simplefilter("ignore")  # that the weights were made for 224×224
            make = getattr(keras.applications, name)
            built = make(include_top=False, weights=ready_made, input_shape=(*size, 3))
    except ValueError as error:
        raise UserError(f"model.input_size: {name} cannot take {size[0]}×{size[1]} images: {error}") from error
    except Exception as error:  # Keras raises a bare Exception for a failed download
        if not ready_made:
            raise
        address = next((w.rstrip(":") for w in str(error).split() if w.startswith("http")), "")
        place = cache_folders()[0].parent / "models" / (address.rpartition("/")[2] or "…")
        raise UserError(
            f"model.weights=imagenet: {name}'s weights are not in Keras' cache and cannot be downloaded "
            f"({str(error).rpartition('-- ')[2]}). Download {address or 'them'} elsewhere and place the file at "
            f"{place}, or name a file with model.weights=FILE; model.weights=none starts from random weights"
        ) from error
    if weights not in ("imagenet", "none"):
        load_file(built, name, weights)
    return built


def input_size(model: TransferConfig, input_shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) of the backbone's input. Raises UserError for images of other than 1 or 3 channels."""
    if input_shape[-1] not in (1, 3):
        raise UserError(f"model=transfer takes grey or colour images, not {input_shape[-1]} channels")
    side = model.input_size
    return (side, side) if side else (int(input_shape[-3]), int(input_shape[-2]))

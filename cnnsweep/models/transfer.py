"""A pre-trained backbone and a head of our own, as one Keras model that takes images, or the head alone."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnsweep.errors import UserError
from cnnsweep.models.backbone import build_backbone, preprocessing
from cnnsweep.models.cnn import check_activation, layer_seed
from cnnsweep.models.fine_tuning import chosen_layers, is_off
from cnnsweep.search_space import space as spaces
from cnnsweep.trial import Inspection

if TYPE_CHECKING:
    import keras

STRUCTURE = ("model.backbone", "model.weights", "model.cut", "model.input_size", "training.unfreeze")
"""The keys that decide whether there is such a network at all; all others concern the head."""


@dataclass(frozen=True)
class Facts:
    """A backbone as it was built."""

    maps: tuple[int, int, int]
    """(height, width, channels) of its output."""
    parameters: int
    layers: int


def build(
    model: Mapping[str, Any],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),
    *,
    seed: int,
) -> keras.Model:
    """Build the whole uncompiled model of a `model` config, its backbone frozen and in inference mode.

    Images of `input_shape` go in, whose values times `scale` are 0..1; float32 class probabilities come out. The
    parts are the layers "backbone", "pooling" and "head". Raises UserError for what does not fit together.
    """
    import keras

    images = outputs = keras.Input(tuple(input_shape), name="image")
    for layer in augment:
        outputs = layer(outputs)
    maps = backbone_maps(model, outputs, scale)
    features = pooled(maps, model["pooling"])
    head = build_head(model, features.shape[1:], classes, seed=seed)
    keras.utils.set_random_seed(seed)  # a random backbone has set its own
    return keras.Model(images, head(features), name="transfer")


def build_head(
    model: Mapping[str, Any], input_shape: Sequence[int], classes: int, *, seed: int, **_: Any
) -> keras.Model:
    """Build the part after the pooling: features (height, width, channels) in, probabilities out.

    Its weights derive from `seed` and are those of the head in `build`.
    """
    import keras
    from keras import layers

    check_activation(model["activation"])

    def dense(units: int, name: str, activation: str, **settings: Any) -> Any:
        start = keras.initializers.GlorotUniform(layer_seed(seed, name))
        return layers.Dense(units, activation=activation, kernel_initializer=start, name=name, **settings)

    def drop(number: int) -> list[Any]:
        name, rate = f"dropout{number}", model["dropout"]
        return [layers.Dropout(rate, seed=layer_seed(seed, name), name=name)] if rate else []

    stack = [layers.Flatten(name="flatten"), *drop(0)]
    for number in range(1, model["dense_layers"] + 1):
        stack += [dense(model["dense_units"], f"dense{number}", model["activation"]), *drop(number)]
    stack.append(dense(classes, "classifier", "softmax", dtype="float32"))
    features = outputs = keras.Input(tuple(input_shape), name="features")
    for layer in stack:
        outputs = layer(outputs)
    return keras.Model(features, outputs, name="head")


def backbone_maps(model: Mapping[str, Any], images: Any, scale: float) -> Any:
    """Send images (a Keras tensor) through resizing, preprocessing and the frozen backbone; returns its maps."""
    from keras import layers

    *shape, channels = images.shape[1:]
    if channels not in (1, 3):
        raise UserError(f"model=transfer takes grey or colour images, not {channels} channels")
    size = input_size(model, (*shape, channels))
    if abs(255 * scale - 1) > 1e-6:
        images = layers.Rescaling(255 * scale, name="to_255")(images)
    if size != tuple(shape):
        images = layers.Resizing(*size, name="resize")(images)
    if channels == 1:
        images = layers.Concatenate(name="grey_to_rgb")([images, images, images])
    for layer in preprocessing(model["backbone"]):
        images = layer(images)
    backbone = build_backbone(model, size)
    backbone.trainable = False
    return backbone(images, training=False)


def pooled(maps: Any, kind: str) -> Any:
    """Reduce feature maps (a Keras tensor) to what the head gets: 1×1×channels, or the maps as they are."""
    from keras import layers

    if kind == "flatten":
        return maps
    pool = layers.GlobalAveragePooling2D if kind == "average" else layers.GlobalMaxPooling2D
    return pool(keepdims=True, name=f"{kind}_pooling")(maps)


def input_size(model: Mapping[str, Any], input_shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) of what the backbone gets."""
    side = model["input_size"]
    return (side, side) if side else (int(input_shape[0]), int(input_shape[1]))


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: build every backbone that the sweep may use and return what is wrong, one line a fault."""
    faults: dict[str, None] = {}
    for config in structures(inspection.config):
        try:
            inspect(config, inspection.input_shape)
        except UserError as error:
            faults[str(error)] = None
    return list(faults)
    yield


def inspect(config: Mapping[str, Any], input_shape: tuple[int, int, int]) -> Facts:
    """Build the backbone of one configuration. Raises UserError where that, or its unfreezing, is not possible."""
    backbone = build_backbone(config["model"], input_size(config["model"], input_shape))
    if not is_off(config["training"]["unfreeze"]):
        chosen_layers(backbone, config["training"]["unfreeze"])
    height, width, channels = backbone.output.shape[1:]
    return Facts((height, width, channels), backbone.count_params(), len(backbone.layers))


def structures(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The configurations of a sweep that differ in more than their heads, one of each."""
    chosen = []
    for p in spaces.read(config).parameters:
        if p.name in STRUCTURE:
            when = tuple((name, allowed) for name, allowed in p.when if name in STRUCTURE)
            chosen.append(spaces.Parameter(p.name, p.choices, p.low, p.high, p.step, p.log, p.integer, when))
    return [spaces.apply(config, values) for values in spaces.Space(tuple(chosen)).enumerate()]

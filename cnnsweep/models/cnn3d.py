"""Convolution blocks over time, height and width, for videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from cnnsweep.config.components import configured_by
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers
from cnnsweep.models import cnn
from cnnsweep.models.cnn import CnnConfig, typed
from cnnsweep.models.sequence_layers import connect, plain

if TYPE_CHECKING:
    import keras


class Cnn3dConfig(CnnConfig):
    """The blocks of `CnnConfig`; kernels and pools are as long in time as they are high and wide."""

    takes: ClassVar[tuple[str, ...]] = ("video",)


def _layers(
    model: Cnn3dConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, scale: float = 1 / 255
) -> list[Layer]:
    """Return the network of a `model` config, for `input_shape` (frames, height, width, channels)."""
    if len(input_shape) != 4:
        shape = tuple(input_shape)
        raise UserError(f"a cnn3d takes videos, frames × height × width × channels; got the shape {shape}")
    model = typed(Cnn3dConfig, model)
    return plain([layer for index in range(model.blocks + 2) for layer in cnn.stage(model, index, classes, scale)])


layers = StagedLayers(_layers, cnn.stage, cnn.layers.head)


@configured_by(Cnn3dConfig)
def build(
    model: Cnn3dConfig | Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1 / 255,
    augment: Sequence[keras.layers.Layer] = (),
    *,
    seed: int,
) -> keras.Model:
    """Build the uncompiled Keras model: (frames, height, width, channels) in, float32 class probabilities out.

    Initial weights and dropout derive from `seed` and the layers' names alone. Raises GeometryError where a layer does
    not fit its input.
    """
    return connect(layers(model, input_shape, classes, scale), input_shape, augment, seed, "cnn3d")

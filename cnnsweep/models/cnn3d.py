"""Convolution blocks over time, height and width, for videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers
from cnnsweep.models import cnn
from cnnsweep.models.cnn import CnnConfig, typed
from cnnsweep.models.sequence_layers import builder, plain


class Cnn3dConfig(CnnConfig):
    """The blocks of `CnnConfig`; kernels and pools are as long in time as they are high and wide."""

    takes: ClassVar[tuple[str, ...]] = ("video",)

    @property
    def title(self) -> str:
        """What kind of network it is."""
        return "a convolutional network over time, height and width"


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
build = builder(Cnn3dConfig, layers, "cnn3d", 1 / 255)

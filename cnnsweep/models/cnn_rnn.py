"""Convolution blocks, then recurrent layers over time: for signals and texts, and for videos frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from cnnsweep.config.validation import Int
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers
from cnnsweep.models import cnn
from cnnsweep.models.cnn import typed
from cnnsweep.models.cnn1d import Cnn1dConfig, stem
from cnnsweep.models.sequence_layers import builder, over_time, plain

_RECURRENT = {"units": "model.recurrent_units"}
BY_FRAME = ("conv", "max_pool", "average_pool")
"""Layers that can see one frame at a time."""


class CnnRnnConfig(Cnn1dConfig):
    """The blocks of `Cnn1dConfig` or, with `each_frame`, of each frame of a video, and recurrent layers."""

    takes: ClassVar[tuple[str, ...]] = ("signal", "text", "video")
    each_frame: bool
    recurrent: Literal["lstm", "gru", "none"]
    recurrent_units: Int = Field(ge=1)
    recurrent_layers: Int = Field(ge=1, le=20)
    bidirectional: bool

    def check_input(self, kind: str) -> None:
        """Raise UserError also for videos without `each_frame`, and for others with it."""
        super().check_input(kind)
        if (kind == "video") != self.each_frame:
            value = str(self.each_frame).lower()
            needed = str(kind == "video").lower()
            raise UserError(f"model.each_frame: {value}, but the data are {kind}s: set {needed}")

    @property
    def title(self) -> str:
        """What kind of network it is: "a convolutional network on each frame with a GRU over time"."""
        blocks = "a convolutional network on each frame" if self.each_frame else super().title
        return f"{blocks} with {over_time(self.recurrent, self.bidirectional)}"

    def describe(self, values: Mapping[str, object]) -> str:
        """The network in a few characters: "mel 32-64 k3 same max gru64"."""
        blocks = super().describe(values).removeprefix("waveform " if self.each_frame else "")
        if self.recurrent == "none":
            return f"{blocks} {self.head}"
        return f"{blocks} {'bi' if self.bidirectional else ''}{self.recurrent}{self.recurrent_units}"


def _layers(
    model: CnnRnnConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, scale: float = 1.0
) -> list[Layer]:
    """Return the network of a `model` config, from the input to class probabilities.

    `input_shape` is (steps, channels), (words, vocabulary) or, with `each_frame`, (frames, height, width, channels).
    """
    model = typed(CnnRnnConfig, model)
    if len(input_shape) != (4 if model.each_frame else 2):
        wanted = "frames × height × width × channels" if model.each_frame else "steps × channels"
        raise UserError(f"this cnn_rnn takes {wanted}; got the shape {tuple(input_shape)}")
    return plain([layer for index in range(model.blocks + 2) for layer in stage(model, index, classes, scale)])


def stage(model: CnnRnnConfig | Mapping[str, object], index: int, classes: int, scale: float = 1.0) -> list[Layer]:
    """Return one part of `layers`: 0 is the representation, then the blocks from 1, then recurrence and head."""
    model = typed(CnnRnnConfig, model)
    if index == 0:
        return cnn.stage(model, 0, classes, scale) if model.each_frame else stem(model, scale)
    found = cnn.stage(model, index, classes, scale)
    if index > model.blocks:
        return [*_recurrent(model), *(found if model.recurrent == "none" else found[1:])]
    return [_by_frame(layer) for layer in found] if model.each_frame else found


def _by_frame(layer: Layer) -> Layer:
    if layer.kind in BY_FRAME:
        return replace(layer, settings={**layer.settings, "each_frame": True})
    if layer.kind in ("batch_norm", "activation", "dropout"):
        return layer
    raise UserError(f"model.each_frame: {layer.kind} layers cannot be used on each frame of a video")


def _recurrent(model: CnnRnnConfig) -> list[Layer]:
    """All positions but time become channels; then the recurrent layers, the last of which gives its last state."""
    is_deep = model.each_frame or (model.axes == 2 and model.representation != "waveform" and not model.embedding)
    merge = [Layer("merge_channels", "merge_channels")] if is_deep else []
    if model.recurrent == "none":
        return merge
    settings = {"units": model.recurrent_units, "bidirectional": model.bidirectional}
    numbers = range(1, model.recurrent_layers + 1)
    found = []
    for number in numbers:
        each = {**settings, "return_sequences": number < model.recurrent_layers}
        found.append(Layer(model.recurrent, f"recurrent{number}", each, f"recurrent layer {number}", _RECURRENT))
    return [*merge, *found]


_HEAD = ("recurrent", "recurrent_units", "recurrent_layers", "bidirectional")
layers = StagedLayers(_layers, stage, cnn.layers.head | {f"model.{key}" for key in _HEAD})
build = builder(CnnRnnConfig, layers, "cnn_rnn")

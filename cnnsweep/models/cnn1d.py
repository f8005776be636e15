"""Convolution blocks over time, for signals and texts: on the waveform, a spectrogram or an embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from cnnsweep.config.inputs import refuse_input
from cnnsweep.config.validation import Float, Int
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, StagedLayers
from cnnsweep.models import cnn
from cnnsweep.models.cnn import CnnConfig, typed
from cnnsweep.models.sequence_layers import builder, embedded, plain

_SPECTROGRAM = {name: f"model.{name}" for name in ("frame", "step", "mels", "rate")}


class Cnn1dConfig(CnnConfig):
    """The blocks of `CnnConfig`, and how a signal or a text becomes their input."""

    takes: ClassVar[tuple[str, ...]] = ("signal", "text")
    representation: Literal["waveform", "spectrogram", "mel"]
    frame: Int = Field(ge=2)
    step: Int = Field(ge=1)
    mels: Int = Field(ge=1)
    rate: Int = Field(ge=1)
    axes: Literal[1, 2]
    embedding: Int = Field(ge=0)
    embedding_dropout: Float = Field(ge=0, lt=1)

    def check_input(self, kind: str) -> None:
        """Raise UserError for other inputs, for texts without an embedding, and for signals with one."""
        refuse_input(kind, self.takes)
        if kind == "text" and not self.embedding:
            raise UserError("model.embedding: 0, but the data are texts, whose words need one, such as 64")
        if kind != "text" and self.embedding:
            raise UserError(f"model.embedding: {self.embedding}, which is for texts, but the data are {kind}s: set 0")

    @property
    def title(self) -> str:
        """What kind of network it is: "a convolutional network on mel spectrograms"."""
        spectrogram = {"spectrogram": "spectrograms", "mel": "mel spectrograms"}.get(self.representation, "waveforms")
        return f"a convolutional network on {'words' if self.embedding else spectrogram}"

    def describe(self, values: Mapping[str, object]) -> str:
        """The network in a few characters: "mel 32-64 k3 same max"."""
        before = f"e{self.embedding}" if self.embedding else self.representation
        return f"{before}{' 2d' if self.axes == 2 and before != 'waveform' else ''} {super().describe(values)}"


def stem(model: Cnn1dConfig, scale: float) -> list[Layer]:
    """The layer before the blocks."""
    if model.embedding:
        return embedded(model.embedding, model.embedding_dropout)
    if model.representation == "waveform":
        return [Layer("rescaling", "rescaling", {"scale": scale}, "the input", {"scale": "data.scale"})]
    settings = {"frame": model.frame, "step": model.step, "axes": model.axes}
    if model.representation == "mel":
        settings |= {"mels": model.mels, "rate": model.rate}
    name = "spectrogram" if model.representation == "spectrogram" else "mel_spectrogram"
    return [Layer(name, name, settings, "the spectrogram", _SPECTROGRAM)]


def refuse_shape(input_shape: Sequence[int]) -> None:
    """Raise UserError for what is neither a signal nor a text."""
    if len(input_shape) != 2:
        raise UserError(f"a cnn1d takes signals, steps × channels, or texts; got the shape {tuple(input_shape)}")


def _layers(
    model: Cnn1dConfig | Mapping[str, object], input_shape: Sequence[int], classes: int, scale: float = 1.0
) -> list[Layer]:
    """Return the network of a `model` config, for `input_shape` (steps, channels), to class probabilities."""
    refuse_shape(input_shape)
    model = typed(Cnn1dConfig, model)
    return plain([layer for index in range(model.blocks + 2) for layer in stage(model, index, classes, scale)])


def stage(model: Cnn1dConfig | Mapping[str, object], index: int, classes: int, scale: float = 1.0) -> list[Layer]:
    """Return one part of `layers`: 0 is the representation, then the blocks from 1, then the head."""
    model = typed(Cnn1dConfig, model)
    return cnn.stage(model, index, classes, scale) if index else stem(model, scale)


layers = StagedLayers(_layers, stage, cnn.layers.head)
build = builder(Cnn1dConfig, layers, "cnn1d")

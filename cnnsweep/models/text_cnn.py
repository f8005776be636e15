"""A convolutional network for sentences: an embedding, convolutions of several widths, the maximum of each over time.

Kim 2014, "Convolutional Neural Networks for Sentence Classification" (arXiv 1408.5882).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from cnnsweep.config.schema import ModelConfig
from cnnsweep.config.validation import Float, Int, words
from cnnsweep.errors import UserError
from cnnsweep.formatting import listed
from cnnsweep.geometry.network import Layer, StagedLayers
from cnnsweep.models.cnn import ACTIVATIONS, typed
from cnnsweep.models.sequence_layers import builder, embedded

_WIDTHS = {"filters": "model.filters", "kernel_sizes": "model.kernel_size", "activation": "model.activation"}
_DENSE = {"units": "model.dense_units", "activation": "model.activation"}


class TextCnnConfig(ModelConfig):
    """Branches of widths `kernel_size`, `kernel_size` + 1 and so on, each with so many filters."""

    takes: ClassVar[tuple[str, ...]] = ("text",)
    embedding: Int = Field(ge=1)
    embedding_dropout: Float = Field(ge=0, lt=1)
    branches: Int = Field(ge=1, le=20)
    kernel_size: Int = Field(ge=1)
    filters: Int = Field(ge=1)
    activation: Annotated[str, words(*ACTIVATIONS)]
    dense_units: Int = Field(ge=0)
    dropout: Float = Field(ge=0, lt=1)

    @property
    def widths(self) -> tuple[int, ...]:
        """The kernel size of each branch, in words."""
        return tuple(range(self.kernel_size, self.kernel_size + self.branches))

    @property
    def title(self) -> str:
        """What kind of network it is."""
        return f"a convolutional network with kernels of {listed([*map(str, self.widths)])} words"

    def describe(self, values: Mapping[str, object]) -> str:  # noqa: ARG002 - independent of what is searched
        """The network in a few characters: "e128 k3-4-5 f100"."""
        return f"e{self.embedding} k{'-'.join(map(str, self.widths))} f{self.filters}"


def _layers(
    model: TextCnnConfig | Mapping[str, object],
    input_shape: Sequence[int],
    classes: int,
    scale: float = 1.0,  # noqa: ARG001 - words have none
) -> list[Layer]:
    """Return the network of a `model` config, for `input_shape` (words, vocabulary), to class probabilities."""
    if len(input_shape) != 2:
        raise UserError(f"a text_cnn takes texts, words × vocabulary; got the shape {tuple(input_shape)}")
    return [*stage(model, 0, classes), *stage(model, 1, classes)]


def stage(model: TextCnnConfig | Mapping[str, object], index: int, classes: int) -> list[Layer]:
    """Return one part of `layers`: 0 is the embedding, 1 all that follows."""
    model = typed(TextCnnConfig, model)
    if index == 0:
        return embedded(model.embedding, model.embedding_dropout)
    widths = {"filters": model.filters, "kernel_sizes": model.widths, "activation": model.activation}
    found = [Layer("conv_max_over_time", "conv", widths, "the convolution", _WIDTHS)]
    if model.dense_units:
        dense = {"units": model.dense_units, "use_bias": True, "activation": model.activation}
        found.append(Layer("dense", "dense", dense, "the dense layer", _DENSE))
    if model.dropout:
        found.append(Layer("dropout", "dropout", {"rate": model.dropout}, "dropout", {"rate": "model.dropout"}))
    classifier = {"units": classes, "use_bias": True, "activation": "softmax"}
    return [*found, Layer("dense", "classifier", classifier, "the classifier", {"units": "classes"})]


_HEAD = ("branches", "kernel_size", "filters", "dense_units", "dropout")
layers = StagedLayers(_layers, stage, frozenset(f"model.{key}" for key in _HEAD))
build = builder(TextCnnConfig, layers, "text_cnn")

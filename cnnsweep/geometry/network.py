"""Sizes, parameters and multiply-adds of a stack of layers, by arithmetic alone.

A network is a list of `Layer`s, from which `models.cnn` makes Keras layers one by one: the network that is measured
here is the one that is trained.

>>> measure([Layer("conv", "conv", {"filters": 32, "kernel_size": 3})], (2000, 4000, 3)).parameters
896
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from cnnsweep.errors import UserError
from cnnsweep.formatting import shape
from cnnsweep.geometry.canonical import add_normal_form
from cnnsweep.geometry.layers import cost_of
from cnnsweep.geometry.settings import MisfitError, Part, Settings, Shape


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in Keras' own words. A setting that is not given has Keras' default value.

    ======================== ======================================================================
    kind                     settings
    ======================== ======================================================================
    rescaling                scale
    conv                     filters (or expansion: of the input's channels), kernel_size, stride,
                             padding, dilation, use_bias, each_frame
    depthwise_conv           kernel_size, stride, padding, dilation, use_bias
    batch_norm
    activation               function
    max_pool, average_pool   pool_size, stride, padding, each_frame
    squeeze_excite           ratio, activation
    residual                 branch, projection: each a tuple of `branches.Inner`
    flatten
    global_average_pool, global_max_pool
    dropout                  rate
    dense                    units, use_bias, activation
    embedding                units
    conv_max_over_time       filters, kernel_sizes, activation
    spectrogram              frame, step, axes
    mel_spectrogram          frame, step, axes, mels, rate
    merge_channels
    lstm, gru                units, return_sequences, bidirectional, use_bias, reset_after (gru)
    upsample                 size
    crop                     height, width
    concatenate              block (whose maps before its pooling), channels (that they have)
    ======================== ======================================================================
    """

    kind: str
    name: str
    settings: Settings = field(default_factory=dict)
    part: str = ""
    """The layer's name in errors, for example "block 3"; `name` where empty."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """For each setting the config key that it comes from: {"kernel_size": "model.kernel_size"}."""


@dataclass(frozen=True)
class StagedLayers:
    """A model family's `layers` function whose stack falls into stages, so that networks are counted without building.

    Each stage depends on few keys: a block on its own and on those of the whole stack.
    """

    layers: Callable[..., list[Layer]]
    """(model, input shape, classes, scale) to the whole stack."""
    stage: Callable[[Any, int, int], list[Layer]]
    """(model, index, classes) to the layers of one stage: 0 is the stem, then the blocks, then the head."""
    head: frozenset[str]
    """The config keys on which the head alone depends."""

    def __call__(self, model: Any, input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> list[Layer]:
        return self.layers(model, input_shape, classes, scale)


class Measured(NamedTuple):
    """One layer and its costs for one image."""

    layer: Layer
    output_shape: Shape
    """Without the batch: (height, width, channels), (steps, channels) or (features,)."""
    parameters: int
    """All weights, trained or not, as Keras' `count_params`."""
    mult_adds: int
    """Multiplications of convolutions, dense and recurrent layers, each with its addition; biases are not counted."""
    activation_bytes: int
    """Its Keras layers' outputs in float32, which the backward pass needs; flatten and dropout are views: 0."""


@dataclass(frozen=True)
class Network:
    """A measured stack of layers."""

    input_shape: Shape
    layers: tuple[Measured, ...]

    @property
    def output_shape(self) -> Shape:
        """The shape after the last layer, without the batch."""
        return self.layers[-1].output_shape if self.layers else self.input_shape

    @property
    def parameters(self) -> int:
        """All weights, trained or not (batch normalisation keeps two of four untrained)."""
        return sum([row.parameters for row in self.layers])

    @property
    def mult_adds(self) -> int:
        """Multiply-adds of one image's forward pass, in convolutions, dense and recurrent layers.

        Windows over the border count in full, padding included, as profilers count them.
        """
        return sum([row.mult_adds for row in self.layers])

    @property
    def mmacs(self) -> float:
        """`mult_adds` in millions. (One multiply-add is two floating-point operations.)"""
        return self.mult_adds / 1e6

    @property
    def activation_mb(self) -> float:
        """All layers' float32 outputs for one image, in units of 10^6 bytes; the input is not counted."""
        return sum([row.activation_bytes for row in self.layers]) / 1e6

    @property
    def sizes(self) -> dict[str, float]:
        """The sizes that a sweep can limit, by the names that they have in `limits`."""
        return {"parameters": self.parameters, "mmacs": self.mmacs, "activation_mb": self.activation_mb}

    def table(self, failed: str = "") -> str:
        """The layers as aligned lines, then their sums, or the name of the layer that does not fit after them.

        >>> conv = Layer("conv", "conv", {"filters": 5, "kernel_size": 2})
        >>> print(measure([conv, Layer("flatten", "flatten")], (6, 6, 3)).table())
        layer    output  parameters  multiply-adds
        input     6×6×3
        conv      5×5×5          65          1,500
        flatten     125           0              0
        total                    65          1,500
        """
        lines = [("layer", "output", "parameters", "multiply-adds"), ("input", shape(self.input_shape), "", "")]
        for row in self.layers:
            lines.append((row.layer.name, shape(row.output_shape), f"{row.parameters:,}", f"{row.mult_adds:,}"))
        total = ("total", "", f"{self.parameters:,}", f"{self.mult_adds:,}")
        lines.append((failed, "fails", "", "") if failed else total)
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        form = f"{{:{first}}}" + "".join(f"  {{:>{width}}}" for width in others)
        return "\n".join(form.format(*line).rstrip() for line in lines)

    @cached_property
    def signature(self) -> tuple[Part | Shape, ...]:
        """A hashable value that two stacks share exactly when they are the same network.

        The same means: the same function of the same weights, initialised alike, and so the same training.
        Names do not count, and neither does a setting without effect: `same` where nothing is padded, the
        stride where there is one window, the dilation of a 1×1 kernel, pooling of single pixels, averages
        or maxima of equal tiles before that of all. The last digits may still differ where Keras sums in
        another order. Otherwise maps of other sizes make another network, even where no later layer reads the
        pixels in which they differ (the last column that a padded convolution adds and pooling ignores).
        """
        parts: list[Part] = []
        before = self.input_shape
        for row in self.layers:
            add_normal_form(parts, row.layer.kind, row.layer.settings, before, row.output_shape)
            before = row.output_shape
        return (self.input_shape, *parts, before)


class GeometryError(UserError):
    """A layer that cannot be built. Its text ends with the layer table up to it, formatted only when it is shown."""

    def __init__(self, problem: str, network: Network, layer: Layer, mistake: bool) -> None:
        """`network` holds the layers before it; `mistake`: the setting is wrong in any network."""
        super().__init__(problem, network, layer, mistake)
        self.network, self.layer, self.mistake = network, layer, mistake

    def __str__(self) -> str:
        return f"{self.args[0]}\n{self.network.table(failed=self.layer.name)}"


def measure(layers: Iterable[Layer], input_shape: Sequence[int]) -> Network:
    """Return the sizes and costs of every layer for one input of that shape.

    (height, width, channels) of an image, (steps, channels) of a signal, (words, vocabulary) of a text, or (frames,
    height, width, channels) of a video.

    Raises GeometryError for the first layer that Keras could not build, and UserError for an unknown kind.
    """
    output = first = tuple(input_shape)
    if not first or not all(type(size) is int and size > 0 for size in first):
        raise UserError(f"input shape {first} is not made of positive integers")
    rows: list[Measured] = []
    for layer in layers:
        try:
            output, cost = cost_of(layer.kind, layer.settings, output)
        except MisfitError as error:
            key = layer.keys.get(error.setting, f"{layer.name}.{error.setting}")
            problem = f"{key}: {layer.part or layer.name}'s {error.problem}"
            raise GeometryError(problem, Network(first, tuple(rows)), layer, error.mistake) from None
        rows.append(Measured(layer, output, *cost))
    return Network(first, tuple(rows))

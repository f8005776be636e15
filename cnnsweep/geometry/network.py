"""Sizes, parameters and multiply-adds of a stack of layers, by arithmetic alone.

A network is a list of `Layer`s. The same list is what `models.cnn` turns into Keras layers one by one, so
what is measured here is what is trained.

Output sizes follow Keras: for `valid` padding floor((W - F) / S) + 1, for `same` ceil(W / S), where a kernel
of size K at dilation D spans F = (K - 1) D + 1 pixels.

>>> def after(kind, shape, **settings):
...     return measure([Layer(kind, "layer", settings)], shape).output_shape
>>> after("conv", (6, 6, 3), filters=5, kernel_size=2)
(5, 5, 5)
>>> after("conv", (6, 6, 3), filters=5, kernel_size=3, stride=3)
(2, 2, 5)
>>> after("conv", (6, 6, 3), filters=5, kernel_size=2, padding="same")
(6, 6, 5)
>>> after("max_pool", (6, 6, 5), pool_size=2, stride=2)
(3, 3, 5)

A picture of 8,000,000 pixels in three colours needs this many weights in a dense layer of 1,000 neurons, and
this many in a convolution:

>>> photo = (2000, 4000, 3)
>>> dense = Layer("dense", "dense", {"units": 1000, "use_bias": False})
>>> f"{measure([Layer('flatten', 'flatten'), dense], photo).parameters:,}"
'24,000,000,000'
>>> measure([Layer("conv", "conv", {"filters": 32, "kernel_size": 3})], photo).parameters
896
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from cnnsweep.errors import UserError, unknown
from cnnsweep.geometry.canonical import add_normal_form
from cnnsweep.geometry.windows import PADDINGS, MisfitError, MistakeError, Shape, image, positive, slide, window_of

_VIEWS = {"flatten", "dropout"}


__all__ = ["PADDINGS", "GeometryError", "Layer", "Measured", "Network", "Shape", "Stages", "cost_of", "measure"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer in Keras' own words. Settings left out have Keras' default value.

    ======================== ======================================================================
    kind                     settings
    ======================== ======================================================================
    rescaling                scale
    conv                     filters, kernel_size, stride, padding, dilation, use_bias
    batch_norm
    activation               function
    max_pool, average_pool   pool_size, stride, padding
    flatten
    global_average_pool
    dropout                  rate
    dense                    units, use_bias, activation
    ======================== ======================================================================
    """

    kind: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    """What an error calls the layer, for example "block 3"; its name where empty."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """For each setting the config key that it comes from: {"kernel_size": "model.kernel_size"}."""


@dataclass(frozen=True)
class Stages:
    """How a family's stack of layers falls into parts, of which each depends on few keys."""

    stage: Callable[[Mapping[str, Any], int, int], list[Layer]]
    """(model, index, classes) to the layers of one part: 0 is the stem, then the blocks, then the head."""
    head: frozenset[str]
    """The config keys on which the head alone depends."""


class Measured(NamedTuple):
    """One layer and what it costs for one image."""

    layer: Layer
    output_shape: Shape
    """Without the batch: (height, width, channels) or (features,)."""
    parameters: int
    """All weights, trained or not, as Keras' `count_params`."""
    mult_adds: int
    """Multiplications of convolutions and dense layers, each with its addition; biases are not counted."""
    activation_bytes: int
    """The output in float32, which the backward pass needs; flatten and dropout are counted as views: 0."""


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
        """Multiply-adds of one image's forward pass, in convolutions and dense layers.

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

    def dense_equivalent(self, units: int) -> int:
        """Weights that a dense layer of so many neurons on the same input would need, biases not counted."""
        return prod(self.input_shape) * units

    def table(self, upto: int | None = None) -> str:
        """The layers as aligned lines, then their sums; with `upto` only the first so many layers.

        >>> conv = Layer("conv", "conv", {"filters": 5, "kernel_size": 2})
        >>> print(measure([conv, Layer("flatten", "flatten")], (6, 6, 3)).table())
        layer    output  parameters  multiply-adds
        input     6×6×3
        conv      5×5×5          65          1,500
        flatten     125           0              0
        total                    65          1,500
        """
        network = self if upto is None else Network(self.input_shape, self.layers[:upto])
        total = ("total", "", f"{network.parameters:,}", f"{network.mult_adds:,}")
        return _aligned([*_lines(network), total])

    @cached_property
    def signature(self) -> tuple[Any, ...]:
        """A hashable value that two stacks share exactly when they are the same network.

        The same means: the same function of the same weights, initialised alike, and so the same training.
        Names do not count, and neither does a setting without effect: `same` where nothing is padded, the
        stride where there is one window, the dilation of a 1×1 kernel, pooling of single pixels, averages
        over equal tiles before the average of all. The last digits may still differ where Keras sums in
        another order. Otherwise maps of other sizes make another network, even where no later layer reads the
        pixels in which they differ (the last column that a padded convolution adds and pooling leaves out).
        """
        parts: list[tuple[Any, ...]] = []
        shape = self.input_shape
        for row in self.layers:
            add_normal_form(parts, row.layer.kind, row.layer.settings, shape, row.output_shape)
            shape = row.output_shape
        return (self.input_shape, *parts, shape)


class GeometryError(UserError):
    """A layer that cannot be built. Its text ends with the layer table up to it, drawn only when shown."""

    def __init__(self, key: str, problem: str, network: Network, layer: Layer, mistake: bool = False) -> None:
        super().__init__(key, problem, network, layer, mistake)
        self.key = key
        self.problem = problem
        self.network = network
        """The layers before the one that fails."""
        self.layer = layer
        self.mistake = mistake
        """Whether the setting is wrong wherever it stands, rather than in this place."""

    def __str__(self) -> str:
        lines = [*_lines(self.network), (self.layer.name, "fails", "", "")]
        return f"{self.key}: {self.problem}\n{_aligned(lines)}"


def measure(layers: Iterable[Layer], input_shape: Sequence[int]) -> Network:
    """Return the sizes and costs of every layer for one input of that shape, (height, width, channels).

    Raises GeometryError for the first layer that Keras could not build, and UserError for an unknown kind.
    """
    shape = first = _checked(input_shape)
    rows: list[Measured] = []
    for layer in layers:
        rule = _RULES.get(layer.kind)
        if rule is None:
            raise unknown("layer kind", layer.kind, _RULES)
        try:
            shape, parameters, mult_adds = rule(layer.settings, shape)
        except MisfitError as error:
            setting, problem = error.args
            key = layer.keys.get(setting, f"{layer.name}.{setting}")
            problem = f"{layer.part or layer.name}'s {problem}"
            mistake = isinstance(error, MistakeError)
            raise GeometryError(key, problem, Network(first, tuple(rows)), layer, mistake) from None
        rows.append(Measured(layer, shape, parameters, mult_adds, _kept(layer.kind, shape)))
    return Network(first, tuple(rows))


def cost_of(kind: str, settings: Mapping[str, Any], shape: Shape) -> tuple[Shape, tuple[int, int, int]] | None:
    """Return one layer's output shape and its (parameters, multiply-adds, activation bytes); None if it misfits."""
    try:
        output, parameters, mult_adds = _RULES[kind](settings, shape)
    except (MisfitError, KeyError):
        return None
    return output, (parameters, mult_adds, _kept(kind, output))


def _kept(kind: str, output: Shape) -> int:
    return 0 if kind in _VIEWS else 4 * prod(output)


def _checked(input_shape: Sequence[int]) -> Shape:
    shape = tuple(input_shape)
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise UserError(f"input shape {shape} is not made of positive integers")
    return shape


def _lines(network: Network) -> list[tuple[str, str, str, str]]:
    lines = [
        ("layer", "output", "parameters", "multiply-adds"),
        ("input", "×".join(map(str, network.input_shape)), "", ""),
    ]
    for row in network.layers:
        size = "×".join(map(str, row.output_shape))
        lines.append((row.layer.name, size, f"{row.parameters:,}", f"{row.mult_adds:,}"))
    return lines


def _aligned(lines: list[tuple[str, str, str, str]]) -> str:
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    rows = []
    for name, *cells in lines:
        right = [cell.rjust(width) for cell, width in zip(cells, others, strict=True)]
        rows.append("  ".join([name.ljust(first), *right]).rstrip())
    return "\n".join(rows)


# Rules: one function a kind, from (settings, input shape) to (output shape, parameters, multiply-adds).

_Cost = tuple[Shape, int, int]


def _conv(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    height, width, channels = image(shape)
    filters = positive(settings, "filters")
    window = window_of(settings, "kernel_size")
    rows, columns = slide(window, height, width, "kernel")
    weights = window.size * window.size * channels * filters
    bias = filters if settings.get("use_bias", True) else 0
    return (rows, columns, filters), weights + bias, rows * columns * weights


def _pool(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    height, width, channels = image(shape)
    rows, columns = slide(window_of(settings, "pool_size"), height, width, "pool")
    return (rows, columns, channels), 0, 0


def _dense(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    units = positive(settings, "units")
    _check_function("activation", settings.get("activation", "linear"))
    weights = shape[-1] * units
    bias = units if settings.get("use_bias", True) else 0
    return (*shape[:-1], units), weights + bias, prod(shape[:-1]) * weights


def _batch_norm(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return shape, 4 * shape[-1], 0  # scale and shift are trained; mean and variance are not


def _dropout(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    rate = settings.get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise MistakeError("rate", f"value is {rate!r}, not a number from 0 to below 1")
    return shape, 0, 0


def _activation(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    _check_function("function", settings.get("function"))
    return shape, 0, 0


def _check_function(setting: str, function: Any) -> None:
    if not isinstance(function, str):
        raise MistakeError(setting, f"value is {function!r}, not the name of a function")
    if function == "glu":
        raise MistakeError(setting, "function is 'glu', which halves its input; take one that keeps the shape")


def _rescaling(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    scale = settings.get("scale")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise MistakeError("scale", f"value is {scale!r}, not a number")
    return shape, 0, 0


def _flatten(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return (prod(shape),), 0, 0


def _global_average_pool(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return image(shape)[2:], 0, 0


_RULES: dict[str, Callable[[Mapping[str, Any], Shape], _Cost]] = {
    "rescaling": _rescaling,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "activation": _activation,
    "max_pool": _pool,
    "average_pool": _pool,
    "flatten": _flatten,
    "global_average_pool": _global_average_pool,
    "dropout": _dropout,
    "dense": _dense,
}

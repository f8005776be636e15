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
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from math import prod
from typing import Any, NamedTuple

from cnnsweep.errors import UserError, unknown

Shape = tuple[int, ...]
PADDINGS = ("same", "valid")
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
_VIEWS = {"flatten", "dropout"}


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
    def mflops(self) -> float:
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
            _NORMAL_FORMS[row.layer.kind](parts, row.layer.settings, shape, row.output_shape)
            shape = row.output_shape
        return (self.input_shape, *parts, shape)


class GeometryError(UserError):
    """A layer that cannot be built. Its text ends with the layer table up to it, drawn only when shown."""

    def __init__(self, key: str, problem: str, network: Network, layer: Layer) -> None:
        super().__init__(key, problem, network, layer)
        self.key = key
        self.problem = problem
        self.network = network
        """The layers before the one that fails."""
        self.layer = layer

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
        except _MisfitError as error:
            setting, problem = error.args
            key = layer.keys.get(setting, f"{layer.name}.{setting}")
            problem = f"{layer.part or layer.name}'s {problem}"
            raise GeometryError(key, problem, Network(first, tuple(rows)), layer) from None
        kept = 0 if layer.kind in _VIEWS else 4 * prod(shape)
        rows.append(Measured(layer, shape, parameters, mult_adds, kept))
    return Network(first, tuple(rows))


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


class _MisfitError(Exception):
    """A setting that cannot be built: (its name, what is wrong with it, to follow "block 3's")."""


def _positive(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = settings.get(name, default)
    if type(value) is int and value > 0:
        return value
    raise _MisfitError(name, f"value is {value!r}, not a positive integer")


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape
    raise _MisfitError("input", f"input has shape {shape}, not height × width × channels")


class _Window(NamedTuple):
    size: int
    stride: int
    padding: str
    dilation: int

    @property
    def span(self) -> int:
        return (self.size - 1) * self.dilation + 1


def _window(settings: Mapping[str, Any], size_name: str) -> _Window:
    size = _positive(settings, size_name)
    stride = _positive(settings, "stride", size if size_name == "pool_size" else 1)
    dilation = _positive(settings, "dilation", 1)
    padding = settings.get("padding", "valid")
    if padding not in PADDINGS:
        raise _MisfitError("padding", f"value is {padding!r}, not one of {', '.join(PADDINGS)}")
    if stride > 1 and dilation > 1:
        problem = f"stride {stride} and dilation {dilation} are both above 1, which Keras refuses"
        raise _MisfitError("dilation", problem)
    return _Window(size, stride, padding, dilation)


def _slide(window: _Window, height: int, width: int, what: str) -> tuple[int, int]:
    """Return the numbers of window positions, down and across."""
    size, stride, padding, dilation = window
    if padding == "same":
        return -(-height // stride), -(-width // stride)
    span = (size - 1) * dilation + 1
    if span <= height and span <= width:
        return (height - span) // stride + 1, (width - span) // stride + 1
    spans = f" at dilation {dilation} spans {span}×{span} and" if dilation > 1 else ""
    setting = "kernel_size" if what == "kernel" else "pool_size"
    problem = f"{size}×{size} {what}{spans} is larger than its {height}×{width} input"
    raise _MisfitError(setting, problem)


def _conv(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    height, width, channels = _image(shape)
    filters = _positive(settings, "filters")
    window = _window(settings, "kernel_size")
    rows, columns = _slide(window, height, width, "kernel")
    weights = window.size * window.size * channels * filters
    bias = filters if settings.get("use_bias", True) else 0
    return (rows, columns, filters), weights + bias, rows * columns * weights


def _pool(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    height, width, channels = _image(shape)
    rows, columns = _slide(_window(settings, "pool_size"), height, width, "pool")
    return (rows, columns, channels), 0, 0


def _dense(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    units = _positive(settings, "units")
    _check_function("activation", settings.get("activation", "linear"))
    weights = shape[-1] * units
    bias = units if settings.get("use_bias", True) else 0
    return (*shape[:-1], units), weights + bias, prod(shape[:-1]) * weights


def _batch_norm(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return shape, 4 * shape[-1], 0  # scale and shift are trained; mean and variance are not


def _dropout(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    rate = settings.get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise _MisfitError("rate", f"value is {rate!r}, not a number from 0 to below 1")
    return shape, 0, 0


def _activation(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    _check_function("function", settings.get("function"))
    return shape, 0, 0


def _check_function(setting: str, function: Any) -> None:
    if not isinstance(function, str):
        raise _MisfitError(setting, f"value is {function!r}, not the name of a function")
    if function == "glu":
        raise _MisfitError(setting, "function is 'glu', which halves its input; take one that keeps the shape")


def _rescaling(settings: Mapping[str, Any], shape: Shape) -> _Cost:
    scale = settings.get("scale")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise _MisfitError("scale", f"value is {scale!r}, not a number")
    return shape, 0, 0


def _flatten(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return (prod(shape),), 0, 0


def _global_average_pool(settings: Mapping[str, Any], shape: Shape) -> _Cost:  # noqa: ARG001
    return _image(shape)[2:], 0, 0


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


# Normal forms: one function a kind that adds to `parts` what the layer truly does, and nothing where that is
# nothing. Widths go with whatever acts on the last axis, so that a flatten before or after it tells.

_Parts = list[tuple[Any, ...]]


@lru_cache(maxsize=100_000)
def _taps(window: _Window, size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each weight along one axis of a kernel, which pixels it meets.

    A weight is described by (first window in which it meets a pixel, that pixel, number of such windows, step
    from pixel to pixel); one that only ever meets padding by ().
    """
    taps: list[tuple[int, ...]] = []
    before = _before(window, size, count)
    for weight in range(window.size):
        offset = weight * window.dilation - before
        pixels = [(i, p) for i in range(count) if 0 <= (p := i * window.stride + offset) < size]
        taps.append((*pixels[0], len(pixels), window.stride if len(pixels) > 1 else 0) if pixels else ())
    return tuple(taps)


@lru_cache(maxsize=100_000)
def _ranges(window: _Window, size: int, count: int) -> tuple[Any, ...]:
    """Return which pixels each pooling window holds along one axis, padding cut off.

    (size of the axis, first window as (start, end), then runs of (step of start, step of end, windows)).
    """
    starts = [i * window.stride - _before(window, size, count) for i in range(count)]
    windows = [(max(0, start), min(size, start + window.size)) for start in starts]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(windows)]
    return size, windows[0], *((*step, len(list(run))) for step, run in groupby(steps))


def _before(window: _Window, size: int, count: int) -> int:
    """Pixels padded before the first; Keras and TensorFlow put an odd one at the end."""
    return 0 if window.padding == "valid" else max((count - 1) * window.stride + window.span - size, 0) // 2


def _single(ranges: tuple[Any, ...]) -> bool:
    """Whether each window holds one pixel."""
    _, (start, end), *runs = ranges
    return end - start == 1 and all(run[0] == run[1] for run in runs)


def _tiles(ranges: tuple[Any, ...]) -> bool:
    """Whether windows of one length cover the axis, each pixel once."""
    size, (start, end), *runs = ranges
    if not runs:
        return (start, end) == (0, size)
    step, _, more = runs[0]
    return len(runs) == 1 and start == 0 and runs[0][:2] == (end, end) and end + step * more == size


def _normal_conv(parts: _Parts, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    window = _window(settings, "kernel_size")
    bias = bool(settings.get("use_bias", True))
    if window.size == 1 and shape[:2] == output[:2]:
        parts.append(("dense", shape[-1], settings["filters"], bias))  # at each position, and so initialised
    else:
        taps = [_taps(window, size, count) for size, count in zip(shape[:2], output[:2], strict=True)]
        parts.append(("conv", settings["filters"], bias, *taps))


def _normal_max_pool(parts: _Parts, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    _add_pool("max", parts, settings, shape, output)


def _normal_average_pool(parts: _Parts, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    _add_pool("average", parts, settings, shape, output)


def _add_pool(kind: str, parts: _Parts, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    window = _window(settings, "pool_size")
    down, across = (_ranges(window, size, count) for size, count in zip(shape[:2], output[:2], strict=True))
    if _single(down) and _single(across):
        if shape != output:
            parts.append(("pick", down, across))
    elif kind == "average" and output[:2] == (1, 1) and _tiles(down) and _tiles(across):
        _add_global_average(parts, shape)
    else:
        parts.append((kind, down, across))


def _add_global_average(parts: _Parts, shape: Shape) -> None:
    """Add the average of all pixels. Averages over equal tiles just before it change nothing and go."""
    height, width = shape[:2]
    while parts and parts[-1][0] == "average" and _tiles(parts[-1][1]) and _tiles(parts[-1][2]):
        _, (height, *_), (width, *_) = parts.pop()
    if height * width > 1:
        parts.append(("average", (height, (0, height)), (width, (0, width))))


def _normal_dense(parts: _Parts, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    parts.append(("dense", shape[-1], settings["units"], bool(settings.get("use_bias", True))))
    _add_activation(parts, settings.get("activation", "linear"), output)


def _add_activation(parts: _Parts, function: str, shape: Shape) -> None:
    if function != "linear":
        parts.append(("activation", shape[-1], _ALIASES.get(function, function)))


_NORMAL_FORMS: dict[str, Callable[[_Parts, Mapping[str, Any], Shape, Shape], None]] = {
    "rescaling": lambda parts, s, *_: _add_unless(s["scale"] == 1, parts, ("rescaling", float(s["scale"]))),
    "conv": _normal_conv,
    "batch_norm": lambda parts, _, shape, __: parts.append(("batch_norm", shape[-1])),
    "activation": lambda parts, s, shape, _: _add_activation(parts, s["function"], shape),
    "max_pool": _normal_max_pool,
    "average_pool": _normal_average_pool,
    "flatten": lambda *_: None,
    "global_average_pool": lambda parts, _, shape, __: _add_global_average(parts, shape),
    "dropout": lambda parts, s, *_: _add_unless(s["rate"] == 0, parts, ("dropout", float(s["rate"]))),
    "dense": _normal_dense,
}


def _add_unless(idle: bool, parts: _Parts, part: tuple[Any, ...]) -> None:
    if not idle:
        parts.append(part)

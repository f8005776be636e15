"""Each kind of layer: its output shape, its costs and its normal form.

Output sizes follow Keras: floor((W - F) / S) + 1 for `valid` padding, ceil(W / S) for `same`, where a kernel of size K
at dilation D spans F = (K - 1) D + 1 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby, pairwise
from math import prod
from typing import Any, NamedTuple, TypeGuard

from cnnsweep.errors import unknown

Shape = tuple[int, ...]
Settings = Mapping[str, Any]
"""Of a layer, by the names in `Layer`'s table; checked by the rules below."""
Cost = tuple[int, int, int]
"""Parameters, multiply-adds, and bytes of the float32 output (0 for views of the input)."""
Part = tuple[Any, ...]
"""A name, such as "conv", and numbers and tuples of numbers that describe a layer's effect."""
Ranges = tuple[Any, ...]
"""Windows along one axis: (its size, first window as (start, end), *runs of (step of start, step of end, windows))."""
KINDS = (
    "rescaling", "conv", "batch_norm", "activation", "max_pool", "average_pool", "flatten", "global_average_pool",
    "dropout", "dense", "upsample", "crop", "concatenate",
)  # fmt: skip
_PADDINGS = ("same", "valid")
_VIEWS = {"flatten", "dropout"}
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}


class MisfitError(Exception):
    """A setting with which a layer cannot be built."""

    def __init__(self, setting: str, problem: str, mistake: bool = False) -> None:
        """`problem` continues "block 3's"; `mistake`: wrong in any network, such as a kernel of size 0."""
        super().__init__(setting, problem, mistake)
        self.setting, self.problem, self.mistake = setting, problem, mistake


class Window(NamedTuple):
    """A kernel or a pool, square, as it slides over an image."""

    size: int
    stride: int
    padding: str
    dilation: int

    @property
    def span(self) -> int:
        """Pixels from its first to its last, both included."""
        return (self.size - 1) * self.dilation + 1


def window_of(settings: Settings, size_name: str) -> Window:
    """The window of a convolution or pooling layer; `size_name` is "kernel_size" or "pool_size"."""
    size = _positive(settings, size_name)
    stride = _positive(settings, "stride", size if size_name == "pool_size" else 1)
    dilation = _positive(settings, "dilation", 1)
    padding = settings.get("padding", "valid")
    if padding not in _PADDINGS:
        raise MisfitError("padding", f"value is {padding!r}, not one of {', '.join(_PADDINGS)}", mistake=True)
    if stride > 1 and dilation > 1:
        problem = f"stride {stride} and dilation {dilation} are both above 1, which Keras refuses"
        raise MisfitError("dilation", problem)
    return Window(size, stride, padding, dilation)


def cost_of(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, Cost]:
    """Return one layer's output shape and its cost for one image.

    Raises MisfitError for settings that Keras could not build on this input, and UserError for an unknown kind.
    """
    output, parameters, mult_adds = shape, 0, 0
    match kind:
        case "conv":
            filters = _positive(settings, "filters")
            rows, columns, channels = _slide(settings, "kernel_size", shape)
            output, weights = (rows, columns, filters), settings["kernel_size"] ** 2 * channels * filters
            parameters, mult_adds = weights + filters * _has_bias(settings), rows * columns * weights
        case "batch_norm":
            parameters = 4 * shape[-1]  # scale and shift are trained; mean and variance are not
        case "activation":
            _check_function("function", settings.get("function"))
        case "max_pool" | "average_pool":
            output = _slide(settings, "pool_size", shape)
        case "flatten":
            output = (prod(shape),)
        case "global_average_pool":
            output = _image(shape)[2:]
        case "dropout":
            if not _is_number(rate := settings.get("rate")) or not 0 <= rate < 1:
                raise MisfitError("rate", f"value is {rate!r}, not a number from 0 to below 1", mistake=True)
        case "dense":
            units = _positive(settings, "units")
            _check_function("activation", settings.get("activation", "linear"))
            output, weights = (*shape[:-1], units), shape[-1] * units
            parameters, mult_adds = weights + units * _has_bias(settings), prod(shape[:-1]) * weights
        case "upsample" | "crop" | "concatenate":
            output = _resized(kind, settings, *_image(shape))
        case "rescaling":
            if not _is_number(scale := settings.get("scale")):
                raise MisfitError("scale", f"value is {scale!r}, not a number", mistake=True)
        case _:
            raise unknown("layer kind", kind, KINDS)
    return output, (parameters, mult_adds, 0 if kind in _VIEWS else 4 * prod(output))


def _resized(kind: str, settings: Settings, height: int, width: int, channels: int) -> tuple[int, int, int]:
    """The shape after repeating pixels, after cutting what is below and to the right, or beside more channels."""
    if kind == "upsample":
        size = _positive(settings, "size")
        return height * size, width * size, channels
    if kind == "crop":
        return _positive(settings, "height"), _positive(settings, "width"), channels
    return height, width, channels + _positive(settings, "channels")


def _slide(settings: Settings, size_name: str, shape: Shape) -> tuple[int, int, int]:
    """The numbers of window positions, down and across, and the channels."""
    height, width, channels = _image(shape)
    window = window_of(settings, size_name)
    if window.padding == "same":
        return -(-height // window.stride), -(-width // window.stride), channels
    if window.span <= min(height, width):
        rows, columns = ((size - window.span) // window.stride + 1 for size in (height, width))
        return rows, columns, channels
    size, span, noun = window.size, window.span, size_name.partition("_")[0]
    spans = f" at dilation {window.dilation} spans {span}×{span} and" if window.dilation > 1 else ""
    raise MisfitError(size_name, f"{size}×{size} {noun}{spans} is larger than its {height}×{width} input")


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels")


def _positive(settings: Settings, name: str, default: int | None = None) -> int:
    value = settings.get(name, default)
    if type(value) is int and value > 0:
        return value
    raise MisfitError(name, f"value is {value!r}, not a positive integer", mistake=True)


def _has_bias(settings: Settings) -> bool:
    return bool(settings.get("use_bias", True))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_function(setting: str, function: object) -> None:
    if not isinstance(function, str):
        raise MisfitError(setting, f"value is {function!r}, not the name of a function", mistake=True)
    if function == "glu":
        problem = "function is 'glu', which halves its input; take one that keeps the shape"
        raise MisfitError(setting, problem, mistake=True)


def add_normal_form(parts: list[Part], kind: str, settings: Settings, shape: Shape, output: Shape) -> None:
    """Add to the normal form of a stack that of its next layer, from `shape` to `output`; nothing if it has no effect.

    Normal forms are equal for two layers with the same effect. Widths stand in the parts that act on the last axis, so
    that a flatten before or after one of those makes a difference. Only an average over all pixels may change what is
    there already: it removes the averages for which `is_open`.
    """
    match kind:
        case "rescaling" if settings["scale"] != 1:
            parts.append(("rescaling", float(settings["scale"])))
        case "dropout" if settings["rate"] != 0:
            parts.append(("dropout", float(settings["rate"])))
        case "batch_norm":
            parts.append(("batch_norm", shape[-1]))
        case "activation":
            _add_activation(parts, settings["function"], shape)
        case "conv":
            parts.append(_conv_part(settings, shape, output))
        case "max_pool" | "average_pool":
            _add_pool(parts, kind.removesuffix("_pool"), settings, shape, output)
        case "global_average_pool":
            _add_global_average(parts, shape)
        case "upsample" | "crop" | "concatenate":
            parts.append((kind, *settings.values()))
        case "dense":
            parts.append(("dense", shape[-1], settings["units"], _has_bias(settings)))
            _add_activation(parts, settings.get("activation", "linear"), output)


def is_open(part: Part) -> bool:
    """True for an average over equal tiles, which a later average can still remove."""
    return part[0] == "average" and _tiles(part[1]) and _tiles(part[2])


def _conv_part(settings: Settings, shape: Shape, output: Shape) -> Part:
    window = window_of(settings, "kernel_size")
    effect = settings["filters"], _has_bias(settings)
    if window.size == 1 and shape[:2] == output[:2]:
        return "dense", shape[-1], *effect  # at each position, and so initialised
    return "conv", *effect, *(_taps(window, *sizes) for sizes in zip(shape[:2], output[:2], strict=True))


def _add_activation(parts: list[Part], function: str, shape: Shape) -> None:
    if function != "linear":
        parts.append(("activation", shape[-1], _ALIASES.get(function, function)))


def _add_pool(parts: list[Part], kind: str, settings: Settings, shape: Shape, output: Shape) -> None:
    window = window_of(settings, "pool_size")
    down, across = (_ranges(window, *sizes) for sizes in zip(shape[:2], output[:2], strict=True))
    if _single(down) and _single(across):
        if shape != output:
            parts.append(("pick", down, across))
    elif kind == "average" and output[:2] == (1, 1) and _tiles(down) and _tiles(across):
        _add_global_average(parts, shape)
    else:
        parts.append((kind, down, across))


def _add_global_average(parts: list[Part], shape: Shape) -> None:
    """Add the average of all pixels; averages over equal tiles just before it change nothing and are removed."""
    height, width = shape[:2]
    while parts and is_open(parts[-1]):
        _, (height, *_), (width, *_) = parts.pop()
    if height * width > 1:
        parts.append(("average", (height, (0, height)), (width, (0, width))))


@lru_cache(maxsize=100_000)
def _taps(window: Window, size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each weight along one axis of a kernel, which pixels it meets.

    A weight is described by (first window in which it meets a pixel, that pixel, number of such windows, step
    from pixel to pixel); one that only ever meets padding by ().
    """
    taps: list[tuple[int, ...]] = []
    before = _padding_before(window, size, count)
    for weight in range(window.size):
        offset = weight * window.dilation - before
        pixels = [(i, p) for i in range(count) if 0 <= (p := i * window.stride + offset) < size]
        taps.append((*pixels[0], len(pixels), window.stride if len(pixels) > 1 else 0) if pixels else ())
    return tuple(taps)


@lru_cache(maxsize=100_000)
def _ranges(window: Window, size: int, count: int) -> Ranges:
    """Return which pixels each pooling window holds along one axis, without padding."""
    starts = [i * window.stride - _padding_before(window, size, count) for i in range(count)]
    windows = [(max(0, start), min(size, start + window.size)) for start in starts]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(windows)]
    return size, windows[0], *((*step, len(list(run))) for step, run in groupby(steps))


def _padding_before(window: Window, size: int, count: int) -> int:
    """Pixels padded before the first; Keras and TensorFlow put an odd one at the end."""
    return 0 if window.padding == "valid" else max((count - 1) * window.stride + window.span - size, 0) // 2


def _single(ranges: Ranges) -> bool:
    """True where each window holds one pixel."""
    _, (start, end), *runs = ranges
    return end - start == 1 and all(run[0] == run[1] for run in runs)


def _tiles(ranges: Ranges) -> bool:
    """True where windows of one length cover the axis, each pixel once."""
    size, (start, end), *runs = ranges
    if not runs:
        return (start, end) == (0, size)
    step, _, more = runs[0]
    return len(runs) == 1 and start == 0 and runs[0][:2] == (end, end) and end + step * more == size

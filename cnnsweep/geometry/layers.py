"""Each kind of layer: its output shape, its costs and its normal form.

Output sizes follow Keras: floor((W - F) / S) + 1 for `valid` padding, ceil(W / S) for `same` and `causal`, where a
kernel of size K at dilation D spans F = (K - 1) D + 1 positions. Convolution and pooling slide over any number of axes:
the shape (steps, channels) has one, (height, width, channels) two, (frames, height, width, channels) three.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby, pairwise
from math import prod
from typing import Any, NamedTuple

from cnnsweep.errors import unknown
from cnnsweep.geometry import branches, sequences
from cnnsweep.geometry.branches import Element
from cnnsweep.geometry.settings import (
    Cost,
    MisfitError,
    Part,
    Settings,
    Shape,
    check_function,
    has_bias,
    is_number,
    positive,
)

Ranges = tuple[Any, ...]
"""Windows along one axis: (its size, first window as (start, end), *runs of (step of start, step of end, windows))."""
KINDS = (
    "rescaling", "conv", "batch_norm", "activation", "max_pool", "average_pool", "flatten", "global_average_pool",
    "global_max_pool", "dropout", "dense", "depthwise_conv", "upsample", "crop", "concatenate", *branches.KINDS,
    *sequences.KINDS,
)  # fmt: skip
PADDINGS = ("same", "valid", "causal")
_VIEWS = {"flatten", "dropout", "merge_channels"}
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}


class Window(NamedTuple):
    """A kernel or a pool along one axis, as it slides."""

    size: int
    stride: int
    padding: str
    dilation: int

    @property
    def span(self) -> int:
        """Positions from its first to its last, both included."""
        return (self.size - 1) * self.dilation + 1


def window_of(settings: Settings, size_name: str) -> Window:
    """The window of a convolution or pooling layer; `size_name` is "kernel_size" or "pool_size"."""
    size = positive(settings, size_name)
    stride = positive(settings, "stride", size if size_name == "pool_size" else 1)
    dilation = positive(settings, "dilation", 1)
    padding = settings.get("padding", "valid")
    if padding not in PADDINGS:
        raise MisfitError("padding", f"value is {padding!r}, not one of {', '.join(PADDINGS)}", mistake=True)
    if stride > 1 and dilation > 1:
        problem = f"stride {stride} and dilation {dilation} are both above 1, which Keras refuses"
        raise MisfitError("dilation", problem)
    return Window(size, stride, padding, dilation)


def windows_of(settings: Settings, size_name: str, axes: int) -> tuple[Window, ...]:
    """The windows along each axis; with `each_frame` the first axis has windows of one frame."""
    window = window_of(settings, size_name)
    if window.padding == "causal" and axes != 1:
        raise MisfitError("padding", f"value is 'causal', which needs one axis, not {axes}", mistake=True)
    frame = Window(1, 1, window.padding, 1)
    return (frame, *(window,) * (axes - 1)) if settings.get("each_frame") else (window,) * axes


def cost_of(kind: str, settings: Settings, shape: Shape) -> tuple[Shape, Cost]:
    """Return one layer's output shape and its cost for one image.

    Raises MisfitError for settings that Keras could not build on this input, and UserError for an unknown kind.
    """
    output, parameters, mult_adds = shape, 0, 0
    match kind:
        case "conv":
            *positions, channels = _slide(settings, "kernel_size", shape)
            filters = _filters(settings, channels)
            windows = windows_of(settings, "kernel_size", len(positions))
            output, weights = (*positions, filters), prod(w.size for w in windows) * channels * filters
            parameters, mult_adds = weights + filters * has_bias(settings), prod(positions) * weights
        case "depthwise_conv":
            output = *positions, channels = _slide(settings, "kernel_size", shape)
            weights = prod(w.size for w in windows_of(settings, "kernel_size", len(positions))) * channels
            parameters, mult_adds = weights + channels * has_bias(settings), prod(positions) * weights
        case "batch_norm":
            parameters = 4 * shape[-1]  # scale and shift are trained; mean and variance are not
        case "activation":
            check_function("function", settings.get("function"))
        case "max_pool" | "average_pool":
            output = _slide(settings, "pool_size", shape)
        case "flatten":
            output = (prod(shape),)
        case "global_average_pool" | "global_max_pool":
            output = _positions(shape)[-1:]
        case "dropout":
            if not is_number(rate := settings.get("rate")) or not 0 <= rate < 1:
                raise MisfitError("rate", f"value is {rate!r}, not a number from 0 to below 1", mistake=True)
        case "dense":
            units = positive(settings, "units")
            check_function("activation", settings.get("activation", "linear"))
            output, weights = (*shape[:-1], units), shape[-1] * units
            parameters, mult_adds = weights + units * has_bias(settings), prod(shape[:-1]) * weights
        case "upsample" | "crop" | "concatenate":
            output = _resized(kind, settings, *_image(shape))
        case "rescaling":
            if not is_number(scale := settings.get("scale")):
                raise MisfitError("scale", f"value is {scale!r}, not a number", mistake=True)
        case "add" | "multiply":
            pass
        case _ if kind in branches.KINDS:
            found = elements(kind, settings, shape)
            costs = [element.cost for element in found]
            return found[-1].output, (sum(c[0] for c in costs), sum(c[1] for c in costs), sum(c[2] for c in costs))
        case _ if kind in sequences.KINDS:
            output, parameters, mult_adds = sequences.cost_of(kind, settings, shape)
        case _:
            raise unknown("layer kind", kind, KINDS)
    return output, (parameters, mult_adds, 0 if kind in _VIEWS else 4 * prod(output))


def elements(kind: str, settings: Settings, shape: Shape) -> list[Element]:
    """The elementary layers of a layer, more than one for those of `branches`."""
    return branches.elements(kind, settings, shape, cost_of)


def _resized(kind: str, settings: Settings, height: int, width: int, channels: int) -> tuple[int, int, int]:
    """The shape after repeating pixels, after cutting what is below and to the right, or beside more channels."""
    if kind == "upsample":
        size = positive(settings, "size")
        return height * size, width * size, channels
    if kind == "crop":
        return positive(settings, "height"), positive(settings, "width"), channels
    return height, width, channels + positive(settings, "channels")


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels")


def _filters(settings: Settings, channels: int) -> int:
    """Given as they are, or as a multiple of the input's channels."""
    return channels * positive(settings, "expansion") if "expansion" in settings else positive(settings, "filters")


def _slide(settings: Settings, size_name: str, shape: Shape) -> Shape:
    """The numbers of window positions along each axis, and the channels."""
    *sizes, channels = _positions(shape)
    windows = windows_of(settings, size_name, len(sizes))
    if windows[-1].padding != "valid":
        return (*(-(-size // window.stride) for size, window in zip(sizes, windows, strict=True)), channels)
    if all(window.span <= size for size, window in zip(sizes, windows, strict=True)):
        found = [(size - window.span) // window.stride + 1 for size, window in zip(sizes, windows, strict=True)]
        return (*found, channels)
    noun, dilation = size_name.partition("_")[0], windows[-1].dilation
    size, span = _sides(w.size for w in windows), _sides(w.span for w in windows)
    spans = f" at dilation {dilation} spans {span} and" if dilation > 1 else ""
    if len(sizes) == 1:
        raise MisfitError(size_name, f"{noun} of size {size}{spans} is larger than its input of {sizes[0]} steps")
    raise MisfitError(size_name, f"{size} {noun}{spans} is larger than its {_sides(sizes)} input")


def _sides(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes))


def _positions(shape: Shape) -> Shape:
    if len(shape) in (2, 3, 4):
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels or steps × channels")


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
        case "depthwise_conv":
            windows = windows_of(settings, "kernel_size", len(shape) - 1)
            parts.append((kind, has_bias(settings), *map(_taps, windows, shape[:-1], output[:-1])))
        case "squeeze_excite":
            parts.append((kind, shape[-1], branches.hidden_units(settings, shape), settings["activation"]))
        case "residual":
            _add_residual(parts, settings, shape)
        case "max_pool" | "average_pool":
            _add_pool(parts, kind.removesuffix("_pool"), settings, shape, output)
        case "global_average_pool":
            _add_global_average(parts, shape)
        case "global_max_pool":
            if shape[:-1] != (1,) * len(shape[:-1]):
                parts.append(("max", *((size, (0, size)) for size in shape[:-1])))
        case "upsample" | "crop" | "concatenate":
            parts.append((kind, *settings.values()))
        case "dense":
            parts.append(("dense", shape[-1], settings["units"], has_bias(settings)))
            _add_activation(parts, settings.get("activation", "linear"), output)
        case _ if kind in sequences.KINDS:
            parts.append(sequences.part_of(kind, settings, shape))


def is_open(part: Part) -> bool:
    """True for an average over equal tiles, which a later average can still remove."""
    return part[0] == "average" and all(map(_tiles, part[1:]))


def _conv_part(settings: Settings, shape: Shape, output: Shape) -> Part:
    windows = windows_of(settings, "kernel_size", len(shape) - 1)
    effect = output[-1], has_bias(settings)
    if all(window.size == 1 for window in windows) and shape[:-1] == output[:-1]:
        return "dense", shape[-1], *effect  # at each position, and so initialised
    return "conv", *effect, *map(_taps, windows, shape[:-1], output[:-1])


def _add_residual(parts: list[Part], settings: Settings, shape: Shape) -> None:
    """Add a residual block; one without a shortcut is its branch alone."""
    branch, shortcut = branches.branches(settings, shape, cost_of)
    inside: list[Part] = []
    beside: list[Part] = []
    for found, elements_ in ((inside, branch), (beside, shortcut or [])):
        for element in elements_:
            add_normal_form(found, *element[:4])
    parts += inside if shortcut is None else [("residual", tuple(inside), tuple(beside))]


def _add_activation(parts: list[Part], function: str, shape: Shape) -> None:
    if function != "linear":
        parts.append(("activation", shape[-1], _ALIASES.get(function, function)))


def _add_pool(parts: list[Part], kind: str, settings: Settings, shape: Shape, output: Shape) -> None:
    windows = windows_of(settings, "pool_size", len(shape) - 1)
    ranges = tuple(map(_ranges, windows, shape[:-1], output[:-1]))
    if all(map(_single, ranges)):
        if shape != output:
            parts.append(("pick", *ranges))
    elif kind == "average" and set(output[:-1]) == {1} and all(map(_tiles, ranges)):
        _add_global_average(parts, shape)
    else:
        parts.append((kind, *ranges))


def _add_global_average(parts: list[Part], shape: Shape) -> None:
    """Add the average of all positions; averages over equal tiles just before it change nothing and are removed."""
    sizes = shape[:-1]
    while parts and is_open(parts[-1]):
        sizes = tuple(ranges[0] for ranges in parts.pop()[1:])
    if prod(sizes) > 1:
        parts.append(("average", *((size, (0, size)) for size in sizes)))


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
    """Positions padded before the first; Keras and TensorFlow put an odd one at the end."""
    if window.padding == "causal":
        return window.span - 1
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

"""Normal forms: what a layer truly does, so that two spellings of one network can be told from two networks.

One function a kind adds to `parts` what the layer does, and nothing where that is nothing. Widths go with whatever
acts on the last axis, so that a flatten before or after it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

from cnnsweep.geometry.windows import Shape, Window, window_of

Part = tuple[Any, ...]
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
_Parts = list[Part]


def add_normal_form(parts: _Parts, kind: str, settings: Mapping[str, Any], shape: Shape, output: Shape) -> None:
    """Add one layer, from `shape` to `output`, to the normal form of those before it.

    Only an average may change what stands there already: averages over equal tiles at the end of `parts`.
    """
    _NORMAL_FORMS[kind](parts, settings, shape, output)


def is_open(part: Part) -> bool:
    """Whether a later average can still take this part back."""
    return part[0] == "average" and _tiles(part[1]) and _tiles(part[2])


@lru_cache(maxsize=100_000)
def _taps(window: Window, size: int, count: int) -> tuple[tuple[int, ...], ...]:
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
def _ranges(window: Window, size: int, count: int) -> tuple[Any, ...]:
    """Return which pixels each pooling window holds along one axis, padding cut off.

    (size of the axis, first window as (start, end), then runs of (step of start, step of end, windows)).
    """
    starts = [i * window.stride - _before(window, size, count) for i in range(count)]
    windows = [(max(0, start), min(size, start + window.size)) for start in starts]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(windows)]
    return size, windows[0], *((*step, len(list(run))) for step, run in groupby(steps))


def _before(window: Window, size: int, count: int) -> int:
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
    window = window_of(settings, "kernel_size")
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
    window = window_of(settings, "pool_size")
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

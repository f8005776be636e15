"""Windows: kernels and pools as they slide along the axes.

Output sizes follow Keras: floor((W - F) / S) + 1 for `valid` padding, ceil(W / S) for `same` and `causal`, where a
kernel of size K at dilation D spans F = (K - 1) D + 1 positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from cnnsweep.formatting import counted
from cnnsweep.geometry.settings import MisfitError, Settings, Shape, positive

Ranges = tuple[Any, ...]
"""Windows along one axis: (its size, first window as (start, end), *runs of (step of start, step of end, windows))."""
PADDINGS = ("same", "valid", "causal")


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


def slide(settings: Settings, size_name: str, shape: Shape) -> Shape:
    """The numbers of window positions along each axis, and the channels."""
    *sizes, channels = positions_of(shape)
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
        raise MisfitError(
            size_name, f"{noun} of size {size}{spans} is larger than its input of {counted(sizes[0], 'step')}"
        )
    raise MisfitError(size_name, f"{size} {noun}{spans} is larger than its {_sides(sizes)} input")


def _sides(sizes: Iterable[int]) -> str:
    return "×".join(map(str, sizes))


def positions_of(shape: Shape) -> Shape:
    if len(shape) in (2, 3, 4):
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels or steps × channels")


@lru_cache(maxsize=100_000)
def taps(window: Window, size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each weight along one axis of a kernel, which pixels it meets.

    A weight is described by (first window in which it meets a pixel, that pixel, number of such windows, step
    from pixel to pixel); one that only ever meets padding by ().

    >>> taps(Window(3, 1, "causal", 1), 4, 4)  # the last weight meets the present, the others what was before
    ((2, 0, 2, 1), (1, 0, 3, 1), (0, 0, 4, 1))
    """
    taps: list[tuple[int, ...]] = []
    before = _padding_before(window, size, count)
    for weight in range(window.size):
        offset = weight * window.dilation - before
        pixels = [(i, p) for i in range(count) if 0 <= (p := i * window.stride + offset) < size]
        taps.append((*pixels[0], len(pixels), window.stride if len(pixels) > 1 else 0) if pixels else ())
    return tuple(taps)


@lru_cache(maxsize=100_000)
def ranges_of(window: Window, size: int, count: int) -> Ranges:
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


def single(ranges: Ranges) -> bool:
    """True where each window holds one pixel."""
    _, (start, end), *runs = ranges
    return end - start == 1 and all(run[0] == run[1] for run in runs)


def tiles(ranges: Ranges) -> bool:
    """True where windows of one length cover the axis, each pixel once."""
    size, (start, end), *runs = ranges
    if not runs:
        return (start, end) == (0, size)
    step, _, more = runs[0]
    return len(runs) == 1 and start == 0 and runs[0][:2] == (end, end) and end + step * more == size

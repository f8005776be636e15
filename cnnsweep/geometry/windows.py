"""Sliding windows: what settings make one, and how many positions it has on an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Shape = tuple[int, ...]
PADDINGS = ("same", "valid")


class MisfitError(Exception):
    """A setting that cannot be built: (its name, what is wrong with it, to follow "block 3's")."""


class MistakeError(MisfitError):
    """A setting that is wrong wherever it stands, such as a kernel of size 0."""


def positive(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = settings.get(name, default)
    if type(value) is int and value > 0:
        return value
    raise MistakeError(name, f"value is {value!r}, not a positive integer")


def image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) == 3:
        return shape
    raise MisfitError("input", f"input has shape {shape}, not height × width × channels")


class Window(NamedTuple):
    size: int
    stride: int
    padding: str
    dilation: int

    @property
    def span(self) -> int:
        return (self.size - 1) * self.dilation + 1


def window_of(settings: Mapping[str, Any], size_name: str) -> Window:
    size = positive(settings, size_name)
    stride = positive(settings, "stride", size if size_name == "pool_size" else 1)
    dilation = positive(settings, "dilation", 1)
    padding = settings.get("padding", "valid")
    if padding not in PADDINGS:
        raise MistakeError("padding", f"value is {padding!r}, not one of {', '.join(PADDINGS)}")
    if stride > 1 and dilation > 1:
        problem = f"stride {stride} and dilation {dilation} are both above 1, which Keras refuses"
        raise MisfitError("dilation", problem)
    return Window(size, stride, padding, dilation)


def slide(window: Window, height: int, width: int, what: str) -> tuple[int, int]:
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
    raise MisfitError(setting, problem)

"""Inputs that are no images: signals, texts as numbers of words, videos, and several inputs of an example."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsweep.config.inputs import NOUNS

Array = NDArray[Any]
SHAPES = {"image": "(images, height, width, channels)", "signal": "(signals, steps, channels)",
          "text": "(texts, words)", "video": "(videos, frames, height, width, channels)"}  # fmt: skip
ALLOWED = {"signal": "buif", "text": "ui", "video": "ui"}
"""The kinds of NumPy type that x may have."""
TYPES = {"signal": np.float32, "text": np.int32, "video": np.uint8}
"""The type in which x is kept."""

STEPS = 50
"""The numbers of a channel go over more steps of float32, if they differ by more than rounding."""


class Shapes(tuple[int, ...]):
    """The shape of an example with several inputs: the number of its values, and the shape of each input by name."""

    by_name: Mapping[str, tuple[int, ...]]

    def __new__(cls, by_name: Mapping[str, tuple[int, ...]]) -> Shapes:
        found = super().__new__(cls, (sum(math.prod(shape) for shape in by_name.values()),))
        found.by_name = dict(by_name)
        return found

    def __getnewargs__(self) -> tuple[Mapping[str, tuple[int, ...]]]:
        return (self.by_name,)

    def __str__(self) -> str:
        return ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in self.by_name.items())


def pack(inputs: Mapping[str, Array]) -> Array:
    """Several inputs of the same examples as one array, whose fields they are: float32, int32 or as they were.

    >>> pack({"image": np.zeros((4, 8, 8)), "age": np.arange(4)}).dtype
    dtype([('image', '<f4', (8, 8)), ('age', '<i4', (1,))])
    """
    columns = {name: x if x.ndim > 1 else x[:, np.newaxis] for name, x in inputs.items()}
    narrow = {"f": np.float32, "i": np.int32, "b": np.uint8}
    kinds = [(n, narrow.get(x.dtype.kind, x.dtype) if x.dtype.itemsize != 1 else x.dtype, x.shape[1:])
             for n, x in columns.items()]  # fmt: skip
    packed = np.empty(len(next(iter(columns.values()))), kinds)
    for name, x in columns.items():
        packed[name] = x
    return packed


def unpacked(x: Array) -> Array | dict[str, Array]:
    """What Keras takes: several inputs by name, or the array itself."""
    return {name: np.ascontiguousarray(x[name]) for name in x.dtype.names} if x.dtype.names else x


def shapes_of(x: Array) -> tuple[int, ...]:
    """The shape of one example."""
    names = x.dtype.names
    return Shapes({name: x.dtype[name].shape for name in names}) if names else tuple(map(int, x.shape[1:]))


def zeros(count: int, shape: Sequence[int]) -> Array | dict[str, Array]:
    """Examples of this shape, float32, as Keras takes them."""
    if isinstance(shape, Shapes):
        return {name: np.zeros((count, *each), np.float32) for name, each in shape.by_name.items()}
    return np.zeros((count, *shape), np.float32)


def layout_fault(kind: str, shape: Sequence[int]) -> str | None:
    """Of images or frames whose channels come first, as PyTorch has them, where the shape leaves no doubt."""
    places = {"image": (1,), "video": (1, 2)}.get(kind, ())
    if places and len(shape) == places[-1] + 3 and shape[-2] == shape[-1] > 4 and min(shape[p] for p in places) <= 4:
        return f"shape {(*shape,)} has the channels first, expected {SHAPES[kind]}"
    return None


def layout_note(kind: str, shape: Sequence[int]) -> Iterator[str]:
    """A remark on shapes whose channels probably come first.

    >>> [*layout_note("signal", (20, 9, 128))]
    ['x has the shape (20, 9, 128): 128 channels; if these are steps, transpose it to (signals, steps, channels)']
    """
    few = {"image": 4, "video": 4, "signal": shape[-1] // 4}.get(kind, 0)
    first = min(shape[1:3] if kind == "video" else shape[1:2], default=few + 1)
    if len(shape) == SHAPES.get(kind, "").count(",") + 1 and first <= few < shape[-1]:
        other = "steps" if kind == "signal" else "pixels"
        problem = f"{shape[-1]} channels; if these are {other}, transpose it to {SHAPES[kind]}"
        yield f"x has the shape {(*shape,)}: {problem}"


def input_faults(kind: str, x: Array) -> Iterator[str]:
    """Every fault of an array of signals, texts, videos or several inputs."""
    if kind == "multi_input":
        return
    form = SHAPES[kind]
    if x.ndim != form.count(",") + 1:
        yield f"shape {x.shape}, expected {form}"
    elif x.size == 0:
        yield f"shape {x.shape} holds no {NOUNS[kind]}"
    elif fault := layout_fault(kind, x.shape):
        yield fault
    elif x.dtype.kind not in ALLOWED[kind]:
        yield f"dtype {x.dtype}, expected {'float32' if kind == 'signal' else 'whole numbers'}"
    elif kind == "video" and x.dtype != np.uint8 and (x.min() < 0 or x.max() > 255):
        yield f"values from {x.min()} to {x.max()}, expected 0 to 255"
    elif kind == "signal" and not np.isfinite(x.sum(dtype=np.float64)):
        bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
        if len(bad):
            yield f"NaN or infinity in {len(bad):,} of {len(x):,} signals, first in signal {bad[0]}"
    elif kind == "signal" and x.dtype.itemsize >= 4 and x.dtype != np.float32:
        yield from _beyond_float32(x)


def _beyond_float32(x: Array) -> Iterator[str]:
    """Channels of signals with numbers that float32 does not have, or cannot tell apart."""
    lows, highs = (found.astype(np.float64) for found in (x.min(axis=(0, 1)), x.max(axis=(0, 1))))
    for channel, (low, high) in enumerate(zip(lows, highs, strict=True)):
        problem, largest = f"channel {channel + 1} goes from {low:.12g} to {high:.12g}", max(-low, high)
        if largest > np.finfo(np.float32).max:
            yield f"{problem}, beyond the numbers of float32: take another unit"
        elif 1e-12 * largest < high - low <= STEPS * (steps := float(np.spacing(np.float32(largest)))):
            yield f"{problem}, where networks compute in steps of {steps:g}: subtract a constant"

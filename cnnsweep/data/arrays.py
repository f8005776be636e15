"""What a loader returns (`Arrays`) and what a sweep trains on (`Dataset`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from numpy.typing import NDArray

from cnnsweep.errors import UserError

Array = NDArray[Any]

SHOWN = 200
"""Faults that one error lists; of more it gives the number."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """A loader's images and labels as they were found; `load` checks, converts and splits them.

    x: (images, height, width) or (images, height, width, channels), whole numbers 0..255, or floats 0..1
    or 0..255.
    y: (images,) or (images, 1), whole numbers from 0.
    """

    x_train: Array
    y_train: Array
    x_test: Array | None
    y_test: Array | None
    """None, both of them: split off the training set, the share that the config's `test` says."""
    class_names: tuple[str, ...]
    """One name a class; empty: the classes are numbered."""
    source: str
    """For people: where the arrays came from."""
    x_val: Array | None = None
    y_val: Array | None = None
    """A validation set of the data's own; without one, it is split off the training set."""
    scale: float | None = None
    """Multiplies x to give 0..1; None: 1 where no value is above 1, else 1/255."""
    name: str | None = None
    """None: named after the loader."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The file of "x_train", "y_train" …, for messages, where each has its own."""
    digest: str | None = None
    """Stands for the content, where the loader knows it already; None: all of it is read to find one."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are there: "train" and, where the data has its own, "val" and "test"."""
        own = {"val": (self.x_val, self.y_val), "test": (self.x_test, self.y_test)}
        return ("train", *(split for split, halves in own.items() if any(a is not None for a in halves)))

    def where(self, key: str) -> str:
        """The place of one array, for messages."""
        return self.files.get(key, f"{self.source}: {key}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three checked splits. x: uint8 or float32 (images, height, width, channels); y: int32 (images,)."""

    name: str
    x_train: Array
    y_train: Array
    x_val: Array
    y_val: Array
    x_test: Array
    y_test: Array
    class_names: tuple[str, ...]
    source: str
    digest: str
    """16 hex digits over the content of all splits: the same images in the same splits, the same digest."""
    scale: float
    """Multiply x by it to get 0..1."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        height, width, channels = self.x_train.shape[1:]
        return int(height), int(width), int(channels)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def describe(self) -> str:
        """One line for the screen and the log."""
        counts = [f"{len(x):,}" for x in (self.x_train, self.x_val, self.x_test)]
        size = "×".join(str(side) for side in self.input_shape)
        images = f"{counts[0]} training, {counts[1]} validation, {counts[2]} test images"
        return f"{self.name}: {images}, {size}, {self.classes} classes, from {self.source}"


def refuse(faults: list[str], advice: str = "") -> NoReturn:
    """Raise one UserError that lists all faults, each of which starts with its file, and then what can be done."""
    last = f"\n  {advice}" if advice else ""
    if len(faults) == 1:
        raise UserError(f"data cannot be used: {faults[0]}{last}")
    more = [f"… and {len(faults) - SHOWN:,} more"] if len(faults) > SHOWN else []
    lines = "".join(f"\n  {fault}" for fault in [*faults[:SHOWN], *more])
    raise UserError(f"data cannot be used, {len(faults):,} faults:{lines}{last}")

"""Labels of each task: their checks, their types in a data set, and how they are divided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.tasks import Task

if TYPE_CHECKING:
    from cnnsweep.data.arrays import Array, Arrays

LARGEST = 1e18
"""Of a number to be predicted: its square is finite in float32."""
STEPS = 100
"""Rounding to float32 moves a number to be predicted by less than the numbers' range divided by this."""
MISSING = ("nan", "null", "<na>", "n/a")
"""How programs write that there is no label."""
NAMED = 5  # values in one line
OTHER_TASKS = "one-hot labels become numbers with argmax(axis=1); several classes an image are task=multi_label"


def label_faults(y: Array, task: Task) -> Iterator[str]:
    """The faults of one split's labels by themselves."""
    match task:
        case "classification":
            yield from _class_numbers(y)
        case "multi_label":
            yield from _zeros_and_ones(y)
        case "regression":
            yield from _numbers(y)
        case "segmentation":
            yield from _masks(y)


def _class_numbers(y: Array) -> Iterator[str]:
    if y.ndim == 2 and y.shape[1] > 1:
        yield f"shape {y.shape}, expected (images,); {OTHER_TASKS}"
    elif y.ndim != 1 and y.shape[1:] != (1,):
        yield f"shape {y.shape}, expected (images,); a class for each pixel is task=segmentation"
    elif y.dtype.kind not in "ui":
        more = "; numbers to be predicted are task=regression" if y.dtype.kind == "f" else ""
        yield f"dtype {y.dtype}, expected whole numbers such as int32{more}"
    elif y.size and int(y.min()) < 0:
        yield f"label {int(y.min())}, expected whole numbers from 0"


def _zeros_and_ones(y: Array) -> Iterator[str]:
    if y.ndim != 2 or y.shape[1] < 2:
        yield f"shape {y.shape}, expected (images, labels) of 0 and 1 for task=multi_label"
    elif y.dtype.kind not in "buif":
        yield f"dtype {y.dtype}, expected 0 and 1"
    elif (bad := y[(y != 0) & (y != 1)]).size:
        yield f"value {bad.flat[0]}, expected 0 and 1"


def _numbers(y: Array) -> Iterator[str]:
    if y.ndim not in (1, 2) or (y.ndim == 2 and not y.shape[1]):
        yield f"shape {y.shape}, expected (images,) or (images, targets) for task=regression"
    elif y.dtype.kind not in "uif":
        yield f"dtype {y.dtype}, expected numbers"
    elif y.dtype.kind == "f" and not np.isfinite(y).all():
        bad = np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(axis=1))
        yield f"NaN or infinite in {len(bad):,} of {len(y):,} labels, first in label {bad[0]}"
    elif y.size and (most := float(np.abs(y.astype(np.float64)).max())) > LARGEST:
        yield f"value {most:g}: networks compute with numbers up to {LARGEST:.0e}; give the labels another unit"


def _masks(y: Array) -> Iterator[str]:
    if y.ndim != 3 and not (y.ndim == 4 and y.shape[3] == 1):
        yield f"shape {y.shape}, expected (images, height, width), the class of each pixel, for task=segmentation"
    elif y.dtype.kind not in "bui":
        yield f"dtype {y.dtype}, expected whole numbers such as uint8"
    elif y.size and int(y.min()) < 0:
        yield f"class {int(y.min())}, expected whole numbers from 0"


def class_faults(arrays: Arrays, task: Task) -> Iterator[str]:
    """The faults of labels that are sound in each split by itself, and of their names."""
    for name, count in Counter(arrays.class_names).items():
        if count > 1 or not name.strip():
            yield f"{arrays.place('class_names')}: '{name}' is {'given twice' if name.strip() else 'no name'}"
    if task == "regression":
        yield from _targets(arrays)
    elif task == "multi_label":
        yield from _label_counts(arrays)
    else:
        yield from _classes(arrays, task)


def _targets(arrays: Arrays) -> Iterator[str]:
    targets, names = _columns(arrays.y_train), arrays.class_names
    if names and len(names) != targets and names != tuple(map(str, range(len(names)))):  # digits are numbers
        listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        where = "numbers are read by data=npz and data=image_table"
        yield f"{arrays.place('y_train')}: {len(names)} names ({listed}), not numbers, for task=regression: {where}"
        return
    for split in arrays.splits[1:]:
        if (found := _columns(getattr(arrays, f"y_{split}"))) != targets:
            yield f"{arrays.place(f'y_{split}')}: {found} targets an image, the training images have {targets}"
    y, place = arrays.y_train.reshape(len(arrays.y_train), -1), arrays.place("y_train")
    exact = y.astype(np.float64)
    spread, lost = np.ptp(exact, axis=0), np.abs(exact - exact.astype(np.float32)).max(axis=0)
    for index, name in enumerate(output_names(arrays, "regression")):
        if (y[:, index] == y[0, index]).all():
            yield f"{place}: {name} is {y[0, index]:g} in all images"
        elif lost[index] >= spread[index] / STEPS:
            low, high = exact[:, index].min(), exact[:, index].max()
            steps = float(np.spacing(np.float32(max(-low, high))))
            problem = f"{name} goes from {low:.12g} to {high:.12g}, where networks compute in steps of {steps:g}"
            yield f"{place}: {problem}: subtract a constant, or take another unit"


def _label_counts(arrays: Arrays) -> Iterator[str]:
    names = output_names(arrays, "multi_label")
    labels = arrays.y_train.shape[1]
    if arrays.class_names and len(arrays.class_names) != labels:
        yield f"{arrays.place('y_train')}: {labels} labels an image for {len(arrays.class_names)} names of labels"
        return
    for split in arrays.splits:
        y, place = getattr(arrays, f"y_{split}"), arrays.place(f"y_{split}")
        if y.shape[1] != labels:
            yield f"{place}: {y.shape[1]} labels an image, the training images have {labels}"
        elif split == "train":
            yield from (f"{place}: no image with label {names[i]}" for i in np.flatnonzero(~(y > 0).any(axis=0)))


def _classes(arrays: Arrays, task: Task) -> Iterator[str]:
    classes = count_outputs(arrays, task)
    if classes < 2:
        yield f"{arrays.place('y_train')}: {classes} class, at least 2 are needed"
        return
    for split in arrays.splits:
        y, x = getattr(arrays, f"y_{split}"), getattr(arrays, f"x_{split}")
        place, found = arrays.place(f"y_{split}"), np.unique(y)
        if task == "segmentation" and y.shape[:3] != x.shape[:3]:
            yield f"{place}: masks of {_size(y)} pixels for images of {_size(x)}"
        if found[-1] >= classes:
            yield f"{place}: label {found[-1]}, expected 0..{classes - 1} ({classes} classes)"
        if split == "train" and (text := missing_class(y, arrays, task)):
            few = ", ".join(map(str, found[:NAMED])) + (" …" if len(found) > NAMED else "")
            given = "" if arrays.class_names else f": the values are {few}, expected whole numbers from 0 without gaps"
            yield f"{place}: {text}{given}"
        elif split != "train" and len(found) == 1:
            yield f"{place}: {'pixels' if task == 'segmentation' else 'images'} of one class only ({found[0]})"


def _size(images: Array) -> str:
    return f"{images.shape[1]}×{images.shape[2]}"


def missing_class(y: Array, arrays: Arrays, task: Task) -> str | None:
    """The classes or labels of `arrays` of which these labels have no image."""
    if task == "regression":
        return None
    noun, classes = "image", count_outputs(arrays, task)
    found = np.flatnonzero((y > 0).any(axis=0)) if task == "multi_label" else np.unique(y)
    if task == "segmentation":
        noun = "pixel"
    # Searched, not counted up to: a label such as 2,000,000,000 would make a list of that length.
    kept = int((found < classes).sum())
    if kept == classes:
        return None
    gaps = np.flatnonzero(found[:kept] != np.arange(kept))
    missing = int(gaps[0]) if len(gaps) else kept
    name = f" ({arrays.class_names[missing]})" if arrays.class_names else ""
    others = f" and of {classes - kept - 1:,} more" if classes - kept > 1 else ""
    return f"no {noun} of class {missing}{name}{others}"


def doubtful(names: Sequence[str]) -> Iterator[str]:
    """A remark on each name of a class that says a missing label, and on names that may be meant as one, since they
    differ in case, spaces, hyphens or zeros alone.

    >>> [*doubtful(["cat", "Cat", "nan"])]
    ["'nan' is a class: are these missing labels?", "'cat' and 'Cat' are two classes"]
    >>> [*doubtful(["1", "1.0", "2"])], [*doubtful(["cat", "dog"])]
    (["'1' and '1.0' are two classes"], [])
    """
    yield from (f"'{name}' is a class: are these missing labels?" for name in names if name.casefold() in MISSING)
    alike: dict[object, list[str]] = {}
    for name in names:
        try:
            key: object = float(name)
        except ValueError:
            key = re.sub(r"[\s_-]", "", name.casefold())
        alike.setdefault(key, []).append(name)
    yield from (f"'{several[0]}' and '{several[1]}' are two classes" for several in alike.values() if several[1:])


def count_outputs(arrays: Arrays, task: Task) -> int:
    """The number of values that a network gives for an image, or a pixel: classes, labels or targets."""
    if task == "regression" or (task == "multi_label" and not arrays.class_names):
        return _columns(arrays.y_train)
    return len(arrays.class_names) or int(arrays.y_train.max()) + 1


def output_names(arrays: Arrays, task: Task) -> tuple[str, ...]:
    """The names of the classes, labels or targets; without names they are numbered."""
    count = count_outputs(arrays, task)
    if len(arrays.class_names) == count:
        return arrays.class_names
    if task == "regression":
        return ("value",) if count == 1 else tuple(f"value {number}" for number in range(1, count + 1))
    return tuple(str(number) for number in range(count))


def typed(y: Array, task: Task, classes: int) -> Array:
    """The labels as a data set has them: int32 (images,); float32 (images, labels or targets); or, of masks,
    (images, height, width), uint8 where that is enough."""
    if task == "classification":
        return np.ascontiguousarray(y.reshape(-1), np.int32)
    if task == "segmentation":
        return np.ascontiguousarray(y.reshape(y.shape[:3]), np.uint8 if classes <= 256 else np.int32)
    return np.ascontiguousarray(y.reshape(len(y), -1), np.float32)


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of images that are to be divided."""

    y: Array
    """As `typed` returns them."""
    task: Task
    names: tuple[str, ...]

    def at(self, rows: Array) -> Labels:
        """The labels of some of the images."""
        return replace(self, y=self.y[rows])

    @property
    def counts(self) -> Array:
        """How many images have each class or label."""
        if self.task == "regression":
            return np.zeros(0, np.int64)
        return (
            np.bincount(self.y, minlength=len(self.names)) if self.task == "classification" else self._has.sum(axis=0)
        )

    @property
    def strata(self) -> Array:
        """The stratum of each image, whole numbers from 0: its class; or which of its labels, or of the classes in its
        mask, the fewest images have."""
        if self.task == "classification":
            return self.y
        if self.task == "regression":
            return np.zeros(len(self.y), np.int32)
        by_count = self._has[:, np.argsort(self._has.sum(axis=0), kind="stable")]
        rarest = np.where(by_count.any(axis=1), by_count.argmax(axis=1) + 1, 0)
        return np.unique(rarest, return_inverse=True)[1].astype(np.int32)

    def lost(self, rows: Array) -> str | None:
        """The first class or label that none of these images has, though others have it."""
        lost = np.flatnonzero((self.counts > 0) & (self.at(rows).counts == 0))
        return self.names[lost[0]] if len(lost) else None

    @cached_property
    def _has(self) -> Array:
        """Which labels, or classes in its mask, each image has: (images, classes)."""
        if self.task == "multi_label":
            return self.y > 0
        found = np.zeros((len(self.y), len(self.names)), bool)
        for row, mask in zip(found, self.y, strict=True):
            row[mask] = True
        return found


def described(names: tuple[str, ...], task: Task, most: int) -> str:
    """The classes, labels or targets in a few words.

    >>> described(("cat", "dog"), "classification", 5), described(("age",), "regression", 5)
    ('2 classes (cat, dog)', '1 target (age)')
    """
    noun = {"multi_label": "labels", "regression": "targets"}.get(task, "classes")
    some = ", ".join(names[:most]) + (" …" if len(names) > most else "")
    return f"{len(names)} {noun if len(names) > 1 else noun.removesuffix('s')} ({some})"


def _columns(y: Array) -> int:
    return 1 if y.ndim == 1 else int(y.shape[1])

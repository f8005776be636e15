"""What can be wrong with a loader's arrays, each fault as one line that starts with its file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnsweep.data.arrays import Array, Arrays


def find_faults(arrays: Arrays) -> list[str]:
    """Return every fault of the arrays; an empty list where `load` can use them."""
    faults = [fault for split in arrays.splits for fault in _split_faults(arrays, split)]
    # Comparisons between splits mean something only for arrays that are sound themselves.
    return faults or [*_shape_faults(arrays), *_range_faults(arrays), *_class_faults(arrays)]


def count_classes(arrays: Arrays) -> int:
    """The number of classes: of names, or where there are none, one more than the largest training label."""
    return len(arrays.class_names) or int(arrays.y_train.max()) + 1


def find_scale(arrays: Arrays) -> float:
    """What x is multiplied with to give 0..1."""
    if arrays.scale is not None:
        return arrays.scale
    return 1.0 if max(float(getattr(arrays, f"x_{s}").max()) for s in arrays.splits) <= 1 else 1 / 255


def _split_faults(arrays: Arrays, split: str) -> Iterator[str]:
    x, y = getattr(arrays, f"x_{split}"), getattr(arrays, f"y_{split}")
    x_place, y_place = arrays.where(f"x_{split}"), arrays.where(f"y_{split}")
    if x is None or y is None:
        yield f"{x_place if x is None else y_place}: missing, though the set's other half is there"
        return
    x_faults = [f"{x_place}: {fault}" for fault in _image_faults(x, arrays.scale)]
    y_faults = [f"{y_place}: {fault}" for fault in _label_faults(y)]
    yield from x_faults + y_faults
    if x.ndim and y.ndim and len(x) != len(y):
        yield f"{y_place}: {len(y):,} labels for {len(x):,} images in {x_place}"


def _image_faults(x: Array, scale: float | None) -> Iterator[str]:
    if x.ndim not in (3, 4):
        yield f"shape {x.shape}, expected (images, height, width) or (images, height, width, channels)"
    elif x.size == 0:
        yield f"shape {x.shape} holds no images"
    elif x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
        yield f"shape {x.shape} has the channels first, expected (images, height, width, channels)"
    elif x.dtype.kind not in "buif":
        yield f"dtype {x.dtype}, expected uint8 or float32"
    else:
        yield from _value_faults(x, scale)


def _value_faults(x: Array, scale: float | None) -> Iterator[str]:
    if x.dtype == np.uint8 and scale in (None, 1 / 255):  # cannot be wrong, and may be too large to look at
        return
    low, high = float(x.min()), float(x.max())
    top = 255.0 if scale is None else 1 / scale
    if np.isnan(low):
        bad = np.flatnonzero(np.isnan(x).reshape(len(x), -1).any(axis=1))
        yield f"NaN in {len(bad):,} of {len(x):,} images, first in image {bad[0]}"
    elif low < 0 or high > top * (1 + 1e-6):
        allowed = "0..1 or 0..255" if scale is None else f"0..{top:g}"
        yield f"values from {low:g} to {high:g}, expected {allowed}"
    elif scale is None and x.dtype.kind == "f" and 1 < high < 2:
        yield f"values from {low:g} to {high:g}, which is neither 0..1 nor 0..255"


def _label_faults(y: Array) -> Iterator[str]:
    if y.ndim == 2 and y.shape[1] > 1:
        yield f"shape {y.shape}, expected (images,); one-hot labels become numbers with argmax(axis=1)"
    elif y.ndim != 1 and y.shape[1:] != (1,):
        yield f"shape {y.shape}, expected (images,)"
    elif y.dtype.kind not in "ui":
        yield f"dtype {y.dtype}, expected whole numbers such as int32"
    elif y.size and int(y.min()) < 0:
        yield f"label {int(y.min())}, expected whole numbers from 0"


def _shape_faults(arrays: Arrays) -> Iterator[str]:
    def image(split: str) -> tuple[int, ...]:
        shape = getattr(arrays, f"x_{split}").shape[1:]
        return shape if len(shape) == 3 else (*shape, 1)

    for split in arrays.splits[1:]:
        if image(split) != image("train"):
            place = arrays.where(f"x_{split}")
            yield f"{place}: images of {image(split)}, the training images are {image('train')}"
    x, tested = arrays.x_train, arrays.x_test
    if tested is not None and x.shape == tested.shape and np.array_equal(x, tested):
        yield f"{arrays.where('x_test')}: the test images are the training images"


def _range_faults(arrays: Arrays) -> Iterator[str]:
    known = arrays.scale is not None
    tops = {split: 0.0 if known else float(getattr(arrays, f"x_{split}").max()) for split in arrays.splits}
    kinds = {split: getattr(arrays, f"x_{split}").dtype.kind == "f" for split in arrays.splits}
    for split in arrays.splits[1:]:
        place = arrays.where(f"x_{split}")
        if arrays.scale is None and (tops[split] > 1) != (tops["train"] > 1):
            yield f"{place}: values up to {tops[split]:g}, the training images' go up to {tops['train']:g}"
        if kinds[split] != kinds["train"]:
            dtype, other = getattr(arrays, f"x_{split}").dtype, arrays.x_train.dtype
            yield f"{place}: dtype {dtype}, the training images are {other}"


def _class_faults(arrays: Arrays) -> Iterator[str]:
    classes = count_classes(arrays)
    if classes < 2:
        yield f"{arrays.where('y_train')}: {classes} class, at least 2 are needed"
        return
    for split in arrays.splits:
        place, found = arrays.where(f"y_{split}"), np.unique(getattr(arrays, f"y_{split}"))
        if found[-1] >= classes:
            yield f"{place}: label {found[-1]}, expected 0..{classes - 1} ({classes} classes)"
        # Searched, not counted up to: a label such as 2,000,000,000 would make a list of that length.
        kept = int((found < classes).sum())
        if kept < classes:
            gaps = np.flatnonzero(found[:kept] != np.arange(kept))
            missing = int(gaps[0]) if len(gaps) else kept
            yield f"{place}: no image of class {_name(arrays, missing)}{_others(classes - kept)}"


def _name(arrays: Arrays, label: int) -> str:
    return f"{label} ({arrays.class_names[label]})" if arrays.class_names else str(label)


def _others(count: int) -> str:
    return f" and of {count - 1:,} more" if count > 1 else ""

"""Inputs and labels: `Arrays`, which a loader returns, their checks, and `Dataset`, on which a sweep trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cnnsweep.config.inputs import NOUNS
from cnnsweep.config.tasks import Task
from cnnsweep.data.inputs import Shapes, input_faults, layout_fault, shapes_of
from cnnsweep.data.labels import class_faults, described, label_faults, missing_class
from cnnsweep.data.text_decoding import TextDecoding
from cnnsweep.errors import UserError

if TYPE_CHECKING:
    from cnnsweep.data.decoding import AnyDecoding
    from cnnsweep.data.vocabulary import Corpus

Array = NDArray[Any]

SPLITS = ("train", "val", "test")
LISTED = 200  # faults in one error; the others are counted
NAMED = 5  # classes in one line


@dataclass(frozen=True, eq=False)
class Arrays:
    """A loader's inputs and labels as they were found; `load` checks, converts and splits them.

    x of images: (images, height, width) or (images, height, width, channels), whole numbers 0..255, or floats 0..1
    or 0..255; of signals: (signals, steps, channels), numbers; of texts: (texts, 1), their places in `corpus`; of
    videos: (videos, frames, height, width, channels), uint8; of several inputs: (examples,), as `inputs.pack` says.
    y: (images,) or (images, 1), whole numbers from 0; for task=multi_label (images, labels), 0 and 1; for
    task=regression (images,) or (images, targets), numbers; for task=segmentation (images, height, width), the class
    of each pixel.
    """

    x_train: Array
    y_train: Array
    x_test: Array | None
    y_test: Array | None
    """Both None: split off the training set, by the share `data.test`."""
    class_names: tuple[str, ...]
    """One name a class, label or target; empty: they are numbered."""
    source: str
    """Where the arrays came from, for people."""
    x_val: Array | None = None
    y_val: Array | None = None
    """A validation set of the data's own; without one, it is split off the training set."""
    scale: float | None = None
    """Multiplied with x it gives 0..1; None: 1 where no value is above 1, else 1/255."""
    name: str | None = None
    """None: named after the loader."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The file of "x_train", "y_train" …, for messages, where each has its own."""
    digest: str | None = None
    """A digest of the content, if the loader knows one; None: it is computed."""
    decoding: AnyDecoding | None = None
    """How files became x; None: x was no files."""
    notes: tuple[str, ...] = ()
    """What a person should know of the data, a line each."""
    kind: str = "image"
    """image, signal, text, video or multi_input."""
    corpus: Corpus | None = None
    """The texts, whose vocabulary is taken from the training part."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The name of each image by split, for messages, where images have names."""
    prints: Mapping[str, Array] = field(default_factory=dict)
    """A fingerprint of each image by split, uint64, where the loader knows them; else they are computed."""
    groups: Mapping[str, Array] = field(default_factory=dict)
    """The group of each image by split: images of one group stay in one split."""

    @classmethod
    def of_splits(cls, x: Mapping[str, Array], y: Mapping[str, Array], **others: Any) -> Arrays:
        """Inputs and labels by split: "train", and "val" and "test" where there are such."""
        halves: dict[str, Any] = {
            f"{a}_{split}": found.get(split) for a, found in (("x", x), ("y", y)) for split in SPLITS
        }
        return cls(**halves, **others)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the data has: "train" and, if it has its own, "val" and "test"."""
        own = {"val": (self.x_val, self.y_val), "test": (self.x_test, self.y_test)}
        return ("train", *(split for split, halves in own.items() if any(a is not None for a in halves)))

    def place(self, key: str) -> str:
        """Where one array came from, for messages."""
        return self.files.get(key, f"{self.source}: {key}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three checked splits; y: as `labels.typed` says.

    x of images: uint8 or float32 (n, height, width, channels); of signals: float32 (n, steps, channels); of texts:
    int32 (n, words), numbers of words; of videos: uint8 (n, frames, height, width, channels); of several inputs:
    (n,), whose fields they are.
    """

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
    task: Task = "classification"
    folds: tuple[int, ...] | None = None
    """The fold of each training image, from 1; these are then all but the test images, and x_val is the first fold."""
    decoding: AnyDecoding | None = None
    """How files became x; None: x was no files."""
    notes: tuple[str, ...] = ()
    """What a person should know of the data when it is loaded; not stored."""
    kind: str = "image"
    """image, signal, text, video or multi_input."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(height, width, channels) of one image; (words, vocabulary) of a text: each word is a one-hot vector.

        `inputs.Shapes` of several inputs.
        """
        shape = shapes_of(self.x_train)
        return (*shape, len(self.decoding.words)) if isinstance(self.decoding, TextDecoding) else shape

    @property
    def noun(self) -> str:
        """ "images", "signals", "texts", "videos" or "examples" """
        return NOUNS[self.kind]

    @property
    def classes(self) -> int:
        """The number of values that a network gives for an image, or a pixel: classes, labels or targets."""
        return len(self.class_names)

    def fold(self, number: int) -> Dataset:
        """The data without folds: those of one fold validate, the others train; with 0 all train."""
        if self.folds is None or number == 0:
            return replace(self, folds=None)
        held_out = np.array(self.folds) == number
        train, val = (np.flatnonzero(mask) for mask in (~held_out, held_out))
        parts = {f"{a}_{split}": getattr(self, f"{a}_train")[rows]
                 for a in "xy" for split, rows in (("train", train), ("val", val))}  # fmt: skip
        return replace(self, **parts, folds=None)

    @property
    def images_an_epoch(self) -> tuple[int, int]:
        """How many images a trial trains on in an epoch, and validates on, all folds together."""
        if self.folds is None:
            return len(self.x_train), len(self.x_val)
        return len(self.x_train) * (max(self.folds) - 1), len(self.x_train)

    def facts(self) -> dict[str, object]:
        """Plain values that are stored with a run: where the data came from, and their content in short."""
        validation = len(self.x_val if self.folds is None else self.x_train)
        sizes = {"train": len(self.x_train), "validation": validation, "test": len(self.x_test)}
        if self.folds is not None:
            sizes["folds"] = max(self.folds)
        shape = {"shape": list(self.input_shape), "classes": self.classes, "kind": self.kind}
        images = sizes | shape if len(self.x_train) else {}  # a function of the user's own reads its own
        return {"name": self.name, "digest": self.digest, "source": self.source, **images}

    def describe(self) -> str:
        """One line for the screen and the log, and one for each note."""
        counts = [f"{len(x):,}" for x in (self.x_train, self.x_val, self.x_test)]
        shape = self.input_shape
        size = str(shape) if isinstance(shape, Shapes) else "×".join(map(str, shape))
        size = f"{shape[0]} words of a vocabulary of {shape[1]:,}" if self.kind == "text" else size
        images = f"{counts[0]} training, {counts[1]} validation, {counts[2]} test {self.noun}"
        if self.folds is not None:
            images = f"{counts[0]} {self.noun} in {max(self.folds)} folds, {counts[2]} test {self.noun}"
        outputs = described(self.class_names, self.task, NAMED)
        first = f"{self.name}: {images}, {size}, {outputs}, from {self.source}"
        return "\n  ".join([first, *self.notes])


def refuse(faults: list[str], advice: str = "") -> NoReturn:
    """Raise one UserError that lists all faults, each of which starts with its file, and then the advice."""
    last = f"\n  {advice}" if advice else ""
    if len(faults) == 1:
        raise UserError(f"data cannot be used: {faults[0]}{last}")
    more = [f"… and {len(faults) - LISTED:,} more"] if len(faults) > LISTED else []
    lines = "".join(f"\n  {fault}" for fault in [*faults[:LISTED], *more])
    raise UserError(f"data cannot be used, {len(faults):,} faults:{lines}{last}")


def find_faults(arrays: Arrays, task: Task = "classification") -> list[str]:
    """Return every fault of the arrays; none if `load` can use them for this task."""
    faults = [fault for split in arrays.splits for fault in _split_faults(arrays, split, task)]
    # Comparisons between splits mean something only for arrays that are sound themselves.
    return faults or [*_mismatches(arrays), *class_faults(arrays, task)]


def find_missing(arrays: Arrays, y: Mapping[str, Array], task: Task) -> list[str]:
    """A line for each split, with its labels in `y`, that has no image of some class: nothing is measured of these."""
    found = {split: missing_class(each, arrays, task) for split, each in y.items()}
    effect = {"classification": "; f1 and fbeta count that as 0", "multi_label": "; f1, fbeta and auc count that as 0"}
    return [f"{_place_of(arrays, split)}{text}{effect.get(task, '')}" for split, text in found.items() if text]


def _place_of(arrays: Arrays, split: str) -> str:
    if split in arrays.splits:
        return f"{arrays.place(f'y_{split}')}: "
    return f"{arrays.place('y_train')}: the {'validation' if split == 'val' else split} part has "


def find_scale(arrays: Arrays, train: Array) -> float:
    """The factor by which x becomes 0..1, or, of signals, gets a standard deviation of 1 in the training part."""
    if arrays.scale is not None:
        return arrays.scale
    if arrays.kind == "signal":
        spread, largest = float(np.std(train, dtype=np.float64)), float(np.abs(train).max())
        return 1 / spread if spread > 1e-7 * largest else 1.0  # they are constant but for rounding
    return 1.0 if max(float(getattr(arrays, f"x_{s}").max()) for s in arrays.splits) <= 1 else 1 / 255


def _split_faults(arrays: Arrays, split: str, task: Task) -> Iterator[str]:
    x, y = getattr(arrays, f"x_{split}"), getattr(arrays, f"y_{split}")
    x_place, y_place = arrays.place(f"x_{split}"), arrays.place(f"y_{split}")
    if x is None or y is None:
        yield f"{x_place if x is None else y_place}: missing, though the set's other half is there"
        return
    found = _image_faults(x, arrays.scale) if arrays.kind == "image" else input_faults(arrays.kind, x)
    yield from (f"{x_place}: {fault}" for fault in found)
    yield from (f"{y_place}: {fault}" for fault in label_faults(y, task))
    if x.ndim and y.ndim and len(x) != len(y):
        yield f"{y_place}: {len(y):,} labels for {len(x):,} {NOUNS[arrays.kind]} in {x_place}"


def _image_faults(x: Array, scale: float | None) -> Iterator[str]:
    if x.ndim not in (3, 4):
        yield f"shape {x.shape}, expected (images, height, width) or (images, height, width, channels)"
    elif x.size == 0:
        yield f"shape {x.shape} holds no images"
    elif fault := layout_fault("image", x.shape):
        yield fault
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


def _mismatches(arrays: Arrays) -> Iterator[str]:
    train = arrays.x_train
    for split in arrays.splits[1:]:
        place, x = arrays.place(f"x_{split}"), getattr(arrays, f"x_{split}")
        noun, missing = NOUNS[arrays.kind], (1,) if arrays.kind == "image" and x.ndim == 3 else ()
        shape, expected = ((*a.shape[1:], *missing) if a.ndim == x.ndim else a.shape[1:] for a in (x, train))
        if shape != expected:
            yield f"{place}: {noun} of {shape}, the training {noun} are {expected}"
        if split == "test" and x.shape == train.shape and np.array_equal(x, train):
            yield f"{place}: the test {noun} are the training {noun}"
        if arrays.kind == "image" and arrays.scale is None and (x.max() > 1) != (train.max() > 1):
            yield f"{place}: values up to {x.max():g}, the training images' go up to {train.max():g}"
        if (x.dtype.kind == "f") != (train.dtype.kind == "f"):
            yield f"{place}: dtype {x.dtype}, the training images are {train.dtype}"

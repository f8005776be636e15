"""Data sets on disk: .npy files that are written piece by piece, mapped into memory and read in batches."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.decoding import decoding_of
from cnnsweep.data.inputs import unpacked
from cnnsweep.errors import UserError

if TYPE_CHECKING:
    import keras

ARRAYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
DESCRIPTION = ("name", "class_names", "source", "digest", "scale", "task", "folds", "kind")
PIECE = 32 * 2**20  # bytes that are copied at a time


def save(dataset: Dataset, folder: Path) -> None:
    """Write the data set to `folder`, in one step; a folder that holds it already is left as it is.

    Raises UserError where the folder cannot be written.
    """
    if _holds(folder, dataset):
        return
    try:
        with new_folder(folder) as new:
            for key in ARRAYS:
                save_array(getattr(dataset, key), new / f"{key}.npy")
            write_description(dataset, new)
            _replace(folder, new, dataset)
    except OSError as error:
        raise UserError(f"cannot write the data to {folder}: {error}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, to be filled and renamed to it; without that it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new


def write_description(dataset: Dataset, folder: Path) -> None:
    """Write dataset.json, all of a data set but its arrays."""
    description = {key: getattr(dataset, key) for key in DESCRIPTION}
    description["decoding"] = dataset.decoding and asdict(dataset.decoding)
    (folder / "dataset.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def open_saved(folder: Path) -> Dataset:
    """Open a saved data set, in milliseconds: the arrays are read-only maps of the files.

    Raises UserError where the folder holds no complete data set.
    """
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        description["class_names"] = tuple(description["class_names"])
        description["folds"] = None if description["folds"] is None else tuple(description["folds"])
        stored = description["decoding"]
        description["decoding"] = stored and decoding_of(description["kind"], stored)
        description |= {key: open_map(folder / f"{key}.npy") for key in ARRAYS}
        return Dataset(**description)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no complete data set: {error}") from error


def _holds(folder: Path, dataset: Dataset) -> bool:
    try:
        saved = open_saved(folder)
    except UserError:
        return False
    return all(getattr(saved, key) == getattr(dataset, key) for key in (*DESCRIPTION, "decoding"))


def _replace(folder: Path, new: Path, dataset: Dataset) -> None:
    """Move `new` to `folder` in place of an earlier one; another process may be doing the same."""
    try:
        os.rename(new, folder)
    except OSError:
        if not _holds(folder, dataset):
            os.rename(folder, new.with_name("old"))
            os.rename(new, folder)


class Writer:
    """A .npy file that grows by rows, up to `shape[0]`; closing it writes how many there are."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.rows = 0
        self._shape, self._dtype = shape, np.dtype(dtype)
        self.row_bytes = self._dtype.itemsize * math.prod(shape[1:])
        self._file = path.open("wb")
        self._write_header(shape[0])

    def append(self, rows: Array) -> None:
        """Write rows of the file's shape and type."""
        if rows.shape[1:] != self._shape[1:] or self.rows + len(rows) > self._shape[0]:
            raise ValueError(f"rows of shape {rows.shape} after {self.rows} do not fit {self._shape}")
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # NumPy leaves room in the header for any number of rows, so the second one is as long as the first.
        self._file.seek(0)
        self._write_header(self.rows)
        self._file.close()

    def _write_header(self, rows: int) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (rows, *self._shape[1:])}
        np.lib.format.write_array_header_1_0(self._file, header)


def open_map(path: Path) -> Array:
    """Map a .npy file, read-only; an empty array, which cannot be mapped, is read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def is_whole_file(array: Array) -> bool:
    """Whether an array is the map of a whole .npy file, rather than a part of it or an array in memory."""
    return isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)


def take(array: Array, rows: Array) -> Array:
    """`array[rows]` (row numbers); of a mapped file it is written beside it, once, and mapped as well."""
    if len(rows) == len(array) and np.array_equal(rows, np.arange(len(array))):
        return array
    if not is_whole_file(array):
        return array[rows]
    source = _file_of(array)
    name = hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()[:16]
    path = source.with_name(f"{source.stem}-{name}.npy")
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        with Writer(partial, (len(rows), *array.shape[1:]), array.dtype) as writer:
            each = _rows_in_piece(array)
            for start in range(0, len(rows), each):
                writer.append(array[rows[start : start + each]])
        os.replace(partial, path)
    return open_map(path)


def concatenate(arrays: Sequence[Array], path: Path) -> Array:
    """Write arrays one after the other to a new file, piece by piece, and map it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, (sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype) as writer:
        for array in arrays:
            each = _rows_in_piece(array)
            for start in range(0, len(array), each):
                writer.append(array[start : start + each])
    return open_map(path)


def _rows_in_piece(array: Array) -> int:
    return max(1, PIECE // max(1, array[:1].nbytes))


def save_array(array: Array, path: Path) -> None:
    """Save an array as a .npy file; the map of such a file is linked rather than copied."""
    if not is_whole_file(array):
        np.save(path, array, allow_pickle=False)
        return
    try:
        os.link(_file_of(array), path)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(_file_of(array), path)


def _file_of(array: Array) -> Path:
    assert isinstance(array, np.memmap)
    return Path(str(array.filename))


def read_in_batches(
    x: Array, y: Array, size: int, order: Array, encode: Callable[[Array], tuple[Array, ...]] = lambda y: (y,)
) -> keras.utils.PyDataset:
    """The rows of mapped arrays in the given order, `size` at a time, each batch read when it is needed.

    `encode` makes a batch's labels what the loss takes.
    """
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(order) / size)

        def __getitem__(self, index: int) -> tuple[Array | dict[str, Array], ...]:
            rows = order[index * size : (index + 1) * size]
            return unpacked(np.asarray(x[rows])), *encode(np.asarray(y[rows]))

    return Batches()

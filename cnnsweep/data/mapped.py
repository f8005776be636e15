"""Arrays that may be larger than memory: .npy files that are written piece by piece and mapped, never loaded."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from cnnsweep.data.arrays import Array

PIECE = 32 * 2**20
"""Bytes that are copied at a time."""


class Writer:
    """A .npy file that grows by rows, `shape[0]` of them at most; closing it writes how many there are."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.rows = 0
        self._shape, self._dtype = shape, np.dtype(dtype)
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
    """Map a .npy file, read-only; an empty array is read, since nothing cannot be mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)


def is_whole_file(array: Array) -> bool:
    """Whether an array is the map of a whole .npy file, rather than a part of it or an array in memory."""
    return isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)


def take(array: Array, rows: Array) -> Array:
    """`array[rows]` (row numbers); of a mapped file it is written beside it, once, and mapped as well."""
    if not is_whole_file(array):
        return array[rows]
    if len(rows) == len(array) and np.array_equal(rows, np.arange(len(array))):
        return array
    assert isinstance(array, np.memmap)
    source = Path(str(array.filename))
    name = hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()[:16]
    path = source.with_name(f"{source.stem}-{name}.npy")
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        with Writer(partial, (len(rows), *array.shape[1:]), array.dtype) as writer:
            for piece in pieces(array, rows):
                writer.append(array[piece])
        os.replace(partial, path)
    return open_map(path)


def pieces(array: Array, rows: Array) -> Iterator[Array]:
    """The row numbers in portions that are small in memory."""
    each = max(1, PIECE // max(1, array[:1].nbytes))
    for start in range(0, len(rows), each):
        yield rows[start : start + each]


def put(array: Array, path: Path) -> None:
    """Save an array as a .npy file; one that is such a file already is linked rather than copied."""
    if not is_whole_file(array):
        np.save(path, array, allow_pickle=False)
        return
    assert isinstance(array, np.memmap)
    source = str(array.filename)
    try:
        os.link(source, path)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, path)

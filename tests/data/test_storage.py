"""Data sets on disk: saved and opened, mapped files, and rows of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import SPLITS, digits

from cnnsweep.data import storage
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError


def test_a_saved_data_set_is_opened_as_it_was(tmp_path: Path) -> None:
    dataset, folder = digits(), tmp_path / "sweep" / "data"
    save(dataset, folder)
    opened = open_saved(folder)
    assert isinstance(opened.x_train, np.memmap)
    for split in SPLITS:
        for key in ("x", "y"):
            assert np.array_equal(getattr(opened, f"{key}_{split}"), getattr(dataset, f"{key}_{split}"))
    assert opened.describe() == dataset.describe()
    assert (opened.digest, opened.scale) == (dataset.digest, dataset.scale)
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_saving_writes_only_what_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    save(digits(), folder)
    before = (folder / "x_train.npy").stat()
    save(digits(), folder)
    after = (folder / "x_train.npy").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    other = digits(seed=1)
    save(other, folder)
    assert open_saved(folder).digest == other.digest
    (folder / "y_val.npy").write_bytes(b"")
    save(other, folder)
    assert np.array_equal(open_saved(folder).y_val, other.y_val)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the data to"):
        save(digits(), tmp_path / "file" / "data")
    with pytest.raises(UserError, match="holds no complete data set"):
        open_saved(tmp_path)


def test_taking_rows_of_a_mapped_file(tmp_path):
    whole = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    np.save(tmp_path / "whole.npy", whole)
    source, rows = storage.open_map(tmp_path / "whole.npy"), np.array([7, 1, 1, 9])
    taken = storage.take(source, rows)
    np.testing.assert_array_equal(taken, whole[rows])
    assert storage.is_whole_file(taken)
    assert not storage.is_whole_file(source[2:5])
    assert storage.take(source, np.arange(10)) is source
    np.testing.assert_array_equal(storage.take(whole, rows), whole[rows])


def test_a_file_of_fewer_rows_than_planned(tmp_path):
    with storage.Writer(tmp_path / "a.npy", (1_000_000, 2), np.float32) as writer:
        writer.append(np.ones((3, 2)))
        with pytest.raises(ValueError, match="do not fit"):
            writer.append(np.ones((3, 3)))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.ones((3, 2), np.float32))

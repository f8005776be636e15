"""Arrays in a .npz file, and what is wrong with them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import config, made

from cnnsweep.data import storage
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.inputs import unpacked
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError

X, Y = made().x_train, made().y_train


def npz(path: Path, **changes: Any) -> Dataset:
    return load(config("cnnsweep.data.npz.load", file=str(path), **{"kind": "image", **changes}), 0)


def _write_npz(path: Path, **changes: Any) -> Path:
    arrays = {key: getattr(made(), key) for key in ("x_train", "y_train", "x_test", "y_test")} | changes
    np.savez_compressed(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


def test_npz(tmp_path: Path) -> None:
    found = npz(_write_npz(tmp_path / "mine.npz", class_names=np.array(["cat", "dog"])))
    assert found.name == "mine"
    assert found.class_names == ("cat", "dog")
    own = npz(_write_npz(tmp_path / "own.npz", x_val=X[:4], y_val=Y[:4]))
    assert (len(own.x_train), len(own.x_val)) == (12, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None, "X_test": X}, "no array x_test, did you mean 'X_test'?"),
        ({"x_test": None, "y_test": None}, "2 faults"),
        ({"y_train": Y.astype(object)}, "y_train cannot be read"),
        ({"class_names": np.arange(2)}, "class_names is int64 (2,), expected a list of texts"),
        ({"class_names": np.array(["a", "a"])}, "class_names: 'a' is given twice"),
        ({"class_names": np.array(["", "b"])}, "class_names: '' is no name"),
        ({"y_train": Y.astype(float)}, "y_train: dtype float64"),
        ({"x_val": X[:4]}, "y_val: missing"),
    ],
)
def test_npz_faults_name_the_file(tmp_path: Path, changes: Mapping[str, Any], message: str) -> None:
    path = _write_npz(tmp_path / "mine.npz", **changes)
    with pytest.raises(UserError) as caught:
        npz(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    path = _write_npz(tmp_path / "mine.npz")
    with pytest.raises(UserError, match=r"does not exist, did you mean 'mine\.npz'\?"):
        npz(tmp_path / "mien.npz")
    with pytest.raises(UserError, match="is a folder"):
        npz(tmp_path)
    with pytest.raises(UserError, match=r"data\.file is not set"):
        load(config("cnnsweep.data.npz.load", file="", kind="image"), 0)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"mine\.npz: not a readable \.npz file"):
        npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train", "text")
    with pytest.raises(UserError, match=r"x_train cannot be read \(no \.npy file\)"):
        npz(path)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(UserError, match=r"mine\.npz: a single array"):
        npz(path)


AGES = np.arange(12.0)


def _write_several(path: Path, **changes: Any) -> Path:
    several = {"x_train_image": X, "x_train_age": AGES, "x_test_image": X[:6] + 1, "x_test_age": AGES[:6]}
    return _write_npz(path, **{"x_train": None, "x_test": None, **several, **changes})


def test_several_inputs_are_split_saved_and_given_by_name(tmp_path: Path) -> None:
    found = npz(_write_several(tmp_path / "mine.npz"))
    assert (found.kind, found.input_shape.by_name) == ("multi_input", {"image": (4, 4), "age": (1,)})
    assert "10 training, 2 validation, 6 test examples, image 4×4, age 1, 2 classes" in found.describe()
    storage.save(found, tmp_path / "saved")
    opened = storage.open_saved(tmp_path / "saved")
    assert (opened.digest, opened.scale) == (found.digest, 1.0)
    x = unpacked(opened.x_train)
    assert (x["image"].dtype, x["age"].dtype) == (np.uint8, np.float32)
    rows = x["age"].astype(int).ravel()
    assert np.array_equal(x["image"], X[rows])
    assert np.array_equal(opened.y_train, Y[rows])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test_age": None, "x_test_agee": AGES[:6]}, "no array x_test_age, did you mean 'x_test_agee'?"),
        ({"x_test_meta": AGES[:6]}, "x_test_meta is no input of the training data (image, age)"),
        ({"x_val_age": AGES[:2]}, "no array x_val_image"),
        ({"x_train_age": np.full(12, np.nan)}, "x_train_age: NaN or infinity in 12 of 12 examples, first in example 0"),
        (
            {"x_train_age": np.full(12, 2**31)},
            "x_train_age: values from 2147483648 to 2147483648, expected those of 32 bits",
        ),
        ({"x_train_age": np.full(12, "old")}, "x_train_age: dtype <U3, expected numbers"),
        ({"x_test_age": np.ones((6, 2))}, "x_test_age: (2,) an example, the training data have ()"),
        ({"x_train_age": AGES[:11]}, "x_train_age has 11 examples, y_train 12"),
    ],
)
def test_faults_of_several_inputs_name_the_array(tmp_path: Path, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        npz(_write_several(tmp_path / "mine.npz", **changes))
    assert message in str(caught.value)

"""Loading, checking and splitting data, and the error for each kind of broken data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data_sets import SPLITS, config, counts, digits, made
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnsweep.data.arrays import Arrays, Dataset
from cnnsweep.data.digits import read
from cnnsweep.data.loading import choose, load, refuse_other, shares
from cnnsweep.errors import UserError


def _load_arrays(arrays: Arrays, seed: int = 0, **changes: Any) -> Dataset:
    """Through `load`, as a user's own loader would."""
    _load_arrays.result = arrays  # type: ignore[attr-defined]
    return load(config(f"{__name__}.user_loader", **changes), seed)


def user_loader(_: Mapping[str, Any]) -> Arrays:
    return _load_arrays.result  # type: ignore[attr-defined]


# Splitting


@given(st.lists(st.integers(2, 60), min_size=2, max_size=12), st.floats(0.01, 0.9), st.integers(0, 2**63), st.data())
@settings(max_examples=100, deadline=None)
def test_a_split_is_stratified_disjoint_and_complete(
    sizes: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    labels = np.array(data.draw(st.permutations(np.repeat(range(len(sizes)), sizes).tolist())))
    x = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1) / len(labels)
    arrays = Arrays(x, labels, x[::-1].copy(), labels[::-1].copy(), (), "memory")
    found = _load_arrays(arrays, seed=seed, validation=share)
    assert sorted([*found.x_train.ravel(), *found.x_val.ravel()]) == x.ravel().tolist()
    exact = np.array(sizes) * round(len(labels) * share) / len(labels)
    assert np.abs(counts(found, "val") - exact).max() <= 1
    assert counts(found, "train").min() >= 1
    assert counts(found, "val").min() >= 1
    at = (x.ravel().searchsorted(found.x_val.ravel()), x.ravel().searchsorted(found.x_train.ravel()))
    assert (labels[at[0]] == found.y_val).all()
    assert (labels[at[1]] == found.y_train).all()


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_shares_round_each_class_and_keep_the_total(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    taken = shares(np.array(sizes), total)
    exact = np.array(sizes) * total / sum(sizes)
    assert (np.abs(taken - exact) <= 1).all()
    assert (taken <= sizes).all()
    assert (taken >= 1).all()
    if (exact >= 1).all():
        assert taken.sum() == total


def test_the_choice_never_changes() -> None:
    mask = choose(np.arange(20) % 2, np.array([3, 2]), seed=7, stream=2)
    assert np.flatnonzero(mask).tolist() == [5, 8, 10, 11, 14]


# Digits


def test_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    images, labels = read()
    assert np.array_equal(images, load_digits().images)
    assert np.array_equal(labels, load_digits().target)


def test_digits() -> None:
    found = digits()
    assert found.name == "digits"
    assert found.input_shape == (8, 8, 1)
    assert found.classes == 10
    assert found.x_train.dtype == np.uint8
    assert found.y_train.dtype == np.int32
    assert [len(getattr(found, f"x_{s}")) for s in SPLITS] == [1150, 288, 359]
    assert found.x_train.max() * found.scale == 1.0
    assert found.describe().startswith("digits: 1,150 training, 288 validation, 359 test images, 8×8×1, 10 classes")


def test_the_seed_decides_the_validation_set_and_only_that() -> None:
    first, again, other = digits(0), digits(0), digits(1)
    assert first.digest == again.digest != other.digest
    assert (first.x_train == again.x_train).all()
    assert not np.array_equal(first.x_val, other.x_val)
    assert np.array_equal(first.x_test, other.x_test)
    assert np.array_equal(first.y_test, other.y_test)


def test_limit_takes_that_many_stratified_and_leaves_the_test_set() -> None:
    found = digits(limit=200)
    assert len(found.x_train) + len(found.x_val) == 200
    assert np.ptp(counts(found, "train") + counts(found, "val")) <= 1
    assert np.array_equal(found.x_test, digits().x_test)
    assert digits(limit=10**6).digest == digits().digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 5}, r"data.limit=5 leaves a class without images, at least 10 images are needed"),
        ({"limit": 10}, r"one image only for class 0, 1, 2, 3, 4 …: none remains for validation"),
    ],
)
def test_limits_that_are_too_small(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        digits(**changes)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("load", "cannot import 'load' (expected package.module.name)"),
        (".digits.load", "cannot import '.digits.load' (expected package.module.name)"),
        ("cnnsweep.data.digit.load", "cannot import 'cnnsweep.data.digit.load'"),
        ("cnnsweep.data.mnist.fashion_mnits", "no class or function 'fashion_mnits', did you mean 'fashion_mnist'?"),
        ("cnnsweep.data.mnist.SIZE", "no class or function 'SIZE'"),
        ("builtins.len", "data._target_ 'builtins.len' returned int, expected Arrays"),
        ("builtins.chr", "data._target_ 'builtins.chr' failed: TypeError"),
    ],
)
def test_targets_that_are_no_loader(target: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(config(target), 0)
    assert message in str(caught.value)


# Any loader's arrays


def test_sound_arrays_are_brought_to_one_form() -> None:
    x = np.random.default_rng(0).random((12, 4, 4, 3))
    found = _load_arrays(made(x_train=x, x_test=x[6:] / 2, y_train=np.arange(12).reshape(-1, 1) % 2))
    assert found.name == "user_loader"
    assert found.class_names == ("0", "1")
    assert found.x_train.dtype == np.float32
    assert found.x_train.shape[1:] == found.input_shape == (4, 4, 3)
    assert found.y_train.ndim == 1
    assert found.scale == 1.0
    whole = _load_arrays(made())
    assert whole.x_train.shape[1:] == (4, 4, 1)
    assert whole.scale == 1 / 255
    assert whole.digest != found.digest


@pytest.mark.parametrize("of", [list, memoryview, pd.Series])
def test_a_loader_may_return_lists_and_columns(of: Any) -> None:
    own = made()
    found = _load_arrays(made(x_train=own.x_train.tolist(), y_train=of(own.y_train), class_names=["a", "b"]))
    again = _load_arrays(made(class_names=("a", "b")))
    assert found.class_names == again.class_names
    for key in ("x_train", "y_train", "x_val"):
        np.testing.assert_array_equal(getattr(found, key), getattr(again, key))


def test_the_data_s_own_validation_set_is_used_as_it_is() -> None:
    own = made()
    found = _load_arrays(made(x_val=own.x_test + 1, y_val=own.y_test))
    assert len(found.x_train) == 12
    assert np.array_equal(found.x_val[..., 0], own.x_test + 1)


@pytest.mark.parametrize(("kind", "shape"), [("image", (3, 6, 8)), ("video", (6, 3, 6, 8)), ("signal", (2, 9))])
def test_channels_that_seem_to_come_first_are_named(kind: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (18, *shape))
    (note,) = _load_arrays(made(kind=kind, x_train=x[:12], x_test=x[12:])).notes
    assert note.startswith(f"x has the shape {(12, *shape)}: {shape[-1]} channels; if these are ")
    turned = np.moveaxis(x, -1, 1)
    assert not _load_arrays(made(kind=kind, x_train=turned[:12], x_test=turned[12:])).notes


X, Y = made().x_train, made().y_train
NAN = X.astype(float)
NAN[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": X[0]}, "memory: x_train: shape (4, 4), expected (images, height, width)"),
        ({"x_train": [X[0], X[0, :2]]}, "memory: x_train: is no array ("),
        ({"x_train": np.ma.masked_greater(X, 99)}, "memory: x_train: has masked values"),
        ({"kind": "images"}, "kind is 'images' (image, signal, text, video, multi_input, did you mean 'image'?)"),
        ({"x_train": X[:0]}, "memory: x_train: shape (0, 4, 4) holds no images"),
        ({"x_train": X.astype(object)}, "memory: x_train: dtype object, expected uint8 or float32"),
        ({"x_train": np.zeros((12, 3, 8, 8))}, "has the channels first"),
        ({"x_train": np.zeros((12, 4, 8, 8))}, "has the channels first"),
        ({"kind": "video", "x_train": np.zeros((12, 6, 3, 8, 8), int)}, "8, 8) has the channels first"),
        ({"kind": "video", "x_train": np.zeros((12, 3, 6, 8, 8), int)}, "8, 8) has the channels first"),
        ({"x_train": NAN}, "memory: x_train: NaN in 1 of 12 images, first in image 3"),
        ({"x_train": X - 300.0}, "expected 0..1 or 0..255"),
        ({"x_train": X / 200}, "which is neither 0..1 nor 0..255"),
        ({"x_train": X / 255}, "memory: x_test: values up to 25"),
        ({"x_train": X.astype(float)}, "memory: x_test: dtype uint8, the training images are float64"),
        ({"scale": 1 / 16}, "expected 0..16"),
        ({"x_test": X[:6, :3]}, "memory: x_test: images of (3, 4, 1), the training images are (4, 4, 1)"),
        ({"x_test": X, "y_test": Y}, "memory: x_test: the test images are the training images"),
        ({"y_train": Y[:-1]}, "memory: y_train: 11 labels for 12 images in memory: x_train"),
        ({"y_train": Y.astype(float)}, "memory: y_train: dtype float64, expected whole numbers"),
        ({"y_train": np.eye(2)[Y]}, "memory: y_train: shape (12, 2), expected (images,); one-hot"),
        ({"y_train": Y - 1}, "memory: y_train: label -1, expected whole numbers from 0"),
        ({"y_train": Y * 0}, "memory: y_train: 1 class, at least 2 are needed"),
        (
            {"y_train": Y + 1},
            "memory: y_train: no image of class 0: the values are 1, 2, expected whole numbers from 0",
        ),
        ({"y_train": Y * 2_000_000_000}, "memory: y_train: no image of class 1 and of 1,999,999,998 more"),
        ({"y_test": np.ones(6, int)}, "memory: y_test: images of one class only (1)"),
        ({"class_names": ("cat", "dog", "owl")}, "memory: y_train: no image of class 2 (owl)"),
        ({"class_names": ("cat", "dog"), "y_train": Y * 2}, "memory: y_train: label 2, expected 0..1"),
        ({"x_val": X}, "memory: y_val: missing"),
        ({"files": {"x_train": "images.bin"}, "x_train": X[0]}, "images.bin: shape (4, 4)"),
    ],
)
def test_faults_name_the_place(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        _load_arrays(made(**changes))
    assert message in str(caught.value)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(UserError, match=r"2 faults:\n  memory: x_train: .*\n  memory: y_test: ") as caught:
        _load_arrays(made(x_train=NAN, y_test=Y[:6] - 1))
    assert len(str(caught.value).splitlines()) == 3


def test_data_without_a_test_set_needs_a_share_for_it() -> None:
    assert len(_load_arrays(made(x_test=None, y_test=None), test=0.5).x_test) == 6
    for share in (None, 0, 1.0, "some", True):
        with pytest.raises(UserError, match=r"data\.test is .*, expected a share of the training set"):
            _load_arrays(made(x_test=None, y_test=None), test=share)


@pytest.mark.parametrize(
    ("changes", "seed", "difference"),
    [
        ({}, 1, r"digest \w+ → \w+"),
        ({"limit": 300}, 0, r"digest \w+ → \w+, training images 160 → 240, validation images 40 → 60"),
    ],
)
def test_data_that_are_not_those_of_a_run_are_refused_with_the_difference(
    changes: Mapping[str, Any], seed: int, difference: str
) -> None:
    stored = {key: str(value) for key, value in digits(limit=200).facts().items()}
    refuse_other(digits(limit=200), stored, "sweep began")
    other = digits(seed, **{"limit": 200, **changes})
    with pytest.raises(UserError, match=rf"changed since sweep began \({difference}, data.x 1 → 2; scikit-learn"):
        refuse_other(other, stored, "sweep began", ["data.x 1 → 2"])


@pytest.mark.parametrize("change", ["a file more", "another file", "a file under another name"])
def test_another_split_of_a_folder_is_other_data(tmp_path: Path, change: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8)).save(path)
    extra = {"image_size": 4, "resize": "crop", "color": "grey", "skip_bad": False, "cache": str(tmp_path / "cache")}
    extra |= {"test": 0.2, "class_depth": None, "max_megapixels": 180.0}
    settings = config("cnnsweep.data.image_folder.load", dir=str(tmp_path / "images"), **extra)
    stored = load(settings, 0).facts()
    moved = tmp_path / "elsewhere" / "images"
    moved.parent.mkdir()
    (tmp_path / "images").rename(moved)
    settings = settings.replace(dir=str(moved))
    refuse_other(load(settings, 0), stored, "sweep began")
    one = moved / "a" / "0.png"
    match change:
        case "a file more":
            (moved / "a" / "99.png").write_bytes(one.read_bytes())
        case "another file":
            one.write_bytes((moved / "a" / "2.png").read_bytes())
        case _:
            one.rename(one.with_name("99.png"))
    with pytest.raises(
        UserError, match=r", test images 2 → 3; " if change == "a file more" else r"\(digest \w+ → \w+; "
    ):
        refuse_other(load(settings, 0), stored, "sweep began")

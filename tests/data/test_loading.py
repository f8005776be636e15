"""Loading, checking, splitting and saving data: what comes out, and what each kind of broken data is told."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnsweep.data import download as fetch
from cnnsweep.data import idx
from cnnsweep.data.loading import Arrays, Dataset, load, open_saved, save
from cnnsweep.data.split import choose, shares
from cnnsweep.errors import UserError

SPLITS = ("train", "val", "test")


def config(target: str, **changes: Any) -> dict[str, Any]:
    base = {"_target_": target, "dir": None, "limit": None, "validation": 0.2}
    return base | changes


def digits(seed: int = 0, **changes: Any) -> Dataset:
    return load(config("cnnsweep.data.digits.load", **changes), seed)


def counts(dataset: Dataset, split: str) -> np.ndarray:
    return np.bincount(getattr(dataset, f"y_{split}"), minlength=dataset.classes)


# Splitting


@given(
    st.lists(st.integers(2, 60), min_size=2, max_size=12),
    st.floats(0.01, 0.9),
    st.integers(0, 2**63),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_a_split_is_stratified_disjoint_and_complete(
    sizes: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    labels = np.array(data.draw(st.permutations(np.repeat(range(len(sizes)), sizes).tolist())))
    x = np.arange(len(labels), dtype=np.float32).reshape(-1, 1, 1) / len(labels)
    made = Arrays(x, labels, x[::-1].copy(), labels[::-1].copy(), (), "memory")
    found = _load_arrays(made, seed=seed, validation=share)
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
        ({"validation": 0}, r"data.validation is 0, expected a share"),
        ({"validation": 1.0}, r"data.validation is 1.0, expected a share"),
        ({"validation": "some"}, r"data.validation is 'some', expected a share"),
        ({"limit": 0}, r"data.limit is 0, expected a number of images or null"),
        ({"limit": 5}, r"data.limit=5 leaves a class out, at least 10 images are needed"),
        ({"limit": 10}, r"one image only for class 0, 1, 2, 3, 4 …: none is left for validation"),
    ],
)
def test_wrong_options(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        digits(**changes)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("load", "is no path to a function"),
        (".digits.load", "is no path to a function"),
        ("cnnsweep.data.loading.digit.load", "cannot import 'cnnsweep.data.loading.digit': No module named"),
        ("cnnsweep.data.idx.fashion_mnits", "has no 'fashion_mnits', did you mean 'fashion_mnist'?"),
        ("cnnsweep.data.idx.SIZE", "is a tuple, expected a function"),
        ("builtins.len", "returned int, expected Arrays"),
    ],
)
def test_a_loader_that_is_none(target: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(config(target), 0)
    assert message in str(caught.value)
    assert target in str(caught.value)


# Any loader's arrays


def _made(**changes: Any) -> Arrays:
    """Two classes of 4×4 images, 12 for training and 6 for the test."""
    x = np.random.default_rng(0).integers(0, 256, (18, 4, 4), np.uint8)
    y = np.arange(18) % 2
    base = {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:]}
    return Arrays(**{**base, "class_names": (), "source": "memory", **changes})


def _load_arrays(arrays: Arrays, seed: int = 0, **changes: Any) -> Dataset:
    """Through `load`, as a user's own loader would."""
    _load_arrays.result = arrays  # type: ignore[attr-defined]
    return load(config(f"{__name__}.user_loader", **changes), seed)


def user_loader(_: Mapping[str, Any]) -> Arrays:
    return _load_arrays.result  # type: ignore[attr-defined]


def test_sound_arrays_are_brought_to_one_form() -> None:
    x = np.random.default_rng(0).random((12, 4, 4, 3))
    found = _load_arrays(_made(x_train=x, x_test=x[6:] / 2, y_train=np.arange(12).reshape(-1, 1) % 2))
    assert found.name == "user_loader"
    assert found.class_names == ("0", "1")
    assert found.x_train.dtype == np.float32
    assert found.x_train.shape[1:] == found.input_shape == (4, 4, 3)
    assert found.y_train.ndim == 1
    assert found.scale == 1.0
    whole = _load_arrays(_made())
    assert whole.x_train.shape[1:] == (4, 4, 1)
    assert whole.scale == 1 / 255
    assert whole.digest != found.digest


def test_the_data_s_own_validation_set_is_used_as_it_is() -> None:
    made = _made()
    found = _load_arrays(_made(x_val=made.x_test + 1, y_val=made.y_test))
    assert len(found.x_train) == 12
    assert np.array_equal(found.x_val[..., 0], made.x_test + 1)


X, Y = _made().x_train, _made().y_train
NAN = X.astype(float)
NAN[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": X[0]}, "memory: x_train: shape (4, 4), expected (images, height, width)"),
        ({"x_train": X[:0]}, "memory: x_train: shape (0, 4, 4) holds no images"),
        ({"x_train": X.astype(object)}, "memory: x_train: dtype object, expected uint8 or float32"),
        ({"x_train": np.zeros((12, 3, 8, 8))}, "has the channels first"),
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
        ({"y_train": Y + 1}, "memory: y_train: no image of class 0"),
        ({"y_train": Y * 2_000_000_000}, "memory: y_train: no image of class 1 and of 1,999,999,998 more"),
        ({"y_test": np.ones(6, int)}, "memory: y_test: no image of class 0"),
        ({"class_names": ("cat", "dog", "owl")}, "memory: y_train: no image of class 2 (owl)"),
        ({"class_names": ("cat", "dog"), "y_train": Y * 2}, "memory: y_train: label 2, expected 0..1"),
        ({"x_val": X}, "memory: y_val: missing"),
        ({"files": {"x_train": "images.bin"}, "x_train": X[0]}, "images.bin: shape (4, 4)"),
    ],
)
def test_faults_name_the_place(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        _load_arrays(_made(**changes))
    assert message in str(caught.value)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(UserError, match=r"2 faults:\n  memory: x_train: .*\n  memory: y_test: ") as caught:
        _load_arrays(_made(x_train=NAN, y_test=Y[:6] - 1))
    assert len(str(caught.value).splitlines()) == 3


# IDX files


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a small data set in Fashion-MNIST's form: 40 + 20 images."""
    rng = np.random.default_rng(0)
    for key, name in idx.FILES.items():
        count = 40 if key.endswith("train") else 20
        array = rng.integers(0, 256, (count, 28, 28)) if key.startswith("x") else np.arange(count) % 10
        write_idx(tmp_path / "fashion-mnist" / name, array)
    return tmp_path / "fashion-mnist"


def fashion(folder: Path | None, seed: int = 0, target: str = "fashion_mnist", **changes: Any) -> Dataset:
    chosen = str(folder) if folder else None
    return load(config(f"cnnsweep.data.idx.{target}", dir=chosen, **changes), seed)


def test_idx_files_are_found_in_the_sub_folder_or_the_folder_itself(small: Path) -> None:
    assert fashion(small.parent).digest == fashion(small).digest
    assert fashion(small).class_names[9] == "Ankle boot"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _shorten(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


IMAGES, LABELS = idx.FILES["x_train"], idx.FILES["y_train"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, _truncate, "truncated"),
        (IMAGES, _shorten, "but its header (40, 28, 28) promises 31,376"),
        (IMAGES, lambda p: p.write_bytes(gzip.decompress(p.read_bytes())), "cannot be read as gzip"),
        (IMAGES, lambda p: p.write_bytes(b""), "is no IDX file (magic number 0), expected images"),
        (IMAGES, lambda p: p.write_bytes(gzip.compress(b"\x00\x00\x08\x03\x00")), "promises"),
        (IMAGES, lambda p: p.write_bytes(gzip.compress(b"<html>")), "is no IDX file (magic number"),
        (IMAGES, lambda p: write_idx(p, np.zeros(40)), "holds labels (magic number 2049), expected images"),
        (LABELS, lambda p: write_idx(p, np.zeros((4, 28, 28))), "holds images (magic number 2051)"),
        (LABELS, lambda p: write_idx(p, np.arange(39) % 10), "39 labels for 40 images"),
        (LABELS, lambda p: write_idx(p, np.arange(40) % 9), "no image of class 9 (Ankle boot)"),
        (LABELS, lambda p: write_idx(p, np.arange(40) % 11), "label 10, expected 0..9"),
        (LABELS, lambda p: write_idx(p, np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4] * 4)), "labels of MNIST"),
        (IMAGES, lambda p: write_idx(p, np.zeros((40, 32, 32))), "images of (32, 32), expected (28, 28)"),
        (IMAGES, Path.unlink, "not found, though others of the four files are"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(small: Path, name: str, damage: Any, message: str) -> None:
    damage(small / name)
    with pytest.raises(UserError) as caught:
        fashion(small.parent)
    assert f"data cannot be used: {small / name}: " in str(caught.value)
    assert message in str(caught.value)


def test_training_and_test_files_that_are_swapped(small: Path) -> None:
    for key in ("x", "y"):
        train, test = (small / idx.FILES[f"{key}_{split}"] for split in ("train", "test"))
        spare = small / "spare"
        train.rename(spare), test.rename(train), spare.rename(test)
    with pytest.raises(UserError, match="20 training and 40 test images, so the two look swapped"):
        fashion(small)


# Keras' cache and download


@pytest.fixture
def no_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Keras, and a machine whose way out leads nowhere."""
    home = tmp_path / "keras"
    home.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(home))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.mark.parametrize("target", ["fashion_mnist", "mnist"])
def test_without_files_and_route_the_error_says_what_to_do(no_route: Path, tmp_path: Path, target: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        fashion(tmp_path / "nowhere", target=target)
    assert time.monotonic() - start < 10
    message = str(caught.value)
    assert f"{tmp_path / 'nowhere'} (no such folder)" in message
    assert str(no_route / "datasets") in message
    assert "no answer from https://storage.googleapis.com/" in message
    assert "Put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz" in message
    assert "data=digits (or +sweep=digits) needs no download" in message


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(2))
    start = time.monotonic()
    assert fetch.find_obstacle("https://example.org", seconds=0.2) == "none within 0.2 s"
    assert time.monotonic() - start < 1


def test_keras_cache_is_used(no_route: Path, small: Path) -> None:
    (no_route / "datasets").mkdir()
    small.rename(no_route / "datasets" / "fashion-mnist")
    cached = fashion(None)
    assert cached.source == str(no_route / "datasets" / "fashion-mnist")
    path = no_route / "datasets" / "mnist.npz"
    arrays = {key: idx.read_idx(Path(cached.source) / name, _kind(key)) for key, name in idx.FILES.items()}
    np.savez(path, **arrays)
    assert fashion(None, target="mnist").digest == cached.digest
    _truncate(path)
    with pytest.raises(UserError, match=r"mnist\.npz: .*delete it and Keras downloads it again"):
        fashion(None, target="mnist")


def _kind(key: str) -> str:
    return "images" if key.startswith("x") else "labels"


def test_a_download_is_used(no_route: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [idx.read_idx(small / name, _kind(key)) for key, name in idx.FILES.items()]
    monkeypatch.setattr(idx, "download", lambda *_: ((found[0], found[1]), (found[2], found[3])))
    downloaded = fashion(no_route)
    assert downloaded.digest == fashion(small).digest
    assert "downloaded by Keras" in downloaded.source


def test_a_download_that_breaks_off_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise Exception("URL fetch failure: got only 5 out of 9 bytes")

    monkeypatch.setattr(fetch, "find_obstacle", lambda _: None)
    keras = SimpleNamespace(datasets=SimpleNamespace(mnist=SimpleNamespace(load_data=broken)))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(UserError, match="the download failed: URL fetch failure: got only 5 out of 9 bytes"):
        fetch.download("mnist", "mnist.npz")


# .npz files


def npz(path: Path, **changes: Any) -> Dataset:
    return load(config("cnnsweep.data.npz.load", file=str(path), **changes), 0)


def _write_npz(path: Path, **changes: Any) -> Path:
    made = _made()
    keys = ("x_train", "y_train", "x_test", "y_test")
    arrays = {key: getattr(made, key) for key in keys} | changes
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
        npz(Path("???"))
    _truncate(path)
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


# Saved for the workers


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
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


def test_importing_the_package_loads_no_framework() -> None:
    heavy = "{'keras', 'tensorflow', 'sklearn', 'mlflow'} & set(sys.modules)"
    code = f"import sys, cnnsweep.data.idx, cnnsweep.data.digits, cnnsweep.data.npz; assert not {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


# The real Fashion-MNIST


@pytest.fixture(scope="module")
def real() -> Path:
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CNNSWEEP_DATA_DIR") or beside)
    if not (folder / "fashion-mnist" / IMAGES).is_file():
        pytest.skip("no Fashion-MNIST: set CNNSWEEP_DATA_DIR to the folder that holds fashion-mnist/")
    return folder


def test_fashion_mnist(real: Path, tmp_path: Path) -> None:
    found = fashion(real, validation=0.1)
    assert [len(getattr(found, f"x_{s}")) for s in SPLITS] == [54_000, 6_000, 10_000]
    assert found.input_shape == (28, 28, 1)
    assert counts(found, "val").tolist() == [600] * 10
    labels = idx.read_idx(real / "fashion-mnist" / LABELS, "labels")
    assert found.class_names[labels[0]] == "Ankle boot"
    assert (found.x_train.sum(dtype=np.int64) + found.x_val.sum(dtype=np.int64)) == 3_431_114_169
    other = fashion(real, seed=1, validation=0.1, limit=2_003)
    assert counts(other, "train").sum() + counts(other, "val").sum() == 2_003
    assert np.ptp(counts(other, "train") + counts(other, "val")) <= 1
    assert np.array_equal(found.x_test, other.x_test)
    save(found, tmp_path / "data")
    start = time.monotonic()
    assert open_saved(tmp_path / "data").digest == found.digest
    assert time.monotonic() - start < 0.1


def test_one_family_s_files_are_not_taken_for_the_other_s(real: Path) -> None:
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: the labels of Fashion-MNIST, expected MNIST"):
        fashion(real / "fashion-mnist", target="mnist")

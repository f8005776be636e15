"""MNIST and Fashion-MNIST: IDX files, Keras' cache, Keras' download, and what is wrong with them."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from data_sets import SPLITS, config, counts

from cnnsweep.data import mnist
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def write_idx(path: Path, array: np.ndarray, cut: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content[: len(content) - cut], mtime=0))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a small data set in Fashion-MNIST's form: 40 + 20 images."""
    rng = np.random.default_rng(0)
    for key, name in mnist.FILES.items():
        count = 40 if key.endswith("train") else 20
        array = rng.integers(0, 256, (count, 28, 28)) if key.startswith("x") else np.arange(count) % 10
        write_idx(tmp_path / "fashion-mnist" / name, array)
    return tmp_path / "fashion-mnist"


def fashion(folder: Path | None, seed: int = 0, target: str = "fashion_mnist", **changes: Any) -> Dataset:
    chosen = str(folder) if folder else None
    return load(config(f"cnnsweep.data.mnist.{target}", dir=chosen, **changes), seed)


def test_idx_files_are_found_in_the_sub_folder_or_the_folder_itself_packed_or_not(small: Path) -> None:
    digest = fashion(small).digest
    assert fashion(small.parent).digest == digest
    for packed in small.iterdir():
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert fashion(small.parent).digest == digest
    assert fashion(small).class_names[9] == "Ankle boot"


IMAGES, LABELS = mnist.FILES["x_train"], mnist.FILES["y_train"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, truncate, "truncated"),
        (IMAGES, lambda p: write_idx(p, np.zeros((40, 28, 28)), cut=100), "its header (40, 28, 28) promises 31,376"),
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
        train, test = (small / mnist.FILES[f"{key}_{split}"] for split in ("train", "test"))
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
    assert mnist.find_obstacle("https://example.org", seconds=0.2) == "none within 0.2 s"
    assert time.monotonic() - start < 1


def test_keras_cache_is_used(no_route: Path, small: Path) -> None:
    (no_route / "datasets").mkdir()
    small.rename(no_route / "datasets" / "fashion-mnist")
    cached = fashion(None)
    assert cached.source == str(no_route / "datasets" / "fashion-mnist")
    path = no_route / "datasets" / "mnist.npz"
    np.savez(path, **dict(zip(mnist.FILES, read_all(Path(cached.source)), strict=True)))
    assert fashion(None, target="mnist").digest == cached.digest
    truncate(path)
    with pytest.raises(UserError, match=r"mnist\.npz: .*delete it and Keras downloads it again"):
        fashion(None, target="mnist")


def read_all(folder: Path) -> list[np.ndarray]:
    return [mnist.read_idx(folder / n, "images" if key[0] == "x" else "labels") for key, n in mnist.FILES.items()]


def test_a_download_is_used(no_route: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_all(small)
    monkeypatch.setattr(mnist, "download", lambda *_: ((found[0], found[1]), (found[2], found[3])))
    downloaded = fashion(no_route)
    assert downloaded.digest == fashion(small).digest
    assert "downloaded by Keras" in downloaded.source


def test_a_download_that_breaks_off_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise Exception("URL fetch failure: got only 5 out of 9 bytes")

    monkeypatch.setattr(mnist, "find_obstacle", lambda _: None)
    keras = SimpleNamespace(datasets=SimpleNamespace(mnist=SimpleNamespace(load_data=broken)))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(UserError, match="the download failed: URL fetch failure: got only 5 out of 9 bytes"):
        mnist.download("mnist", "mnist.npz")


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
    labels = mnist.read_idx(real / "fashion-mnist" / LABELS, "labels")
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

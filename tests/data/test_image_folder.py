"""A folder of images: layouts, faults, the cache, and splits that are never in memory at once."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import data_sets
import numpy as np
import pytest
from PIL import Image

from cnnsweep.data import image_cache, image_decoding, image_folder, storage
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError

COLOURS = {"ants": (200, 30, 30), "bees": (30, 30, 200)}


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def make_folder(root: Path, splits: dict[str, int]) -> Path:
    """Sub-folders with so many images of each class; each image has a blue or red of its own."""
    for split, count in splits.items():
        for name, (red, green, blue) in COLOURS.items():
            for number in range(count):
                paint(root / split / name / f"{number:03d}.png", (red, green + number, blue))
    return root


def config(root: Path | None, tmp_path: Path, **changes: Any) -> Any:
    settings = {"dir": root and str(root), "test": 0.2, "image_size": 8, "resize": "crop", "color": "rgb"}
    settings |= {
        "class_depth": None,
        "max_megapixels": 180.0,
        "skip_bad": False,
        "cache": str(tmp_path / "cache"),
        **changes,
    }
    return data_sets.config("cnnsweep.data.image_folder.load", **settings)


def is_right(x: np.ndarray, y: np.ndarray) -> bool:
    """Red images are class 0, blue ones class 1."""
    return bool(np.all((x[:, 0, 0, 0] < x[:, 0, 0, 2]) == y))


# Layouts


@pytest.mark.parametrize("validation", ["val", "validation", "Valid"])
def test_a_folder_with_all_its_splits(tmp_path, validation):
    root = make_folder(tmp_path / "insects", {"train": 6, validation: 3, "test": 2})
    found = load(config(root, tmp_path), seed=0)
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (12, 6, 4)
    assert found.class_names == ("ants", "bees")
    assert found.name == "insects"
    assert found.input_shape == (8, 8, 3)
    assert all(is_right(x, y) for x, y in ((found.x_train, found.y_train), (found.x_val, found.y_val)))


@pytest.mark.parametrize("splits", [{"": 20}, {"train": 20}])
def test_splits_that_are_not_there_are_made_stratified_and_by_seed(tmp_path, splits):
    root = make_folder(tmp_path / "insects", splits)
    found = load(config(root, tmp_path), seed=0)
    parts = [(found.x_train, found.y_train), (found.x_val, found.y_val), (found.x_test, found.y_test)]
    assert [np.bincount(y).tolist() for _, y in parts] == [[13, 13], [3, 3], [4, 4]]
    assert all(is_right(x, y) for x, y in parts)
    pixels = [tuple(pixel) for x, _ in parts for pixel in x[:, 0, 0]]
    assert len(set(pixels)) == 40
    again, other = (load(config(root, tmp_path), seed=seed) for seed in (0, 1))
    assert again.digest == found.digest != other.digest
    np.testing.assert_array_equal(again.x_val, found.x_val)
    assert not np.array_equal(other.x_val, found.x_val)


def test_limit_counts_training_images_before_the_splits(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 20, "test": 2})
    found = load(config(root, tmp_path, limit=10), seed=0)
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (8, 2, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"data\.dir '.*insects' does not exist"),
        (lambda root: make_folder(root, {"val": 1}), "has val/ but no train/"),
        (lambda root: make_folder(root, {"train": 1, "val": 1, "validation": 1}), "has both val/ and validation/"),
        (lambda root: root.mkdir(), "no folders of images in it"),
        (lambda root: root.write_text("x"), "is a file, not a folder"),
    ],
)
def test_what_is_no_folder_of_images(tmp_path, make, message):
    make(tmp_path / "insects")
    with pytest.raises(UserError, match=message):
        load(config(tmp_path / "insects", tmp_path), seed=0)


def test_no_folder_is_given(tmp_path):
    with pytest.raises(UserError, match=r"data\.dir is not set: data\.dir=PATH"):
        image_folder.load(config(None, tmp_path))


# Faults


def broken_folder(tmp_path: Path) -> Path:
    root = make_folder(tmp_path / "insects", {"train": 4, "val": 3})
    (root / "train" / "ants" / "note.txt").write_text("no image")
    (root / "train" / "ants" / "zero.jpg").touch()
    paint(root / "train" / "bees" / "cut.jpg", (1, 2, 3), (300, 300))
    whole = (root / "train" / "bees" / "cut.jpg").read_bytes()
    (root / "train" / "bees" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for number in range(4):
        paint(root / "train" / "wasps" / f"{number}.png", (1, 2, 3))
    (root / "train" / "flies").mkdir()
    paint(root / "val" / "flies" / "a.png", (1, 2, 3))
    (root / "val" / ".DS_Store").touch()
    (root / "train" / "bees" / "Thumbs.db").touch()
    return root


def test_all_faults_stand_in_one_error(tmp_path):
    root = broken_folder(tmp_path)
    with pytest.raises(UserError) as raised:
        load(config(root, tmp_path), seed=0)
    message = str(raised.value).replace(str(root), "")
    for line in (
        "/train/flies: no file in it, class 'flies' is empty",
        "/val/flies: 1 image of class 'flies', which train/ does not have",
        "/train/ants/note.txt: is no image (JPEG, PNG, BMP, GIF, TIFF, WEBP or PPM)",
        "/train/ants/zero.jpg: is empty",
        "/train/bees/cut.jpg: cannot be decoded",
        "data.skip_bad=true skips all of these",
    ):
        assert line in message
    assert "data cannot be used, 5 faults:" in message
    assert len(message.splitlines()) == 7


def test_a_folder_above_that_of_the_images_is_one_line(tmp_path):
    make_folder(tmp_path / "home" / "photos", {"insects": 5})
    for number in range(30):
        (tmp_path / "home" / "code").mkdir(exist_ok=True)
        (tmp_path / "home" / "code" / f"{number:02d}.py").write_text("x = 1")
    expected = r"home: 30 of 40 files are no images \(code/00.py …\), .*look to be in '.*insects'"
    with pytest.raises(UserError, match=rf"{expected}\n  data.skip_bad=true skips those that are no images$"):
        load(config(tmp_path / "home", tmp_path), seed=0)


def test_what_is_bad_is_skipped_and_counted_where_that_is_asked_for(tmp_path):
    found = load(config(broken_folder(tmp_path), tmp_path, skip_bad=True), seed=0)
    assert found.class_names == ("ants", "bees", "wasps")
    assert len(found.x_val) == 6
    assert len(found.x_train) + len(found.x_test) == 12
    assert "(5 unusable entries skipped)" in found.describe()
    assert "val: no image of class 2 (wasps)" in found.describe()


def test_a_size_that_is_none(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 2})
    for size in (0, "big", [3], [4, 0], 2.5):
        with pytest.raises(UserError, match=r"data\.image_size"):
            image_folder.load(config(root, tmp_path, image_size=size))


# More than 8 bits


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("top", [255, 700, 4095, 65535])
def test_grey_of_more_bits_is_scaled_by_what_the_training_images_hold(tmp_path, suffix, top):
    root, white = tmp_path / "scans", 2 ** int(top).bit_length() - 1
    for split, high in {"train": top, "test": top * 2}.items():  # the test set has no say
        for name, low in {"dark": 0, "light": top // 2}.items():
            (root / split / name).mkdir(parents=True)
            for number in range(4 if split == "train" else 3):
                pixels = np.linspace(low, min(high, 65535), 64).reshape(8, 8).astype(np.uint16)
                Image.fromarray(pixels).save(root / split / name / f"{number}.{suffix}")
    found = image_folder.load(config(root, tmp_path, color="grey"))
    expected = np.rint(np.linspace(0, top, 64).astype(np.uint16) * (255 / white))
    np.testing.assert_allclose(found.x_train[0].ravel(), expected, atol=1)
    assert len(np.unique(found.x_train[0])) > 40
    assert found.x_test.max() == 255
    assert found.notes == (f"grey images of more than 8 bits: values from 0 to {white:,} become 0 to 255",)
    again = load(config(root, tmp_path, color="grey"), seed=0)  # from the cache
    assert again.decoding.values == (0, white)
    save(again, tmp_path / "saved")
    assert open_saved(tmp_path / "saved").decoding == again.decoding


@pytest.mark.parametrize(
    ("deep", "note"),
    [
        (
            {"val", "test"},
            r"\(0 of 4 training files, 4 of 4 val.*, 4 of 4 test .*\): each is scaled by its own",
        ),
        (
            {"train", "val"},
            r"become 0 to 255; those of 8 bits are not scaled \(.*4 of 4 train.*, 0 of 4 test files",
        ),
    ],
)
def test_a_depth_that_not_all_images_have_is_said(tmp_path, deep, note):
    for split in ("train", "val", "test"):
        for name in COLOURS:
            for number in range(2):
                path = tmp_path / "scans" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 9, np.uint16 if split in deep else np.uint8)).save(path)
    assert re.search(note, "".join(image_folder.load(config(tmp_path / "scans", tmp_path)).notes))


def test_colours_of_more_bits_are_said(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 3})
    deep = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)  # a PNG of 16 bits a colour, which Pillow only reads
    chunks = [(b"IHDR", deep), (b"IDAT", zlib.compress(bytes(8 * (1 + 8 * 6)))), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    (root / "train" / "ants" / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    found = image_folder.load(config(root, tmp_path))
    assert found.notes == ("images of more than 8 bits a colour: 1, of which only the upper 8 bits are read",)
    assert len(found.x_train) == 7


# The cache


def test_decoding_is_done_once_for_the_same_content(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "insects", {"train": 5})
    first = image_folder.load(config(root, tmp_path))
    decoded: list[bytes] = []
    decode = image_decoding.decode
    monkeypatch.setattr(image_decoding, "decode", lambda raw, *how: decoded.append(raw) or decode(raw, *how))
    assert image_folder.load(config(root, tmp_path)).digest == first.digest
    one = root / "train" / "ants" / "000.png"
    os.utime(one, (1, 1))
    assert image_folder.load(config(root, tmp_path)).digest == first.digest
    assert not decoded
    time = one.stat().st_mtime_ns
    (root / "train" / "ants" / "001.png").rename(tmp_path / "held")
    os.replace(one, root / "train" / "ants" / "001.png")
    os.replace(tmp_path / "held", one)
    os.utime(one, ns=(time, time))
    swapped = image_folder.load(config(root, tmp_path))
    assert swapped.digest != first.digest
    assert len(decoded) == 10
    np.testing.assert_array_equal(swapped.x_train[0], first.x_train[1])
    assert image_folder.load(config(root, tmp_path, image_size=9)).digest != first.digest


def test_other_classes_of_the_same_files_are_other_data(tmp_path):
    for number, folder in enumerate(("ants/ants", "ants/bees", "bees/bees")):
        paint(tmp_path / "insects" / folder / "a.png", (number, 0, 0))
    outer, inner = (image_folder.load(config(tmp_path / "insects", tmp_path, class_depth=depth)) for depth in (1, 2))
    assert (outer.y_train.tolist(), inner.y_train.tolist()) == ([0, 0, 1], [0, 1, 1])


def test_an_interrupted_decoding_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "insects", {"train": 5})
    calls, decode = iter(range(7)), image_decoding.decode

    def interrupted(raw: bytes, *how: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return decode(raw, *how)

    with monkeypatch.context() as patch:
        patch.setattr(image_decoding, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            image_folder.load(config(root, tmp_path))
    assert [p.name for p in (tmp_path / "cache" / "decoded").iterdir()] == ["index"]
    assert len(image_folder.load(config(root, tmp_path)).x_train) == 10


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.with_name("manifest.json").unlink(),
    ],
)
def test_what_is_missing_in_the_cache_is_decoded_again(tmp_path, damage):
    root = make_folder(tmp_path / "insects", {"train": 5})
    first = image_folder.load(config(root, tmp_path))
    expected = first.x_train.copy()
    damage(Path(first.x_train.filename))
    again = image_folder.load(config(root, tmp_path))
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.x_train, expected)


def test_a_cache_that_cannot_be_written(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 2})
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache '.*cache' cannot be used"):
        image_folder.load(config(root, tmp_path))


# Memory


def test_images_are_decoded_split_and_saved_without_being_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "AHEAD", 1)
    monkeypatch.setattr(storage, "PIECE", 100_000)
    root = make_folder(tmp_path / "insects", {"train": 100})
    size = 200 * 100 * 100 * 3
    tracemalloc.start()
    found = load(config(root, tmp_path, image_size=100), seed=0)
    save(found, tmp_path / "saved")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2
    again = open_saved(tmp_path / "saved")
    assert len(again.x_train) + len(again.x_val) + len(again.x_test) == 200
    assert is_right(again.x_train, again.y_train)
    assert os.path.samefile(tmp_path / "saved" / "x_train.npy", found.x_train.filename)

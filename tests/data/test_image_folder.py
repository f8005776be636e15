"""A folder of images: layouts, formats, faults, the cache, and splits that are never in memory at once."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnsweep.data import image_cache, image_folder, mapped
from cnnsweep.data import loading as datasets
from cnnsweep.data.image_decoding import BadImageError, decode
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError

COLOURS = {"ants": (200, 30, 30), "bees": (30, 30, 200)}


def paint(path: Path, colour: Any, size: tuple[int, int] = (12, 10), mode: str = "RGB", **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **settings)


def make_folder(root: Path, splits: dict[str, int]) -> Path:
    """Sub-folders with so many images of each class; each image has a blue or red of its own."""
    for split, count in splits.items():
        for name, (red, green, blue) in COLOURS.items():
            for number in range(count):
                paint(root / split / name / f"{number:03d}.png", (red, green + number, blue))
    return root


def config(root: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    base = {
        "_target_": "cnnsweep.data.image_folder.load",
        "dir": str(root),
        "limit": None,
        "validation": 0.2,
        "test": 0.2,
        "image_size": 8,
        "resize": "crop",
        "color": "rgb",
        "skip_bad": False,
        "cache": str(tmp_path / "cache"),
    }
    return {**base, **changes}


def is_right(x: np.ndarray, y: np.ndarray) -> bool:
    """Red images are class 0, blue ones class 1."""
    return bool(np.all((x[:, 0, 0, 0] < x[:, 0, 0, 2]) == y))


# Layouts


@pytest.mark.parametrize("validation", ["val", "validation", "Valid"])
def test_a_folder_with_all_its_splits(tmp_path, validation):
    root = make_folder(tmp_path / "insects", {"train": 6, validation: 3, "test": 2})
    found = datasets.load(config(root, tmp_path), seed=0)
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (12, 6, 4)
    assert found.class_names == ("ants", "bees")
    assert found.name == "insects"
    assert found.input_shape == (8, 8, 3)
    assert all(is_right(x, y) for x, y in ((found.x_train, found.y_train), (found.x_val, found.y_val)))


@pytest.mark.parametrize("splits", [{"": 20}, {"train": 20}])
def test_splits_that_are_not_there_are_made_stratified_and_by_seed(tmp_path, splits):
    root = make_folder(tmp_path / "insects", splits)
    found = datasets.load(config(root, tmp_path), seed=0)
    parts = [(found.x_train, found.y_train), (found.x_val, found.y_val), (found.x_test, found.y_test)]
    assert [np.bincount(y).tolist() for _, y in parts] == [[13, 13], [3, 3], [4, 4]]
    assert all(is_right(x, y) for x, y in parts)
    pixels = [tuple(pixel) for x, _ in parts for pixel in x[:, 0, 0]]
    assert len(set(pixels)) == 40
    again, other = (datasets.load(config(root, tmp_path), seed=seed) for seed in (0, 1))
    assert again.digest == found.digest != other.digest
    np.testing.assert_array_equal(again.x_val, found.x_val)
    assert not np.array_equal(other.x_val, found.x_val)


def test_limit_counts_training_images_before_the_splits(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 20, "test": 2})
    found = datasets.load(config(root, tmp_path, limit=10), seed=0)
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
        datasets.load(config(tmp_path / "insects", tmp_path), seed=0)


def test_no_folder_is_given(tmp_path):
    with pytest.raises(UserError, match=r"data\.dir is not set: data\.dir=PATH"):
        image_folder.load(config(tmp_path, tmp_path, dir=None))


# Formats


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("a.jpg", {"colour": (200, 100, 50), "quality": 95}, (200, 100, 50)),
        ("a.JPEG", {"colour": (10, 20, 30, 40), "mode": "CMYK", "quality": 95, "format": "jpeg"}, (206, 198, 190)),
        ("a.png", {"colour": 77, "mode": "L"}, (77, 77, 77)),
        ("a.png", {"colour": 77 * 256, "mode": "I;16"}, (77, 77, 77)),
        ("a.png", {"colour": 1, "mode": "1"}, (255, 255, 255)),
        ("a.png", {"colour": (200, 100, 50, 0), "mode": "RGBA"}, (255, 255, 255)),
        ("a.png", {"colour": (200, 100, 50, 255), "mode": "RGBA"}, (200, 100, 50)),
        ("a.png", {"colour": (100, 0), "mode": "LA"}, (255, 255, 255)),
        ("a.bmp", {"colour": (200, 100, 50)}, (200, 100, 50)),
    ],
)
def test_every_mode_becomes_colour_and_grey(tmp_path, name, settings, expected):
    paint(tmp_path / name, settings.pop("colour"), **settings)
    raw = (tmp_path / name).read_bytes()
    colour, grey = decode(raw, (6, 7), "rgb", "crop"), decode(raw, (6, 7), "grey", "crop")
    assert (colour.shape, grey.shape, colour.dtype) == ((6, 7, 3), (6, 7, 1), np.uint8)
    np.testing.assert_allclose(colour[3, 3], expected, atol=4)
    np.testing.assert_allclose(grey[3, 3], np.dot(expected, [0.299, 0.587, 0.114]), atol=4)


def test_palettes_and_the_first_frame_of_a_gif(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 10, 10), (10, 250, 10))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[1].quantize(4).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        decode((tmp_path / "a.gif").read_bytes(), (8, 8), "rgb", "crop")[4, 4], (250, 10, 10), atol=3
    )
    np.testing.assert_allclose(
        decode((tmp_path / "a.png").read_bytes(), (8, 8), "rgb", "crop")[4, 4], (10, 250, 10), atol=3
    )


@pytest.mark.parametrize("size", [(10, 10), (11, 11)])
@pytest.mark.parametrize(("orientation", "white"), [(1, slice(0, 4)), (3, slice(-4, None))])
def test_a_camera_s_orientation_is_applied(tmp_path, size, orientation, white):
    image = Image.new("RGB", (40, 40), "black")
    image.paste((255, 255, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    upright = decode((tmp_path / "a.jpg").read_bytes(), size, "grey", "crop")[..., 0]
    assert upright[white].min() > 200
    assert upright[::-1][white].max() < 60


@pytest.mark.parametrize(("resize", "left", "top"), [("crop", 255, 255), ("pad", 0, 255), ("stretch", 255, 255)])
def test_ways_to_fit_a_tall_image(tmp_path, resize, left, top):
    """White in the middle half of its height, black above and below."""
    image = Image.new("L", (20, 40), 0)
    image.paste(255, (0, 10, 20, 30))
    image.save(tmp_path / "a.png")
    fitted = decode((tmp_path / "a.png").read_bytes(), (20, 20), "grey", resize)[..., 0]
    assert fitted[10, 0] == left
    assert fitted[1, 10] == (top if resize == "crop" else 0)
    assert fitted[10, 10] == 255


# Scales of a JPEG


def jpeg(height: int, width: int, **settings: Any) -> bytes:
    """Like a photograph: detail at every scale, the finer the fainter, and of about the same hue."""
    random, image, file = np.random.default_rng(0), np.zeros((height, width)), io.BytesIO()
    for cells in (4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(random.integers(0, 256, (cells, cells), np.uint8))
        image += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    colours = (image[..., np.newaxis] / image.max() * (250, 200, 150)).astype(np.uint8)
    Image.fromarray(colours).save(file, "jpeg", **{"quality": 92, **settings})
    return file.getvalue()


def resized(raw: bytes, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image.resize(size[::-1], method))


def by_pillow(monkeypatch: pytest.MonkeyPatch, *what: Any) -> np.ndarray | str:
    """What comes of it, or the error's text, where Pillow alone decodes."""
    with monkeypatch.context() as patch:
        patch.setattr("cnnsweep.data.image_decoding.read_jpeg", lambda *_: None)
        return outcome(*what)


def outcome(*what: Any) -> np.ndarray | str:
    try:
        return decode(*what)
    except BadImageError as error:
        return str(error)


@pytest.mark.parametrize("eighths", [2, 4, 5, 7])
def test_a_jpeg_that_needs_no_resizing_is_nearer_to_the_ideal_than_resizing_is(eighths):
    raw, size = jpeg(256, 384), (32 * eighths, 48 * eighths)
    ideal, smooth = (resized(raw, size, Image.Resampling[name]).astype(float) for name in ("LANCZOS", "BILINEAR"))
    ours = decode(raw, size, "rgb", "stretch")
    assert np.abs(ours - ideal).mean() < np.abs(smooth - ideal).mean()
    middle = size[1] // 2 - size[0] // 2
    cropped = decode(raw, (size[0], size[0]), "rgb", "crop")
    np.testing.assert_array_equal(cropped, ours[:, middle : middle + size[0]])
    padded = decode(raw, (size[1], size[1]), "rgb", "pad")
    np.testing.assert_array_equal(padded[(size[1] - size[0]) // 2 :][: size[0]], ours)


@pytest.mark.parametrize("eighths", [2, 3, 4])
def test_stripes_finer_than_the_result_become_grey(tmp_path, eighths):
    image = np.zeros((256, 256), np.uint8)
    image[:, ::2] = 255
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    found = decode((tmp_path / "a.jpg").read_bytes(), (32 * eighths, 32 * eighths), "grey", "crop")
    assert 90 < found.min() <= found.max() < 165


@pytest.mark.parametrize(("resize", "size"), [("crop", (468, 468)), ("pad", (500, 500)), ("stretch", (500, 468))])
@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"keep_rgb": True}])
def test_at_full_size_the_pixels_are_pillow_s(monkeypatch, resize, size, settings):
    raw = jpeg(500, 468, **settings)
    for color in ("rgb", "grey"):
        what = (raw, size, color, resize)
        np.testing.assert_array_equal(decode(*what), by_pillow(monkeypatch, *what))


def test_a_broken_jpeg_has_pillow_s_error(monkeypatch):
    raw = jpeg(64, 64)
    texts = set()
    for end in (2, 3, 20, 400, len(raw) // 2, len(raw) - 30, len(raw) - 2, len(raw)):
        for tail in (b"", b"\xff\xd9", b"more"):
            what = (raw[:end] + tail, (56, 56), "rgb", "crop")
            ours, pillow = outcome(*what), by_pillow(monkeypatch, *what)
            assert isinstance(ours, str) == isinstance(pillow, str)
            if isinstance(ours, str):
                assert ours == pillow
                texts.add(ours)
    assert "is no image (JPEG, PNG, BMP or GIF)" in texts
    assert any("truncated" in text for text in texts)


def test_a_jpeg_larger_than_pillow_takes_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImageError, match="exceeds limit of 2000 pixels"):
        decode(jpeg(64, 64), (56, 56), "rgb", "crop")


# Faults


def broken_folder(tmp_path: Path) -> Path:
    root = make_folder(tmp_path / "insects", {"train": 4, "val": 3})
    (root / "train" / "ants" / "note.txt").write_text("no image")
    (root / "train" / "ants" / "zero.jpg").touch()
    paint(root / "train" / "bees" / "cut.jpg", (1, 2, 3), (300, 300))
    whole = (root / "train" / "bees" / "cut.jpg").read_bytes()
    (root / "train" / "bees" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    paint(root / "train" / "wasps" / "a.png", (1, 2, 3))
    (root / "train" / "flies").mkdir()
    paint(root / "val" / "flies" / "a.png", (1, 2, 3))
    (root / "val" / ".DS_Store").touch()
    (root / "train" / "bees" / "Thumbs.db").touch()
    return root


def test_all_faults_stand_in_one_error(tmp_path):
    root = broken_folder(tmp_path)
    with pytest.raises(UserError) as raised:
        datasets.load(config(root, tmp_path), seed=0)
    told = str(raised.value).replace(str(root), "")
    for line in (
        "/train/flies: no file in it, class 'flies' is empty",
        "/val/wasps: is not there, class 'wasps' is in train only",
        "/train/ants/note.txt: is no image (JPEG, PNG, BMP or GIF)",
        "/train/ants/zero.jpg: is empty",
        "/train/bees/cut.jpg: cannot be decoded",
        "data.skip_bad=true leaves all of these out",
    ):
        assert line in told
    assert "data cannot be used, 5 faults:" in told
    assert len(told.splitlines()) == 7


def test_what_is_bad_is_skipped_and_counted_where_that_is_asked_for(tmp_path):
    found = datasets.load(config(broken_folder(tmp_path), tmp_path, skip_bad=True), seed=0)
    assert found.class_names == ("ants", "bees")
    assert len(found.x_val) == 6
    assert len(found.x_train) + len(found.x_test) == 8
    assert "(5 unusable entries skipped)" in found.describe()


def test_a_size_that_is_none(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 2})
    for size in (0, "big", [3], [4, 0], 2.5):
        with pytest.raises(UserError, match=r"data\.image_size"):
            image_folder.load(config(root, tmp_path, image_size=size))


# The cache


def test_decoding_is_done_once_for_the_same_content(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "insects", {"train": 5})
    first = image_folder.load(config(root, tmp_path))
    decoded: list[bytes] = []
    monkeypatch.setattr(image_cache, "decode", lambda raw, *how: decoded.append(raw) or decode(raw, *how))
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


def test_an_interrupted_decoding_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "insects", {"train": 5})
    calls = iter(range(7))

    def interrupted(raw: bytes, *how: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return decode(raw, *how)

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            image_folder.load(config(root, tmp_path))
    assert [p.name for p in (tmp_path / "cache" / "images").iterdir()] == ["index"]
    assert len(image_folder.load(config(root, tmp_path)).x_train) == 10


def test_a_cache_that_cannot_be_written(tmp_path):
    root = make_folder(tmp_path / "insects", {"train": 2})
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache '.*cache' cannot be used"):
        image_folder.load(config(root, tmp_path))


# Memory


def test_images_are_decoded_split_and_saved_without_being_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "AHEAD", 1)
    monkeypatch.setattr(mapped, "PIECE", 100_000)
    root = make_folder(tmp_path / "insects", {"train": 100})
    size = 200 * 100 * 100 * 3
    tracemalloc.start()
    found = datasets.load(config(root, tmp_path, image_size=100), seed=0)
    save(found, tmp_path / "saved")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2
    again = open_saved(tmp_path / "saved")
    assert len(again.x_train) + len(again.x_val) + len(again.x_test) == 200
    assert is_right(again.x_train, again.y_train)
    assert os.path.samefile(tmp_path / "saved" / "x_train.npy", found.x_train.filename)


def test_taking_rows_of_a_mapped_file(tmp_path):
    whole = np.arange(60, dtype=np.uint8).reshape(10, 2, 3)
    np.save(tmp_path / "whole.npy", whole)
    source, rows = mapped.open_map(tmp_path / "whole.npy"), np.array([7, 1, 1, 9])
    taken = mapped.take(source, rows)
    np.testing.assert_array_equal(taken, whole[rows])
    assert mapped.is_whole_file(taken)
    assert not mapped.is_whole_file(source[2:5])
    assert mapped.take(source, np.arange(10)) is source
    np.testing.assert_array_equal(mapped.take(whole, rows), whole[rows])


def test_a_file_of_fewer_rows_than_planned(tmp_path):
    with mapped.Writer(tmp_path / "a.npy", (1_000_000, 2), np.float32) as writer:
        writer.append(np.ones((3, 2)))
        with pytest.raises(ValueError, match="do not fit"):
            writer.append(np.ones((3, 3)))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.ones((3, 2), np.float32))

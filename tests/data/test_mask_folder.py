"""Images with masks beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import config
from PIL import Image

from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError

FILES = {"test": 0.25, "image_size": 8, "resize": "crop", "color": "grey", "max_megapixels": 1, "skip_bad": False}


def folder(root: Path, below: str = ".", ending: str = "", dark: int = 0) -> Path:
    """Images of 16×12 pixels whose left half is dark, and masks of it."""
    for number in range(12):
        mask = np.zeros((12, 16), np.uint8)
        mask[:, 8:] = 255
        image = np.where(mask, 200, dark + number).astype(np.uint8)
        for name, content, end in (("images", image, ""), ("masks", mask, ending)):
            (root / below / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / below / name / f"{number}{end}.png")
    return root


def loaded(root: Path, **changes: object) -> Dataset:
    base = {**FILES, "dir": str(root), "classes": None, "cache": str(root.parent / "cache")}
    return load(config("cnnsweep.data.mask_folder.load", **{**base, **changes}), 0, "segmentation")


@pytest.mark.parametrize("ending", ["", "_mask"])
def test_masks_follow_their_images(tmp_path, ending):
    found = loaded(folder(tmp_path / "data", ending=ending), classes=["dark", "light"])
    assert (found.class_names, found.x_train.shape, found.y_train.shape) == (("dark", "light"), (7, 8, 8, 1), (7, 8, 8))
    for split in ("train", "val", "test"):
        x, y = getattr(found, f"x_{split}"), getattr(found, f"y_{split}")
        np.testing.assert_array_equal(x[..., 0][:, :, [0, 7]] > 100, y[:, :, [0, 7]] == 1)
    assert loaded(tmp_path / "data").class_names == ("0", "255")


def test_accents_of_names_may_be_composed_or_not(tmp_path):
    root = folder(tmp_path / "data")
    (root / "images" / "3.png").rename(root / "images" / "\u00e9.png")
    (root / "masks" / "3.png").rename(root / "masks" / "e\u0301.png")
    assert len(loaded(root).x_train) == 7


def test_masks_are_turned_as_their_images_are(tmp_path):
    root, upside_down = folder(tmp_path / "data"), Image.Exif()
    upside_down[0x0112] = 3
    for path in root.glob("*/*.png"):
        Image.open(path).rotate(180).save(path, exif=upside_down)
    found = loaded(root)
    assert (found.y_train[..., 0] == 0).all()
    assert (found.x_train[:, :, 0] < 100).all()


def test_masks_may_be_larger_than_pillow_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert len(loaded(folder(tmp_path / "data")).y_train) == 7


def test_splits_of_their_own(tmp_path):
    for number, split in enumerate(("train", "val", "Testing")):
        folder(tmp_path / "data", split, dark=12 * number)
    found = loaded(tmp_path / "data", classes={"dark": 0, "light": 255})
    assert (len(found.x_train), len(found.x_val), len(found.x_test)) == (12, 12, 12)


def test_what_is_wrong_with_masks_is_said_with_their_names(tmp_path):
    root = folder(tmp_path / "data")
    (root / "masks" / "3.png").unlink()
    with pytest.raises(UserError, match=r"images/3.png: no mask of this name in .*masks\n.*skip_bad=true"):
        loaded(root)
    assert "1 unusable entry skipped" in loaded(root, skip_bad=True).source
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(root / "masks" / "3.png")
    with pytest.raises(UserError, match=r"masks/3.png: 12×12 pixels, its image has 16×12"):
        loaded(root)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(root / "masks" / "3.png")
    with pytest.raises(UserError, match=r"masks/3.png: mode RGB, expected one number a pixel"):
        loaded(root)


def save_gif(path: Path, mask: np.ndarray) -> None:
    """As a palette of the colours that there are: of a mask of one value this is number 0."""
    Image.fromarray(mask).save(path.with_suffix(".gif"))


def save_jpeg(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(path.with_suffix(".jpg"))


def save_ones(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask if int(path.stem) % 2 else mask // 255).save(path)


@pytest.mark.parametrize(
    ("save", "splits", "error"),
    [
        (save_gif, ["."], r"masks/3.gif: value 0 is #ffffff, #000000 in masks before it\n  one value has to be one"),
        (save_gif, ["train", "test"], r"test/images: value 0 is #ffffff, #000000 in masks before it"),
        (save_jpeg, ["."], r"12 faults:\n.*masks/0.jpg: is a JPEG, whose compression changes values"),
        (save_ones, ["."], r"some training masks have the values 0 and 1, others 0 and 255.*=\{NAME: 0"),
    ],
    ids=["palettes", "palettes of splits", "jpeg", "0 and 1, 0 and 255"],
)
def test_values_that_mean_one_thing_here_and_another_there(tmp_path, save, splits, error):
    for split in splits:
        root = folder(tmp_path / "data", below=split)
        for path in sorted((root / split / "masks").iterdir()):
            white = split == "test" or (path.stem == "3" and split == ".")
            mask = np.full((12, 16), 255, np.uint8) if white else np.asarray(Image.open(path))
            path.unlink()
            save(path, mask)
    for _ in range(2):  # the second time with those that were decoded
        with pytest.raises(UserError, match=error):
            loaded(root)


def test_a_split_of_which_nothing_is_left(tmp_path):
    for split in ("train", "val", "test"):
        root = folder(tmp_path / "data", split)
    for path in (root / "val" / "images").iterdir():
        path.write_text("no image")
    for path in (root / "test" / "masks").iterdir():
        path.unlink()
    found = loaded(root, skip_bad=True)
    assert [note for note in found.notes if "skipped" in note] == [
        f"skipped: {root}/{split}/images: no image with a mask can be used" for split in ("test", "val")
    ]
    assert len(found.x_train) + len(found.x_val) + len(found.x_test) == 12
    for path in (root / "test" / "images").iterdir():
        path.unlink()
    for path in (root / "val" / "images").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"data/val/images: no image with a mask can be used\n.*\n.*skip_bad=true leaves"
    ):
        loaded(root)
    for path in (root / "train" / "images").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match="data/train/images: no image with a mask can be used"):
        loaded(root, skip_bad=True)


def test_two_masks_of_one_name(tmp_path):
    root = folder(tmp_path / "data")
    (root / "masks" / "3.json").write_text("{}")  # is no mask
    loaded(root)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(root / "masks" / "3.bmp")
    with pytest.raises(UserError, match=r"images/3.png: 2 masks of this name \(3.bmp, 3.png\)"):
        loaded(root)


def test_values_that_masks_cannot_have(tmp_path):
    root = folder(tmp_path / "data")
    for classes, fault in (
        ({"a": 0, "b": 256}, "data.classes: b is 256; the values of masks are 0 to 255"),
        ({"a": -1, "b": 0}, "data.classes: a is -1"),
        ({"a": 0, "b": 0}, "data.classes: a and b are both 0"),
    ):
        with pytest.raises(UserError, match=fault):
            loaded(root, classes=classes)
    for mask in (root / "masks").iterdir():
        Image.fromarray(np.maximum(np.asarray(Image.open(mask)), 1)).save(mask)
    with pytest.raises(UserError, match=r"(?s)value 0 is no class \(1 a, 255 b\).*the margin of data.resize=pad is 0"):
        loaded(root, classes={"a": 1, "b": 255}, resize="pad")


def test_unknown_classes(tmp_path):
    root = folder(tmp_path / "data")
    with pytest.raises(UserError, match=r"value 255 is no class \(0 dark, 254 light\)"):
        loaded(root, classes={"dark": 0, "light": 254})
    with pytest.raises(UserError, match=r"3 names for the values 0, 255 of the training masks; say which is which"):
        loaded(root, classes=["a", "b", "c"])


def test_no_such_folders(tmp_path):
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has pictures/, expected a folder with images/ and masks/"):
        loaded(tmp_path / "data")

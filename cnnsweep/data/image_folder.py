"""A folder of images, one sub-folder a class: decoded once, in parallel, and kept on disk to be mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.config.validation import Float
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.image_cache import Decoding, ImageFile, ImageFiles, open_decoded
from cnnsweep.data.storage import open_map
from cnnsweep.errors import UserError, nearest

NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
"""Names that each split's folder may have, in any case."""
CLUTTER = ("thumbs.db", "desktop.ini")


def _check_size(value: object) -> object:
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"'{value}' (a number of pixels, or [height, width])")
    return value


class ImageFolderConfig(DataConfig):
    """A folder of images; `test` and `validation` are the shares of splits that the folder does not have."""

    test: Float = Field(gt=0, lt=1)
    image_size: Annotated[int | list[int], BeforeValidator(_check_size)]
    resize: Literal["crop", "pad", "stretch"]
    color: Literal["rgb", "grey"]
    skip_bad: bool
    cache: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        height, width = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        return height, width


@configured_by(ImageFolderConfig)
def load(config: ImageFolderConfig) -> Arrays:
    """Decode the images of `data.dir`, or map those decoded before.

    Raises one UserError that lists every empty class, every class that is not in all splits, every unreadable file
    and every file that is no image; `data.skip_bad` skips these, and counts them in `source`.
    """
    images = find_images(config.dir)
    if images.faults and not config.skip_bad and not any(images.splits.values()):
        refuse(list(images.faults))
    decoding = Decoding(config.size, config.color, config.resize)
    folder, undecoded = open_decoded(Path(config.cache), images, decoding)
    faults = [*images.faults, *(f"{images.root / fault}" for fault in undecoded)]
    if faults and not config.skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    return _arrays(folder, images, len(faults))


def _arrays(folder: Path, images: ImageFiles, skipped: int) -> Arrays:
    x = {split: open_map(folder / f"{split}.npy") for split in images.splits}
    y = {split: open_map(folder / f"{split}-labels.npy") for split in images.splits}
    note = f" ({skipped:,} unusable {'entry' if skipped == 1 else 'entries'} skipped)" if skipped else ""
    return Arrays(
        x_train=x["train"],
        y_train=y["train"],
        x_test=x.get("test"),
        y_test=y.get("test"),
        x_val=x.get("val"),
        y_val=y.get("val"),
        class_names=images.classes,
        source=f"{images.root}{note}",
        scale=1 / 255,
        name=images.root.resolve().name,
        files={f"{a}_{split}": str(images.folders[split]) for split in images.splits for a in "xy"},
        digest=folder.name,
    )


def find_images(setting: str | None) -> ImageFiles:
    """Look at `data.dir`: train/CLASS/*, with val/ (or validation/) and test/ if they are there, or CLASS/* alone.

    Raises UserError where there is no such folder, or where it has no sub-folders with files.
    """
    root = _root(setting)
    by_split = {split: [d for d in _folders(root) if d.name.lower() in names] for split, names in NAMES.items()}
    if not by_split["train"]:
        if others := [d.name for found in by_split.values() for d in found]:
            raise UserError(f"data.dir '{root}': has {'/, '.join(others)}/ but no train/")
        by_split = {"train": [root]}
    for split, found in by_split.items():
        if len(found) > 1:
            both = " and ".join(f"{d.name}/" for d in found)
            raise UserError(f"data.dir '{root}': has both {both}, which of them is the {split} split?")
    return _read_splits(root, {split: found[0] for split, found in by_split.items() if found})


def _root(setting: str | None) -> Path:
    if not setting:
        raise UserError("data.dir is not set: data.dir=PATH, a folder with train/CLASS/*.jpg or CLASS/*.jpg")
    root = Path(setting).expanduser()
    if not root.is_dir():
        fault = "is a file, not a folder" if root.exists() else "does not exist"
        beside = [d.name for d in _folders(root.parent)]
        raise UserError(f"data.dir '{root}' {fault}{nearest(root.name, beside)}")
    return root


def _read_splits(root: Path, folders: Mapping[str, Path]) -> ImageFiles:
    found = {split: {d.name: _files(d) for d in _folders(folder)} for split, folder in folders.items()}
    names = sorted({name for classes in found.values() for name in classes})
    if not names:
        raise UserError(f"data.dir '{root}': no folders of images in it, expected train/CLASS/*.jpg or CLASS/*.jpg")
    faults = {name: list(_class_faults(name, found, folders)) for name in names}
    sound = [name for name in names if not faults[name]]
    splits = {
        split: [ImageFile(path, label) for label, name in enumerate(sound) for path in classes[name]]
        for split, classes in found.items()
    }
    return ImageFiles(root, tuple(sound), splits, folders, tuple(f for each in faults.values() for f in each))


def _class_faults(
    name: str, found: Mapping[str, Mapping[str, list[Path]]], folders: Mapping[str, Path]
) -> Iterator[str]:
    for split, classes in found.items():
        place = folders[split] / name
        if name in classes and not classes[name]:
            yield f"{place}: no file in it, class '{name}' is empty"
        elif name not in classes:
            has = [s for s, c in found.items() if name in c]
            others = [c for c in classes if not all(c in other for other in found.values())]
            yield f"{place}: is not there, class '{name}' is in {' and '.join(has)} only{nearest(name, others)}"


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.glob("*") if d.is_dir() and not d.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in files if not p.name.startswith(".") and p.name.lower() not in CLUTTER)

"""What a folder of images holds: its splits, its classes and their files, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnnsweep.errors import UserError, nearest

NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
"""What each split's folder may be called, in any case."""
CLUTTER = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class File:
    """One image file and what it shows."""

    path: Path
    label: int


@dataclass(frozen=True)
class Layout:
    """The files of each split that is there, sorted by class and path, and the classes in their order."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, list[File]]
    folders: dict[str, Path]
    faults: tuple[str, ...] = ()
    """Empty classes and classes that are not in every split; they are left out of `classes` and `splits`."""

    def stat_key(self) -> list[tuple[object, ...]]:
        """Changes with every change of a file that the file system knows of."""
        stats = ((s, f, f.path.stat()) for s, files in self.splits.items() for f in files)
        return [(s, self.relative(f.path), f.label, t.st_size, t.st_mtime_ns, t.st_ctime_ns) for s, f, t in stats]

    def sizes(self) -> list[int]:
        """How many files there are, and how many bytes in them."""
        files = [file for split in self.splits.values() for file in split]
        return [len(files), sum(file.path.stat().st_size for file in files)]

    def place(self, split: str) -> Path:
        return self.folders[split]

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def read_layout(setting: object) -> Layout:
    """Look at `data.dir`: train/CLASS/*, with val/ (or validation/) and test/ where they are, or CLASS/* alone.

    Raises UserError where there is no such folder, or where it has no sub-folders with files.
    """
    root = _root(setting)
    folders = _folders(root)
    by_split = {split: [d for d in folders if d.name.lower() in names] for split, names in NAMES.items()}
    if not by_split["train"]:
        _refuse_halves(root, by_split)
        by_split = {"train": [root]}
    for split, found in by_split.items():
        if len(found) > 1:
            both = " and ".join(f"{d.name}/" for d in found)
            raise UserError(f"data.dir '{root}': has both {both}, which of them is the {split} split?")
    return _read_splits(root, {split: found[0] for split, found in by_split.items() if found})


def _root(setting: object) -> Path:
    if setting in (None, ""):
        raise UserError("data.dir is not set: data.dir=PATH, a folder with train/CLASS/*.jpg or CLASS/*.jpg")
    root = Path(str(setting)).expanduser()
    if not root.is_dir():
        beside = [d.name for d in _folders(root.parent)] if root.parent.is_dir() else []
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.dir '{root}' {what}{nearest(root.name, beside)}")
    return root


def _refuse_halves(root: Path, by_split: dict[str, list[Path]]) -> None:
    others = [d.name for found in by_split.values() for d in found]
    if others:
        raise UserError(f"data.dir '{root}': has {'/, '.join(others)}/ but no train/")


def _read_splits(root: Path, folders: dict[str, Path]) -> Layout:
    found = {split: {d.name: _files(d) for d in _folders(folder)} for split, folder in folders.items()}
    names = sorted({name for classes in found.values() for name in classes})
    if not names:
        raise UserError(f"data.dir '{root}': no folders of images in it, expected train/CLASS/*.jpg or CLASS/*.jpg")
    faults, whole = [], []
    for name in names:
        wrong = list(_class_faults(name, found, folders))
        faults += wrong
        if not wrong:
            whole.append(name)
    splits = {
        split: [File(path, label) for label, name in enumerate(whole) for path in classes[name]]
        for split, classes in found.items()
    }
    return Layout(root, tuple(whole), splits, folders, tuple(faults))


def _class_faults(name: str, found: dict[str, dict[str, list[Path]]], folders: dict[str, Path]) -> Iterator[str]:
    for split, classes in found.items():
        place = folders[split] / name
        if name in classes and not classes[name]:
            yield f"{place}: no file in it, class '{name}' is empty"
        elif name not in classes:
            has = [s for s, c in found.items() if name in c]
            others = [c for c in classes if not all(c in other for other in found.values())]
            yield f"{place}: is not there, class '{name}' is in {' and '.join(has)} only{nearest(name, others)}"


def _folders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    hidden = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in hidden if not p.name.startswith(".") and p.name.lower() not in CLUTTER)

"""The layout of a folder of images, or of other files: its splits, its classes, and the files of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cnnsweep.data.folder_tree import IMAGES, FileKind, Folder, is_clutter, read_folder, show
from cnnsweep.data.image_cache import ImageFile, ImageFiles
from cnnsweep.errors import UserError, nearest

NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "validation", "valid", "dev", "development"),
    "test": ("test", "testing", "holdout", "eval", "evaluation"),
}
"""Words that name a split's folder, in any case, with or without a number or one of `FILLERS`: Test_Set, train2017."""
EVALUATION = ("eval", "evaluation")
"""Of these the validation split, where another folder is the test split."""
FILLERS = ("dataset", "data", "set", "images", "image", "imgs", "img", "split", "seg")
ALSO_CLASSES = ("train", "valid")
"""Words that name a class, beside other classes: a vehicle, a bank note."""
LISTED = 5
T = TypeVar("T")


def find_images(setting: str | None, depth: int | None = None, kind: FileKind = IMAGES) -> ImageFiles:
    """Look at `data.dir`: train/CLASS/*, with val/ and test/ if they are there, or CLASS/* alone.

    `depth`: how many levels below the folder, or below each split, the classes are; None: one, and a folder that
    looks otherwise is refused. Raises UserError where there is no such folder, or no folders of images in it.
    """
    root = data_dir(setting, f"a folder with train/CLASS/{kind.example} or CLASS/{kind.example}")
    tree = read_folder(root, kind)
    folders = _find_splits(tree)
    if depth is None:
        _check_shape(root, folders["train"], len(folders) > 1)
    return _read_splits(tree, folders, depth)


def split_of(name: str) -> str | None:
    """The split that a folder's name says, if it says one.

    >>> [split_of(name) for name in ("Testing", "training_set", "val2017", "hold-out", "TrainData", "cats")]
    ['test', 'train', 'val', 'test', 'train', None]
    """
    word = _word(name)
    return next((split for split, words in NAMES.items() if word in words), None)


def by_split(items: Iterable[T], name: Callable[[T], str]) -> dict[str, list[T]]:
    """The folders or files whose names say a split, by split: eval is that of validation beside a test."""
    named: dict[str, list[T]] = {split: [] for split in NAMES}
    for item in sorted(items, key=lambda item: _word(name(item)) in EVALUATION):
        if split := split_of(name(item)):
            spare = split == "test" and _word(name(item)) in EVALUATION and named["test"] and not named["val"]
            named["val" if spare else split].append(item)
    return named


def _word(name: str) -> str:
    word = "".join(word for word in re.findall(r"[a-z]+", name.lower()) if word not in FILLERS)
    return next((word.removesuffix(f) for f in FILLERS if word.endswith(f)), word)


def data_dir(setting: str | None, expected: str) -> Path:
    """The folder `data.dir`. Raises UserError where there is none, with what is expected there."""
    if not setting:
        raise UserError(f"data.dir is not set: data.dir=PATH, {expected}")
    root = Path(setting).expanduser()
    if not root.is_dir():
        fault = "is a file, not a folder" if root.exists() else "does not exist"
        beside = [p.name for p in root.parent.glob("*") if p.is_dir() and not is_clutter(p.name)]
        raise UserError(f"data.dir '{show(root)}' {fault}{nearest(root.name, beside)}")
    return root


# Splits


def _find_splits(tree: Folder) -> dict[str, Folder]:
    """The folder of each split; for "train" the whole, where no folder is named so."""
    named = by_split(tree.folders, lambda folder: folder.name)
    candidates = [folder for found in named.values() for folder in found]
    if not candidates or _is_class(candidates, tree):
        return {"train": tree}
    for split, found in named.items():
        if len(found) > 1:
            raise UserError(
                f"data.dir '{show(tree.path)}': has both {_names(found, ' and ', 9)}, which of them is the "
                f"{split} split?"
            )
    if not named["train"]:
        beside = f"expected train/CLASS/{tree.kind.example} beside it, or CLASS/{tree.kind.example} alone"
        raise UserError(f"data.dir '{show(tree.path)}': has {_names(candidates)} but no train/, {beside}")
    if not named["train"][0].filled:
        expected = f"expected train/CLASS/{tree.kind.example}"
        raise UserError(f"'{show(named['train'][0].path)}': {_content(named['train'][0])}, {expected}")
    return {split: found[0] for split, found in named.items() if found}


def _is_class(candidates: Sequence[Folder], tree: Folder) -> bool:
    """Whether the only folder that is named like a split is a class among others."""
    (only, *more), others = candidates, [folder for folder in tree.filled if folder not in candidates]
    return not more and not only.filled and bool(only.files and others) and only.name.lower() in ALSO_CLASSES


def _notes(tree: Folder, folders: Mapping[str, Folder]) -> Iterator[str]:
    used = {folder.path: split for split, folder in folders.items()}
    if tree.path in used:
        return
    for path, split in used.items():
        if path.name.lower() not in NAMES[split][:2]:
            yield f"{show(path.name)}/ is the {split} split"
    if others := [folder for folder in tree.folders if folder.path not in used]:
        yield f"{_names(others)} beside {folders['train'].name}/: not used"
    if loose := tree.images():
        yield f"{tree.kind.counted(loose)} beside {folders['train'].name}/: not used"


def _loose(tree: Folder, folders: Mapping[str, Folder], depth: int) -> Iterator[str]:
    for folder in folders.values():
        if loose := folder.images(depth):
            place = "" if folder is tree else f" in {folder.name}/"
            yield f"{tree.kind.counted(loose)} beside the class folders{place}: not used"


# Classes


def _classes(folder: Folder, depth: int) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for each in folder.at(depth):
        found.setdefault(each.name, []).extend(each.walk())
    for name in found:
        if show(name) != name:
            raise UserError(
                f"'{show(folder.path)}': the name of the class folder '{show(name)}' is no UTF-8, rename it"
            )
    return {name: sorted(files) for name, files in found.items()}


def _spell_alike(classes: Mapping[str, list[Path]], train: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """Name classes as train/ does, where upper and lower case are the only difference."""
    spelt: dict[str, list[Path]] = {}
    for name, files in classes.items():
        like = [name] if name in train else [other for other in train if other.casefold() == name.casefold()]
        spelt.setdefault(like[0] if len(like) == 1 else name, []).extend(files)
    return spelt


def _check_shape(root: Path, train: Folder, has_splits: bool) -> None:
    """Refuse a folder whose classes look to be at another depth."""
    filled = train.filled
    if len(filled) == 1:
        inner = filled[0]
        while len(inner.filled) == 1 and not inner.files:
            inner = inner.filled[0]
        if len(inner.filled) > 1:
            levels = len(inner.path.relative_to(train.path).parts) + 1
            text = f"one folder only, {filled[0].name}/; the classes look to be in '{show(inner.path)}'"
            advice = f"data.class_depth={levels}" if has_splits else f"data.dir={show(inner.path)}"
            raise UserError(f"'{show(train.path)}': {text} ({_names(inner.filled)}): set {advice}")
    names = Counter(folder.name for each in filled for folder in each.filled)
    shared = [name for name, count in names.items() if count > 1]
    flat = any(each.images() or not each.filled for each in filled)
    if flat or len(filled) < 2 or len(names) < 2 or 2 * len(shared) < len(names):
        return
    inner_names = _list(f"{name}/" for name in sorted(names))
    raise UserError(
        f"data.dir '{show(root)}': {_names(filled)} hold folders of the same names, {inner_names}: are these the "
        "classes, or those?\n"
        f"  {inner_names}: data.class_depth=2, which splits the {train.kind.noun}s of all at random; or name the outer "
        "folders train/, val/ and test/\n"
        f"  {_names(filled)}: data.class_depth=1"
    )


def _read_splits(tree: Folder, folders: Mapping[str, Folder], depth: int | None) -> ImageFiles:
    found = {split: _classes(folder, depth or 1) for split, folder in folders.items()}
    if not found["train"]:
        example = tree.kind.example
        at = f"expected train/CLASS/{example} or CLASS/{example}" if depth is None else f"at data.class_depth={depth}"
        raise UserError(f"data.dir '{show(tree.path)}': no folders of {tree.kind.noun}s in it, {at}")
    found = {split: _spell_alike(classes, found["train"]) for split, classes in found.items()}
    sound = sorted(name for name, files in found["train"].items() if files)
    unusable = {s: fault for s in found if s != "train" and (fault := _split_fault(folders[s], found[s], sound))}
    used = {split: classes for split, classes in found.items() if split not in unusable}
    splits = {
        split: [ImageFile(path, label) for label, name in enumerate(sound) for path in classes.get(name, ())]
        for split, classes in used.items()
    }
    return ImageFiles(
        root=tree.path,
        classes=tuple(sound),
        splits=splits,
        folders={split: folder.path for split, folder in folders.items()},
        faults=(*_class_faults(folders, used, sound), *unusable.values()),
        notes=(*_notes(tree, folders), *_loose(tree, {split: folders[split] for split in used}, depth or 1)),
    )


def _class_faults(
    folders: Mapping[str, Folder], found: Mapping[str, Mapping[str, list[Path]]], sound: Sequence[str]
) -> Iterator[str]:
    for name in sorted({name for classes in found.values() for name in classes} - set(sound)):
        others = [split for split in found if found[split].get(name)]
        for split in others:
            count = folders[split].kind.counted(len(found[split][name]))
            text = f"{count} of class '{name}', which {folders['train'].name}/ does not have"
            yield f"{show(folders[split].path / name)}: {text}{nearest(name, sound)}"
        if name in found["train"] or not others:
            place = next(folders[split].path / name for split in found if name in found[split])
            yield f"{show(place)}: no file in it, class '{name}' is empty"


def _split_fault(folder: Folder, found: Mapping[str, list[Path]], sound: Sequence[str]) -> str | None:
    """The reason why nothing can be measured on a split."""
    filled = [name for name, files in found.items() if files]
    known = [name for name in filled if name in sound]
    if len(known) > 1 or len(sound) < 2:
        return None
    text = _content(folder)
    if known:
        text = f"{folder.kind.noun}s of one class only, {known[0]}"
    elif filled:
        text = f"none of its folders ({_list(filled)}) is a class ({_list(sound)})"
    return f"{show(folder.path)}: {text}"


# Texts


def _content(folder: Folder) -> str:
    kind, count = folder.kind, folder.images()
    return f"{kind.counted(count)} and no class folders" if count else f"no folders of {kind.noun}s in it"


def _names(folders: Iterable[Folder], glue: str = ", ", most: int = LISTED) -> str:
    return _list((f"{show(folder.name)}/" for folder in folders), glue, most)


def _list(names: Iterable[str], glue: str = ", ", most: int = LISTED) -> str:
    names = list(names)
    return glue.join(names[:most]) + (" …" if len(names) > most else "")

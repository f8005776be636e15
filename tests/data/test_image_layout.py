"""Which sub-folders of a folder of images are splits and classes, what is left out, and what is said of it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import data_sets
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnsweep.data import image_folder
from cnnsweep.data.arrays import Arrays, Dataset
from cnnsweep.data.image_layout import find_images
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError


def grow(root: Path, tree: Mapping[str, int | str]) -> Path:
    """Write so many images, or a text, at each path; 0 images are an empty folder."""
    for number, (place, content) in enumerate(tree.items()):
        path = root / place
        if isinstance(content, str):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            continue
        path.mkdir(parents=True, exist_ok=True)
        for image in range(content):
            Image.new("L", (4, 4), (7 * number + image) % 256).save(path / f"{image}.png")
    return root


def config(root: Path, **changes: Any) -> Any:
    base = {"dir": str(root), "test": 0.3, "validation": 0.3, "image_size": 4, "resize": "crop", "color": "grey"}
    base |= {"class_depth": None, "max_megapixels": 180.0, "skip_bad": False, "cache": f"{root}-cache"}
    return data_sets.config("cnnsweep.data.image_folder.load", **{**base, **changes})


def read(root: Path, **changes: Any) -> Dataset:
    return load(config(root, **changes), seed=0)


def read_arrays(root: Path, **changes: Any) -> Arrays:
    return image_folder.load(config(root, **changes))


def both(place: str, images: int = 4) -> dict[str, int | str]:
    """Two classes of so many images each."""
    return {f"{place}/cats".lstrip("/"): images, f"{place}/dogs".lstrip("/"): images}


def own_splits(root: Path) -> dict[str, str]:
    return {split: folder.name for split, folder in find_images(str(root)).folders.items()}


# Splits


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "Testing"), {"train": "Training", "test": "Testing"}),
        (("train", "dev"), {"train": "train", "val": "dev"}),
        (("train", "Development"), {"train": "train", "val": "Development"}),
        (("train", "eval"), {"train": "train", "test": "eval"}),
        (("train", "evaluation"), {"train": "train", "test": "evaluation"}),
        (("training", "validation", "evaluation"), {"train": "training", "val": "validation", "test": "evaluation"}),
        (("train", "eval", "test"), {"train": "train", "val": "eval", "test": "test"}),
        (("train", "holdout"), {"train": "train", "test": "holdout"}),
        (("train", "hold-out"), {"train": "train", "test": "hold-out"}),
        (("training_set", "test_set"), {"train": "training_set", "test": "test_set"}),
        (("Train Data", "Test Data"), {"train": "Train Data", "test": "Test Data"}),
        (("train2017", "val2017"), {"train": "train2017", "val": "val2017"}),
        (("seg_train", "seg_test"), {"train": "seg_train", "test": "seg_test"}),
    ],
    ids=" ".join,
)
def test_a_split_is_known_by_its_name(tmp_path: Path, folders: tuple[str, ...], splits: dict[str, str]) -> None:
    root = grow(tmp_path / "pets", {key: n for f in folders for key, n in both(f).items()})
    assert own_splits(root) == splits
    found = read(root)
    sizes = {"train": len(found.x_train), "val": len(found.x_val), "test": len(found.x_test)}
    assert all(sizes[split] == 8 for split in splits if split != "train")
    said = found.describe()
    for split, folder in splits.items():
        told = f"{folder}/ is the {split} split" in said
        assert told == (folder.lower() not in ("train", "training", "val", "validation", "test", "testing"))


def test_the_first_of_many_classes_are_named(tmp_path: Path) -> None:
    found = read(grow(tmp_path / "pets", dict.fromkeys("gfedcba", 4)))
    assert "7 classes (a, b, c, d, e …), from" in found.describe()


NO_FISH = "no image of class 2 (fish); f1 and fbeta count that as 0"


@pytest.mark.parametrize(
    ("tree", "note"),
    [
        ({**both("train"), "masks/a": 3, "other": 0}, "masks/, other/ beside train/: not used"),
        ({**both("train"), "": 3}, "3 images beside train/: not used"),
        (
            {**both("train"), "train": 1, "train/labels.csv": "x"},
            "1 image beside the class folders in train/: not used",
        ),
        ({**both(""), "": 2}, "2 images beside the class folders: not used"),
        ({**both("train"), **both("test"), "train/fish": 4, "test/fish": 0}, f"test: {NO_FISH}"),
        ({**both("train"), **both("val"), "train/fish": 4}, f"val: {NO_FISH}"),
    ],
    ids=["folders beside train", "images beside train", "images in train", "images", "empty in test", "not in val"],
)
def test_what_is_not_used_is_said(tmp_path: Path, tree: Mapping[str, int | str], note: str) -> None:
    found = read(grow(tmp_path / "pets", tree))
    (line,) = [line for line in found.describe().splitlines() if line.endswith(note)]
    assert line.startswith("  ")
    assert found.class_names[:2] == ("cats", "dogs")


@pytest.mark.parametrize(
    ("tree", "classes"),
    [
        ({"bus": 4, "train": 4}, ("bus", "train")),
        ({"valid": 4, "invalid": 4}, ("invalid", "valid")),
        ({"cats/siamese": 2, "cats/tabby": 2, "dogs/beagle": 4}, ("cats", "dogs")),
        ({"cats/images": 4, "dogs/images": 4}, ("cats", "dogs")),
        ({"cafe\u0301": 2, "caf\xe9": 2, "bar": 4}, ("bar", "caf\xe9")),
    ],
    ids=["a vehicle", "a bank note", "nested", "one inner folder", "accents"],
)
def test_folders_that_are_classes(tmp_path: Path, tree: Mapping[str, int], classes: tuple[str, ...]) -> None:
    found = read(grow(tmp_path / "things", tree))
    assert found.class_names == classes
    assert np.bincount(np.concatenate([found.y_train, found.y_val, found.y_test])).tolist() == [4, 4]


# Folders that look otherwise


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"patientA/x": 2, "patientA/y": 2, "patientB/x": 2, "patientB/y": 2},
            r"patientA/, patientB/ hold folders of the same names, x/, y/.*class_depth=2.*class_depth=1",
        ),
        (
            {**both("train/day1"), **both("train/day2"), **both("test/day1"), **both("test/day2")},
            r"day1/, day2/ hold folders of the same names, cats/, dogs/",
        ),
        (both("one/PetImages"), r"one folder only, one/; .*in '.*/one/PetImages' \(cats/, dogs/\): set data\.dir=/"),
        (both("PetImages"), r"data\.dir=\S*/PetImages$"),
        ({**both("all/train"), **both("all/test")}, r"in '\S*/all' \(test/, train/\): set data\.dir=\S*/all$"),
        (both("train/train"), r"in '\S*/train/train' .*: set data\.dir=\S*/train/train$"),
        ({**both("train/train"), **both("test/test")}, r"in '\S*/train/train' .*: set data\.class_depth=2"),
        ({"cats": 5}, r"pets: 1 class \(cats\), at least 2 are needed"),
        ({"cats": 5, "dogs": 0}, r"(?s)dogs: no file in it.*1 class \(cats\), at least 2 are needed"),
        ({"train": 5, "test": 5}, r"train': 5 images and no class folders, expected train/CLASS"),
        ({"train": 5, "masks/a": 5, "masks/b": 5, "test/a": 5}, r"train': 5 images and no class folders"),
        ({**both(""), "test": 5}, r"has test/ but no train/, expected"),
        ({"a.jpg": "x"}, "no folders of images in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_folder_that_looks_otherwise(tmp_path: Path, tree: Mapping[str, Any], message: str, skip_bad: bool) -> None:
    root = grow(tmp_path / "pets", tree)
    with pytest.raises(UserError) as raised:
        read(root, skip_bad=skip_bad)
    assert re.search(message, str(raised.value), re.DOTALL)
    assert len(str(raised.value).splitlines()) < 5
    advised = re.search(r"set data\.(dir|class_depth)=(\S+)", str(raised.value))
    if advised:  # and that works
        changes = {"dir": advised[2]} if advised[1] == "dir" else {"class_depth": int(advised[2])}
        assert read(root, **changes).class_names == ("cats", "dogs")


@pytest.mark.parametrize(("depth", "classes"), [(1, ("patientA", "patientB")), (2, ("x", "y"))])
def test_the_depth_of_the_classes_can_be_set(tmp_path: Path, depth: int, classes: tuple[str, ...]) -> None:
    root = grow(tmp_path / "scans", {f"patient{p}/{c}": 2 for p in "AB" for c in "xy"})
    assert read(root, class_depth=depth).class_names == classes
    with pytest.raises(UserError, match=r"no folders of images in it, at data\.class_depth=3"):
        read(root, class_depth=3)


# What cannot be used


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"SPLIT": 3}, "3 images and no class folders"),
        ({"SPLIT": 0}, "no folders of images in it"),
        ({"SPLIT/cats": 0, "SPLIT/dogs": 0}, "no folders of images in it"),
        ({"SPLIT/cats": 3}, "images of one class only, cats"),
        ({"SPLIT/unknown": 3}, "none of its folders (unknown) is a class (cats, dogs)"),
    ],
    ids=["flat", "empty", "empty classes", "one class", "no class"],
)
def test_a_split_without_classes_is_one_line_and_can_be_left_out(
    tmp_path: Path, split: str, tree: Mapping[str, int], fault: str
) -> None:
    root = grow(tmp_path / "pets", both("train", 10) | {k.replace("SPLIT", split): n for k, n in tree.items()})
    with pytest.raises(UserError) as raised:
        read(root)
    first, advice = str(raised.value).splitlines()
    assert first == f"data cannot be used: {root}/{split}: {fault}"
    assert "data.skip_bad=true" in advice
    found = read(root, skip_bad=True)
    assert [len(x) for x in (found.x_train, found.x_val, found.x_test)] == [10, 4, 6]
    assert "(1 unusable entry skipped)" in found.describe()
    assert f"skipped: {root}/{split}: {fault}" in found.describe()


def test_a_class_of_broken_files_is_skipped_and_counted(tmp_path: Path) -> None:
    tree = {**both("train"), **both("test"), "train/birds/a.jpg": "no", "train/birds/b.jpg": "no", "test/birds": 2}
    root = grow(tmp_path / "pets", tree)
    with pytest.raises(UserError, match="2 faults"):
        read(root)
    found = read(root, skip_bad=True)
    assert found.class_names == ("cats", "dogs")
    assert np.bincount(found.y_test).tolist() == [4, 4]
    assert "(2 unusable entries skipped)" in found.describe()
    assert "train/birds: no file in it can be decoded\n" in found.describe()
    assert "test/birds: images of a class that train/ does not have" in found.describe()


def test_a_split_of_broken_files_is_skipped(tmp_path: Path) -> None:
    tree = {**both("train", 10), "test/cats": 2, "test/dogs/a.jpg": "no"}
    root = grow(tmp_path / "pets", tree)
    found = read(root, skip_bad=True)
    assert len(found.x_test) == 6
    assert "test: images of fewer than 2 classes can be decoded" in found.describe()


@pytest.mark.parametrize(
    ("tree", "classes"),
    [
        ({**both("train"), "test/Cats": 3, "test/DOGS": 3}, ("cats", "dogs")),
        ({"train/a": 4, "train/A": 4, "test/a": 3, "test/A": 3}, ("A", "a")),
    ],
    ids=["spelt otherwise", "different classes"],
)
def test_classes_that_are_spelt_in_another_case(
    tmp_path: Path, tree: Mapping[str, int], classes: tuple[str, ...]
) -> None:
    found = read(grow(tmp_path / "pets", tree))
    assert found.class_names == classes
    assert np.bincount(found.y_test).tolist() == [3, 3]


def test_a_class_that_only_a_test_set_has(tmp_path: Path) -> None:
    root = grow(tmp_path / "pets", {**both("train"), **both("test"), "test/cat": 3})
    with pytest.raises(UserError, match=r"3 images of class 'cat', which train/ does not have, did you mean 'cats'\?"):
        read(root)
    assert len(read(root, skip_bad=True).x_test) == 8


@pytest.mark.parametrize("place", ["", "train", "train/cats", "train/cats/young", "test", "test/dogs"])
@pytest.mark.parametrize(
    "clutter",
    [".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png", ".git/objects/0a/1b", "__MACOSX/cats/._0.png", "Thumbs.db",
     ".DS_Store", "._0.png", "desktop.ini", "$RECYCLE.BIN/0.png", "lost+found/0.png"],
)  # fmt: skip
def test_what_systems_leave_is_no_image_and_no_class(tmp_path: Path, clutter: str, place: str) -> None:
    tree = {**both("train"), **both("test"), "train/cats/young": 2}
    plain = find_images(str(grow(tmp_path / "plain", tree)))
    found = find_images(str(grow(tmp_path / "pets", {**tree, f"{place}/{clutter}".lstrip("/"): "clutter"})))
    assert (found.classes, found.faults, found.notes) == (plain.classes, (), ())
    assert {s: len(f) for s, f in found.splits.items()} == {s: len(f) for s, f in plain.splits.items()}


def test_links(tmp_path: Path) -> None:
    """Folders that are linked to count; a link to a folder above ends; one that leads nowhere is a broken file."""
    root = grow(tmp_path / "pets", {"dogs": 4, "../elsewhere/cats": 4})
    (root / "cats").symlink_to(tmp_path / "elsewhere" / "cats")
    (root / "dogs" / "up").symlink_to(root)
    (root / "dogs" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"dogs/gone\.png: cannot be read \(No such file or directory\)"):
        read(root)
    assert len(find_images(str(root)).splits["train"]) == 9


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    root = grow(tmp_path / "pets", both(""))
    (root / "cats" / os.fsdecode(b"\xe9.png")).write_text("no")
    with pytest.raises(UserError, match=r"cats/\\xe9\.png: is no image"):
        read(root)
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(UserError, match=r"the name of the class folder 'caf\\xe9' is no UTF-8, rename it"):
        read(root)


def test_a_class_with_a_name_of_any_language_is_stored(tmp_path: Path) -> None:
    found = read(grow(tmp_path / "\u674e [b] {c}", {"\u72ac #1": 4, "\u732b's & co": 4}))
    assert found.class_names == ("\u72ac #1", "\u732b's & co")
    assert found.name == "\u674e [b] {c}"


# Any folder


CLUTTER = ("Thumbs.db", "._a.png", ".DS_Store", "@eaDir", ".git", "__MACOSX")


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {name: content for each in found for name, content in each.items()})


FILES = st.dictionaries(
    st.sampled_from(["a.png", "b.PNG", "c.webp", "d.tif", "cut.jpg", "notes.txt", *CLUTTER[:3]]),
    st.sampled_from(["image", "image", "bad"]),
    max_size=3,
)
CLASS = merged(FILES, st.dictionaries(st.sampled_from(["young", *CLUTTER[3:]]), FILES, max_size=1))
FILLED = merged(st.just({"e.png": "image"}), CLASS)
CLASSES = merged(FILES, st.dictionaries(st.sampled_from(["cats", "dogs", "fish", *CLUTTER[3:]]), CLASS, max_size=2))
SOUND = merged(CLASSES, st.fixed_dictionaries({"caf\xe9 #1": FILLED, "dogs": FILLED}))
OTHERS = st.one_of(SOUND, SOUND, CLASSES)
SPLITS = merged(
    FILES,
    st.tuples(OTHERS, st.sampled_from(["val", "dev"]), OTHERS, st.sampled_from(["Test_Set", "eval"]), OTHERS).map(
        lambda five: {"train": five[0], five[1]: five[2], five[3]: five[4]}
    ),
    st.dictionaries(st.sampled_from(["masks", "@eaDir"]), FILES, max_size=1),
)
TREES = st.one_of(SOUND, SPLITS, SPLITS, CLASSES)


def write(folder: Path, tree: Mapping[str, Any], greys: dict[int, Path]) -> None:
    """Write a tree, each image of another grey."""
    folder.mkdir()
    for name, content in tree.items():
        path = folder / name
        if isinstance(content, dict):
            write(path, content, greys)
        elif content == "bad":
            path.write_text("no image")
        else:
            greys[len(greys)] = path
            format = {".webp": "webp", ".tif": "tiff"}.get(path.suffix, "png")
            Image.new("RGB", (4, 4), (len(greys) - 1,) * 3).save(path, format, lossless=True)


def files(folder: Path) -> list[Path]:
    """All that is in a folder and no clutter."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if not any(name in CLUTTER for name in path.parts)]


def texts(folder: Path) -> int:
    """Files beside the classes that nobody takes for images."""
    return sum(len(path.parts) == 1 and path.suffix == ".txt" for path in files(folder))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_what_is_used_skipped_and_reported_adds_up_to_what_is_there(tree: dict[str, Any]) -> None:
    greys: dict[int, Path] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "pets"
        write(root, tree, greys)
        assume(len(greys) <= 256)
        try:
            found = read_arrays(root, skip_bad=True)
        except UserError:
            return
        folders = {split: find_images(str(root)).folders[split] for split in found.splits}
        used = 0
        for split, folder in folders.items():
            x, y = getattr(found, f"x_{split}"), getattr(found, f"y_{split}")
            for grey, label in zip(x[:, 0, 0, 0].tolist(), y.tolist(), strict=True):
                path = greys.pop(grey).relative_to(folder)  # each at most once
                assert path.parts[0] == found.class_names[label]
                assert path in files(folder)
                used += 1
        matches = [
            re.match(r"skipped: (.*): |(\d+) images? beside|(.*/) beside train/: ", note) for note in found.notes
        ]
        skipped = [Path(m[1]) for m in matches if m and m[1]]
        loose = sum(int(m[2]) for m in matches if m and m[2])
        beside = [root / name.rstrip("/") for m in matches if m and m[3] for name in m[3].split(", ")]
        entries = int(match[1]) if (match := re.search(r"\((\d+) unusable", found.source)) else 0
        reported = sum(len(files(path)) for path in [*skipped, *beside] if path.is_dir())
        others = sum(texts(folder) for folder in {root, *folders.values()})
        assert used + (entries - len(skipped)) + reported + loose + others == len(files(root))
        if entries:
            with pytest.raises(UserError, match=r"skip_bad=true skips all of these"):
                read_arrays(root)
        else:
            assert read_arrays(root).digest == found.digest

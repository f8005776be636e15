"""A folder of images with a table of their labels: classes, several labels an image, or numbers."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Array, Arrays, refuse
from cnnsweep.data.folder_tree import show
from cnnsweep.data.groups import find_groups
from cnnsweep.data.image_cache import Decoded, ImageFile, ImageFiles, open_decoded
from cnnsweep.data.image_decoding import SUFFIXES
from cnnsweep.data.image_depth import depth_notes
from cnnsweep.data.image_files import ImageFilesConfig, skipped
from cnnsweep.data.image_layout import data_dir, split_of
from cnnsweep.data.label_table import LabelTable, labels_of, read_table
from cnnsweep.errors import UserError, nearest

PLACES = ("", "images")
"""Folders below `data.dir` in which files are looked for."""


class ImageTableConfig(ImageFilesConfig):
    """A folder of images with a table of labels."""

    labels: str
    columns: list[str] | None
    task: Task


@configured_by(ImageTableConfig)
def load(config: ImageTableConfig) -> Arrays:
    """Read `data.labels` and decode the images that it names, or map those decoded before.

    A column `split` (train, val, test) divides them, a column `group` keeps what belongs together in one split.
    Raises one UserError that lists every file that is missing or no image; `data.skip_bad` skips these.
    """
    root = data_dir(config.dir, f"a folder with images and {config.labels}")
    table = read_table(_table_path(root, config.labels), config.columns)
    images, rows = _images(root, table, config.skip_bad)
    y, names = labels_of(table, config.task)
    decoded = open_decoded(Path(config.cache), images, config.decoding)
    if decoded.skipped and not config.skip_bad:
        refuse([f"{show(root)}/{fault}" for fault in decoded.skipped], "data.skip_bad=true skips all of these")
    rows = {split: rows[split][decoded.array(split, "kept")] for split in images.splits}
    return _arrays(config, table, images, decoded, rows, y, names)


def _table_path(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        beside = [p.name for p in root.glob("*.csv")]
        found = f" (it has {', '.join(sorted(beside)[:5])})" if beside else ""
        raise UserError(f"data.labels: '{show(root)}' has no {name}{nearest(name, beside)}{found}")
    return path


def _images(root: Path, table: LabelTable, skip_bad: bool) -> tuple[ImageFiles, dict[str, Array]]:
    """The files of each split in the order of their names, and their rows in the table."""
    _check_column(root, table)
    paths = [_find(root, name) for name in table.files]
    faults = [f"{table.place(row)}: no file '{table.files[row]}'" for row, path in enumerate(paths) if path is None]
    if len(faults) == len(paths) > 1:
        places = " or ".join(show(root / place) for place in PLACES)
        refuse([f"{faults[0]} in {places}, nor any other of the {len(paths):,}"])
    if faults and not skip_bad:
        refuse(faults, "data.skip_bad=true skips all of these")
    _expect_once(table, paths)
    splits: dict[str, list[tuple[Path, int]]] = {}
    for row, path in enumerate(paths):
        if path is not None:
            splits.setdefault(_split(table, row), []).append((path, row))
    if "train" not in splits:
        refuse([f"{show(table.path)}: no image for training"])
    ordered: dict[str, list[tuple[Path, int]]] = {s: sorted(splits[s]) for s in ("train", "val", "test") if s in splits}
    files = {split: [ImageFile(path, 0) for path, _ in found] for split, found in ordered.items()}
    rows = {split: np.array([row for _, row in found]) for split, found in ordered.items()}
    return ImageFiles(root, (), files, dict.fromkeys(files, root), tuple(faults), ()), rows


def _check_column(root: Path, table: LabelTable) -> None:
    """Refuse a table whose first line names a file, and one in which another column than the first names them."""
    if _find_whole(root, table.file_column):
        problem = f"its first line names the file '{table.file_column}', expected a header (file,LABEL …)"
        refuse([f"{show(table.path)}: {problem}"])
    others = {**table.columns, **table.others}
    if not _find_whole(root, table.files[0]) and (named := [n for n in others if _find_whole(root, others[n][0])]):
        problem = f"its first column '{table.file_column}' names no file, but '{named[0]}' does: make it the first"
        refuse([f"{show(table.path)}: {problem}"])


def _find(root: Path, name: str) -> Path | None:
    """The file of a name, which may lack its suffix."""
    if whole := _find_whole(root, name):
        return whole
    found = {path for suffix in SUFFIXES if name and (path := _find_whole(root, name + suffix))}
    return found.pop() if len(found) == 1 else None


def _find_whole(root: Path, name: str) -> Path | None:
    """The file of a name as it stands, as Windows writes it, or with its accents composed or decomposed."""
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    names = dict.fromkeys([*forms, *(each.replace("\\", "/") for each in forms)])
    return next((path for each in names for place in PLACES if os.path.isfile(path := root / place / each)), None)


def _expect_once(table: LabelTable, paths: Sequence[Path | None]) -> None:
    seen: dict[str, int] = {}
    rows = [(row, os.path.abspath(path)) for row, path in enumerate(paths) if path is not None]
    if twice := [(row, first) for row, path in rows if (first := seen.setdefault(path, row)) != row]:
        refuse([f"{table.place(row)}: '{table.files[row]}' is given twice, first in line {table.lines[first]}"
                for row, first in twice])  # fmt: skip


def _split(table: LabelTable, row: int) -> str:
    if table.splits is None:
        return "train"
    split = split_of(table.splits[row])
    if split is None:
        raise UserError(f"{table.place(row)}: split is '{table.splits[row]}' (train, val or test)")
    return split


def _arrays(
    config: ImageTableConfig,
    table: LabelTable,
    images: ImageFiles,
    decoded: Decoded,
    rows: dict[str, Array],
    y: Array,
    names: tuple[str, ...],
) -> Arrays:
    labels = {split: y[found] for split, found in rows.items()}
    content = hashlib.sha256(decoded.folder.name.encode() + repr(names).encode())
    for found in labels.values():
        content.update(np.ascontiguousarray(found).data)
    file_names = images.kept(decoded)
    in_table = {} if table.groups is None else {s: np.array(table.groups)[found] for s, found in rows.items()}
    return Arrays.of_splits(
        {split: decoded.array(split) for split in labels},
        labels,
        class_names=names,
        source=f"{show(table.path)}{skipped(images, decoded)}",
        scale=1 / 255,
        name=show(images.root.resolve().name),
        files={f"{a}_{split}": f"{show(table.path)}, {split}" for split in rows for a in "xy"},
        digest=content.hexdigest()[:16],
        decoding=decoded.decoding,
        notes=(*depth_notes(decoded.decoding, decoded.deep),),
        names=file_names,
        prints={split: decoded.array(split, "prints") for split in rows},
        groups=find_groups(config.group, file_names) or in_table,
    )

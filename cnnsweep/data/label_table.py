"""A table of labels: a CSV file with a row an image, whose first column names its file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import refuse
from cnnsweep.data.folder_tree import composed, show
from cnnsweep.errors import UserError, nearest

SPLIT, GROUP = "split", "group"
"""Columns that are no labels."""
SEPARATORS = (";", "|", ",", " ")
"""Between the labels of one image, the first of these that the column has."""


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table as texts."""

    path: Path
    lines: list[int]
    """On which each row ends."""
    file_column: str
    files: list[str]
    columns: dict[str, list[str]]
    """The labels, by the column's name."""
    others: dict[str, list[str]]
    """The columns that are not used."""
    splits: list[str] | None
    groups: list[str] | None

    def place(self, row: int) -> str:
        """A row, for messages."""
        return f"{show(self.path)}, line {self.lines[row]}"


def read_table(path: Path, columns: Sequence[str] | None) -> LabelTable:
    """Read a table with a header; `columns` are those that hold labels, None for all but the file's, split and group.

    Commas, semicolons and tabs may separate its columns. All but the files' names have composed accents. Raises
    `UserError` for what is no table, and columns that it does not have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"data.labels: '{show(path)}' is not UTF-8 (byte 0x{byte:02x}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"data.labels: '{show(path)}' cannot be read: {error}") from error
    first = text.lstrip("\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    numbered = [(reader.line_num, [row[0], *map(composed, row[1:])]) for row in reader if row]
    rows = dict(numbered)
    header = [name.strip() for name in next(iter(rows.values()), [])]
    if len(header) < 2 or len(rows) < 2:
        refuse([f"{show(path)}: expected a header (file,LABEL …) and a row for each image"])
    if uneven := {line: row for line, row in rows.items() if len(row) != len(header)}:
        refuse(
            [f"{show(path)}, line {n}: {len(row)} values, the header has {len(header)}" for n, row in uneven.items()]
        )
    _, *lines = rows
    found = {name: [rows[line][i].strip() for line in lines] for i, name in enumerate(header)}
    files, special = header[0], {name.lower(): name for name in header[1:] if name.lower() in (SPLIT, GROUP)}
    labels = [name for name in header[1:] if name not in special.values()]
    columns = [composed(name) for name in columns or ()]
    for name in columns:
        if name not in labels:
            raise UserError(f"data.columns: {show(path)} has no column '{name}'{nearest(name, labels)} "
                            f"(it has {', '.join(labels)})")  # fmt: skip
    used = [files, *special.values(), *(columns or labels)]
    if twice := [name for name in dict.fromkeys(used) if header.count(name) > 1]:
        refuse([f"{show(path)}: the header has '{name}' twice" for name in twice])
    split, group = (found[special[key]] if key in special else None for key in (SPLIT, GROUP))
    kept = {name: found[name] for name in columns or labels}
    others = {name: texts for name, texts in found.items() if name not in used}
    return LabelTable(path, lines, files, found[files], kept, others, split, group)


def labels_of(table: LabelTable, task: Task) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """The labels of all rows, as the task has them, and the names of the classes, labels or targets.

    Raises `UserError` for values that the task cannot have.
    """
    if task == "regression":
        return np.stack([_numbers(table, name) for name in table.columns], axis=1), (*table.columns,)
    if task == "multi_label":
        if len(table.columns) > 1:
            return np.stack([_numbers(table, name) for name in table.columns], axis=1), (*table.columns,)
        return _lists(table)
    if task == "classification":
        return _classes(table)
    raise UserError("data=image_table: has no masks; for task=segmentation choose data=mask_folder")


def _numbers(table: LabelTable, name: str) -> NDArray[np.float64]:
    found, faults = [], []
    for row, text in enumerate(table.columns[name]):
        try:
            found.append(float(text.replace("_", "?")))  # which Python alone takes within a number
        except ValueError:
            faults.append(f"{table.place(row)}: {name} is '{text}', expected a number")
    if faults:
        refuse(faults)
    return np.array(found)  # whether float32 can tell them apart is checked with the other data


def _classes(table: LabelTable) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    if len(table.columns) > 1:
        raise UserError(
            f"data.columns: {show(table.path)} has {len(table.columns)} columns of labels "
            f"({', '.join(table.columns)}), of which task=classification takes one: data.columns=[NAME]"
        )
    (texts,) = table.columns.values()
    if empty := [table.place(row) for row, text in enumerate(texts) if not text]:
        refuse([f"{place}: no class" for place in empty])
    names = _in_order(set(texts))
    return np.array([names.index(text) for text in texts], np.int32), (*names,)


def _lists(table: LabelTable) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """One column with all labels of an image: "red;round"."""
    (texts,) = table.columns.values()
    if listed := [
        row for row, text in enumerate(texts) if text[:1] in ("[", "{", "(") and text[-1:] in ("]", "}", ")")
    ]:
        refuse(
            [
                f"{table.place(row)}: '{texts[row]}' is a list in code, expected labels such as red;round"
                for row in listed
            ]
        )
    separator = next((sign for sign in SEPARATORS if any(sign in text for text in texts)), " ")
    lists = [[label.strip() for label in text.split(separator) if label.strip()] for text in texts]
    names = _in_order({label for labels in lists for label in labels})
    if len(names) < 2:
        refuse(
            [f"{show(table.path)}: {', '.join(names) or 'no label'} only, expected labels such as red{separator}round"]
        )
    y = np.zeros((len(lists), len(names)), np.float32)
    for row, labels in enumerate(lists):
        y[row, [names.index(label) for label in labels]] = 1
    return y, (*names,)


def _in_order(names: set[str]) -> list[str]:
    """2 before 10, and 01 before 1."""
    return sorted(sorted(names), key=_natural)


def _natural(name: str) -> tuple[object, ...]:
    """A key that puts 2 before 10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)

"""A data set as a folder of .npy files that any number of workers map into memory at once."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from cnnsweep.data.arrays import Dataset
from cnnsweep.data.mapped import open_map, put
from cnnsweep.errors import UserError

ARRAYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
FACTS = ("name", "class_names", "source", "digest", "scale")


def save(dataset: Dataset, folder: Path) -> None:
    """Write the data set to `folder`, in one step; nothing is written where it is there already.

    Raises UserError where the folder cannot be written.
    """
    if _holds(folder, dataset):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            for key in ARRAYS:
                put(getattr(dataset, key), new / f"{key}.npy")
            facts = {key: getattr(dataset, key) for key in FACTS}
            (new / "dataset.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
            _put(new, folder, dataset)
    except OSError as error:
        raise UserError(f"cannot write the data to {folder}: {error}") from error


def open_saved(folder: Path) -> Dataset:
    """Open what `save` wrote, in milliseconds: the arrays are read-only maps of the files.

    Raises UserError where the folder holds no complete data set.
    """
    try:
        facts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        arrays: Any = {key: open_map(folder / f"{key}.npy") for key in ARRAYS}
        facts["class_names"] = tuple(facts["class_names"])
        return Dataset(**facts, **arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no complete data set: {error}") from error


def _holds(folder: Path, dataset: Dataset) -> bool:
    try:
        saved = open_saved(folder)
    except UserError:
        return False
    return all(getattr(saved, key) == getattr(dataset, key) for key in FACTS)


def _put(new: Path, folder: Path, dataset: Dataset) -> None:
    """Move `new` to `folder`, whatever is there; another process may be doing the same."""
    try:
        os.rename(new, folder)
        return
    except OSError:
        if _holds(folder, dataset):
            return
    old = new.with_name("old")
    os.rename(folder, old)
    os.rename(new, folder)

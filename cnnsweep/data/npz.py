"""A user's own arrays in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays, refuse
from cnnsweep.errors import UserError, nearest

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "class_names", "groups_train", "groups_val", "groups_test")


class NpzConfig(DataConfig):
    """A .npz file."""

    file: str
    kind: Literal["image", "signal", "video"]


@configured_by(NpzConfig)
def load(config: NpzConfig) -> Arrays:
    """Read x_train, y_train, x_test, y_test and, if they are there, x_val, y_val and class_names.

    Raises one UserError that names the file and every missing, unreadable or pickled array.
    """
    path = _path(config.file)
    arrays = read_npz(path, REQUIRED, OPTIONAL)
    names = arrays.get("class_names")
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1 or not names.size):
        refuse([f"{path}: class_names is {names.dtype} {names.shape}, expected a list of texts"])
    return Arrays(
        x_train=arrays["x_train"],
        y_train=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
        class_names=() if names is None else tuple(names.tolist()),
        source=str(path),
        x_val=arrays.get("x_val"),
        y_val=arrays.get("y_val"),
        name=path.stem,
        kind=config.kind,
        groups=_groups(path, arrays),
    )


def _groups(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    found = {split: arrays[f"groups_{split}"] for split in ("train", "val", "test") if f"groups_{split}" in arrays}
    faults = [
        f"{path}: groups_{split} is {groups.dtype} {groups.shape}, expected a number or a text for each of "
        f"{len(arrays[f'y_{split}']):,} images"
        for split, groups in found.items()
        if groups.ndim != 1 or groups.dtype.kind not in "Uui" or len(groups) != len(arrays.get(f"y_{split}", ()))
    ]
    if faults:
        refuse(faults)
    return found


def read_npz(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Array]:
    """Read the named arrays of a .npz file, never a pickle; an optional one may be absent."""
    try:
        # Opened here: np.load leaves its own file open where the archive is broken.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                refuse([f"{path}: a single array, expected a .npz file with {', '.join(required)}"])
            faults = [_missing(path, key, archive.files) for key in required if key not in archive.files]
            present = [key for key in (*required, *optional) if key in archive.files]
            found = {key: _read(archive, key) for key in present}
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        refuse([f"{path}: not a readable .npz file ({error})"])
    faults += [f"{path}: {key} cannot be read ({fault})" for key, fault in found.items() if isinstance(fault, str)]
    if faults:
        refuse(faults)
    return {key: array for key, array in found.items() if not isinstance(array, str)}


def _read(archive: Mapping[str, object], key: str) -> Array | str:
    """One array, or why it cannot be read."""
    try:
        array = archive[key]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return str(error)
    return array if isinstance(array, np.ndarray) else "no .npy file"


def _path(setting: str) -> Path:
    if not setting:
        raise UserError("data.file is not set: data.file=PATH.npz, a file with " + ", ".join(REQUIRED))
    path = Path(setting).expanduser()
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        beside = (other.name for other in path.parent.glob("*.npz"))
        raise UserError(f"data.file '{path}' {fault}{nearest(path.name, beside)}")
    return path


def _missing(path: Path, key: str, found: list[str]) -> str:
    # Keys that are right themselves are no misspelling of the missing one (y_test of x_test).
    others = [name for name in found if name not in (*REQUIRED, *OPTIONAL)]
    return f"{path}: no array {key}{nearest(key, others)} (it has {', '.join(found) or 'none'})"

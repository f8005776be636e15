"""A user's own arrays in one .npz file: of one input, x_train …, or of several, x_train_NAME …."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays, refuse
from cnnsweep.data.inputs import pack
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

    In place of x_train a file may have several inputs, such as x_train_image and x_train_age, and so on.
    Raises one UserError that names the file and every missing, unreadable or pickled array.
    """
    path = _path(config.file)
    inputs = _inputs_of(path)
    arrays = _read_several(path, inputs) if inputs else read_npz(path, REQUIRED, OPTIONAL)
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
        kind="multi_input" if inputs else config.kind,
        scale=1.0 if inputs else None,
        groups=_groups(path, arrays),
    )


def _inputs_of(path: Path) -> dict[str, list[str]]:
    """The names of several inputs by split; empty where x is one array, or the file cannot be read."""
    names: list[str] = []
    with contextlib.suppress(OSError, EOFError, ValueError, zipfile.BadZipFile), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        names = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
    starts = {split: f"x_{split}_" for split in ("train", "val", "test")}
    found = {split: [n.removeprefix(start) for n in names if n.startswith(start)] for split, start in starts.items()}
    return {} if "x_train" in names or not found["train"] else found


def _read_several(path: Path, inputs: Mapping[str, list[str]]) -> dict[str, Array]:
    """The arrays of a file with several inputs, these packed into one array a split."""
    splits = ("train", "test", *(["val"] if inputs["val"] else []))
    required = [f"x_{split}_{name}" for split in splits for name in inputs["train"]]
    strange = [f"x_{split}_{name}" for split in splits for name in inputs[split] if name not in inputs["train"]]
    found = read_npz(path, (*required, *(f"y_{split}" for split in splits)), OPTIONAL)
    if strange:
        refuse([f"{path}: {key} is no input of the training data ({', '.join(inputs['train'])})" for key in strange])
    if faults := [f"{path}: {key}: {fault}" for key in required for fault in _number_faults(found[key])]:
        refuse(faults)
    for split in splits:
        parts = {name: found[f"x_{split}_{name}"] for name in inputs["train"]}
        for name, x in parts.items():
            if x.shape[1:] != (shape := found[f"x_train_{name}"].shape[1:]):
                refuse([f"{path}: x_{split}_{name}: {x.shape[1:]} an example, the training data have {shape}"])
            if len(x) != len(found[f"y_{split}"]):
                refuse([f"{path}: x_{split}_{name} has {len(x):,} examples, y_{split} {len(found[f'y_{split}']):,}"])
        found[f"x_{split}"] = pack(parts)
    return found


def _number_faults(x: Array) -> Iterator[str]:
    if x.dtype.kind not in "buif":
        yield f"dtype {x.dtype}, expected numbers"
    elif not x.size:
        yield f"shape {x.shape} holds no examples"
    elif x.dtype.kind == "i" and max(-int(x.min()) - 1, int(x.max())) >= 2**31:  # in which whole numbers are kept
        yield f"values from {x.min()} to {x.max()}, expected those of 32 bits: number them from 0, or make them floats"
    elif x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
        yield f"NaN or infinity in {len(bad):,} of {len(x):,} examples, first in example {bad[0]}"


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
            faults = [_missing(path, key, archive.files, required) for key in required if key not in archive.files]
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


def _missing(path: Path, key: str, found: list[str], required: tuple[str, ...]) -> str:
    # Keys that are right themselves are no misspelling of the missing one (y_test of x_test).
    others = [name for name in found if name not in (*required, *OPTIONAL)]
    return f"{path}: no array {key}{nearest(key, others)} (it has {', '.join(found) or 'none'})"

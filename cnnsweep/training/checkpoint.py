"""A trial's state on disk after each epoch, complete enough to go on as if nothing had happened.

One .npz file holds every variable of the model (the state of its seed generators is among them, which Keras' own
weights file leaves out) and of the optimizer. It is replaced atomically; the best epoch's file is kept beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LAST, BEST = "last.npz", "best.npz"


def save(folder: Path, model: Any, state: Mapping[str, Any], is_best: bool) -> None:
    """Write the model, its built optimizer and a state of plain values to `folder`."""
    arrays = {f"model/{i}": np.asarray(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer/{i}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
    partial = folder / f"{LAST}.{os.getpid()}"
    with partial.open("wb") as file:
        told = {"state": np.array(json.dumps(dict(state))), "part": np.array(model.name)}
        np.savez(file, **told, **arrays)  # type: ignore[arg-type]
    os.replace(partial, folder / LAST)
    if is_best:
        keep_best(folder)


def keep_best(folder: Path) -> None:
    """Make the last epoch's checkpoint the best one's too."""
    copy = folder / f"{BEST}.{os.getpid()}"
    try:
        os.link(folder / LAST, copy)
    except OSError:  # a file system without hard links
        shutil.copyfile(folder / LAST, copy)
    os.replace(copy, folder / BEST)


def settle(folder: Path) -> None:
    """Have the best epoch's checkpoint survive a power cut, as the journal's word that the trial ended does."""
    with (folder / BEST).open("rb") as file:
        os.fsync(file.fileno())


def clear(folder: Path, names: Iterable[str] = (LAST, BEST)) -> None:
    """Remove checkpoints, and what a crash left of one that was being written."""
    for path in [*folder.glob("*.npz.*"), *(folder / name for name in names)]:
        path.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state alone. Raises ValueError where the file is not whole."""
    try:
        with np.load(path) as file:
            return json.loads(str(file["state"]))
    except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"checkpoint '{path.name}' of trial {path.parent.name} cannot be read: {error}") from error


def load(path: Path, model: Any, with_optimizer: bool = True) -> dict[str, Any]:
    """Put a checkpoint back into a model of the same config and return its state.

    Where only a part of the model was trained (the head of a frozen backbone), it goes into the layer of that name.
    The optimizer must have been built on the trainable variables. Raises ValueError where the file is not whole or
    belongs to another network.
    """
    try:
        with np.load(path) as file:
            part = str(file["part"])
            trained = model if model.name == part else model.get_layer(part)
            for i, variable in enumerate(trained.variables):
                variable.assign(file[f"model/{i}"])
            for i, variable in enumerate(model.optimizer.variables if with_optimizer else ()):
                variable.assign(file[f"optimizer/{i}"])
            return json.loads(str(file["state"]))
    except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"checkpoint '{path.name}' of trial {path.parent.name} cannot be read: {error}") from error

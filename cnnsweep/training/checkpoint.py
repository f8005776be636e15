"""Checkpoints of a trial, written after each epoch, complete enough to continue as if nothing had happened.

One .npz file holds every variable of the model (the state of its seed generators included, which Keras' own weights
file omits) and of the optimizer. It is replaced atomically; the best epoch's file is kept beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

LAST, BEST = "last.npz", "best.npz"


@dataclass(frozen=True)
class State:
    """A trial so far."""

    epochs: list[dict[str, float]]
    """The metrics of each epoch."""
    seconds: float


def save(folder: Path, model: keras.Model, state: State, is_best: bool) -> None:
    """Write the model, its built optimizer and the trial's state to `folder`."""
    arrays = {f"model/{i}": np.asarray(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer/{i}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
    arrays |= {"state": np.array(json.dumps(asdict(state))), "part": np.array(model.name)}
    partial = folder / f"{LAST}.{os.getpid()}"
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
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


def sync_best(folder: Path) -> None:
    """Make the best checkpoint survive a power cut, as the journal's record of the trial's end does."""
    with (folder / BEST).open("rb") as file:
        os.fsync(file.fileno())


def clear(folder: Path, names: Iterable[str] = (LAST, BEST)) -> None:
    """Remove checkpoints, and the remains of one that was being written during a crash."""
    for path in [*folder.glob("*.npz.*"), *(folder / name for name in names)]:
        path.unlink(missing_ok=True)


def read_state(path: Path) -> State:
    """Return a checkpoint's state alone. Raises ValueError where the file is not whole."""
    with _open(path) as file:
        return State(**json.loads(str(file["state"])))


def load(path: Path, model: keras.Model, with_optimizer: bool = True) -> State:
    """Restore a checkpoint into a model of the same config and return its state.

    If only a part of the model was trained (the head of a frozen backbone), the layer of that name is restored.
    The optimizer must have been built on the trainable variables. Raises ValueError where the file is not whole or
    belongs to another network.
    """
    with _open(path) as file:
        part = str(file["part"])
        trained = model if model.name == part else model.get_layer(part)
        for i, variable in enumerate(trained.variables):
            variable.assign(file[f"model/{i}"])
        for i, variable in enumerate(model.optimizer.variables if with_optimizer else ()):
            variable.assign(file[f"optimizer/{i}"])
        return State(**json.loads(str(file["state"])))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with np.load(path) as file:
            yield file
    except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"checkpoint '{path.name}' of trial {path.parent.name} cannot be read: {error}") from error

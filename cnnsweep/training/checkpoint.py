"""Checkpoints of a trial, written after each epoch, complete enough to continue as if nothing had happened.

One .npz file holds every weight of the model, the state of its seed generators (which Keras' own weights file omits)
and every variable of the optimizer, in their order: names that Keras gives by itself differ from one process to the
next.
It is replaced atomically; the best epoch's file is kept beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    steps: int
    """Of an epoch."""


def save(folder: Path, model: keras.Model, state: State, is_best: bool, part: str = "") -> None:
    """Write the model, its built optimizer and the trial's state to `folder`.

    `part`: the name of the layer that the model is in the whole network, where only that is trained.
    """
    kept = {"model": model.weights, "seeds": _seeds(model), "optimizer": model.optimizer.variables}
    arrays = {f"{kind}/{i}": np.asarray(v) for kind, found in kept.items() for i, v in enumerate(found)}
    arrays |= {"state": np.array(json.dumps(asdict(state))), "part": np.array(part)}
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

    Without the optimizer it gets the weights alone.
    If only a part of the model was trained (the head of a frozen backbone), the layer of that name is restored.
    The optimizer must have been built on the trainable variables. Raises ValueError where the file is not whole or
    belongs to another network.
    """
    with _open(path) as file:
        part = str(file["part"])
        restored = model if part in ("", model.name) else model.get_layer(part)
        _assign(file, "model", restored.weights)
        if with_optimizer:
            _assign(file, "seeds", _seeds(restored))
            _assign(file, "optimizer", model.optimizer.variables)
        return State(**json.loads(str(file["state"])))


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """The state of the seed generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _assign(file: Mapping[str, np.ndarray], kind: str, variables: Sequence[keras.Variable]) -> None:
    """Set variables of a model or an optimizer. Raises ValueError where they are not those of the file."""
    stored = [file[f"{kind}/{i}"] for i in range(sum(name.startswith(f"{kind}/") for name in file))]
    ours, theirs = [tuple(v.shape) for v in variables], [value.shape for value in stored]
    if ours != theirs:
        raise ValueError(f"it has {len(theirs)} variables of the {kind} where {len(ours)} of other shapes are expected")
    for variable, value in zip(variables, stored, strict=True):
        variable.assign(value)


@contextmanager
def _open(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with path.open("rb") as content, np.load(content) as file:  # NumPy leaves a damaged file open
            yield file
    except (KeyError, ValueError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"checkpoint '{path.name}' of trial {path.parent.name} cannot be loaded: {error}") from error

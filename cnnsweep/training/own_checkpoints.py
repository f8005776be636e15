"""Checkpoints that a training function of the user's own writes, one folder for each of the epochs that are kept.

A checkpoint is complete once it has its `cnnsweep.json`: the metrics of all epochs up to its own, which a resumed trial
reports again where the driver died before it learned of them. The program reads nothing else of it: the other files
are the function's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cnnsweep.config.objective import Objective

FOLDER, STATE = "checkpoints", "cnnsweep.json"


@dataclass(frozen=True)
class State:
    """A trial up to a checkpoint."""

    epochs: Sequence[dict[str, float]]
    """The metrics of each epoch."""
    seconds: float


def write_state(checkpoint: Path, state: State) -> None:
    """Complete a checkpoint."""
    partial = checkpoint / f"{STATE}.{os.getpid()}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(state), file)
    os.replace(partial, checkpoint / STATE)


def read_all(trial: Path) -> dict[Path, State]:
    """The complete checkpoints in a trial's folder, by epoch."""
    found: dict[Path, State] = {}
    for path in sorted((trial / FOLDER).glob("[0-9]*")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[path] = State(**json.loads((path / STATE).read_text(encoding="utf-8")))
    return found


def last(trial: Path) -> tuple[Path, State] | None:
    """The last complete checkpoint; None where there is none."""
    return next(reversed([*read_all(trial).items()]), None)


def best(trial: Path, objective: Objective) -> Path | None:
    """The complete checkpoint of the best epoch; None where there is none."""
    found = read_all(trial)
    index = objective.best(state.epochs[-1][objective.metric] for state in found.values())
    return None if index is None else list(found)[index]


def prune(trial: Path, keep: Sequence[Path | None] = ()) -> None:
    """Remove a trial's other checkpoints, and the remains of one that was being written during a crash."""
    for path in (trial / FOLDER).glob("*"):
        if path not in keep:
            shutil.rmtree(path, ignore_errors=True)
    if not keep:
        shutil.rmtree(trial / FOLDER, ignore_errors=True)

"""Training functions as a user would write them, some of them wrong in one way."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnsweep.training.own_trial import Trial

value_of_a_constant = 0.5


@dataclass
class Settings:
    rate: float = 0.1
    depth: int = 2


def value(trial: Trial, epoch: int) -> float:
    return (trial.seed % 100) / 1000 + 0.1 * epoch


def checkpointing(config: Any, trial: Trial) -> None:
    """Its state is a running sum, which it keeps."""
    restored = trial.restored()
    total = json.loads((restored / "state.json").read_text()) if restored else 0.0
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        total += config.rate * epoch
        with trial.checkpoint() as folder:
            (folder / "state.json").write_text(json.dumps(total))
        if not trial.report(epoch, val_accuracy=value(trial, epoch), total=total):
            return


def falling(config: Any, trial: Trial) -> None:
    """Its first epoch is its best."""
    for epoch in range(1, trial.epochs + 1):
        with trial.checkpoint():
            pass
        trial.report(epoch, val_accuracy=1 / epoch)


def every_third(config: Any, trial: Trial) -> None:
    """It checkpoints at every third epoch only."""
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        if epoch % 3 == 0:
            with trial.checkpoint() as folder:
                (folder / "epoch").write_text(str(epoch))
        trial.report(epoch, val_accuracy=value(trial, epoch))


def forgetful(config: Any, trial: Trial) -> None:
    """It never checkpoints, and heeds neither the number of epochs nor an answer."""
    for epoch in range(1, 100):
        trial.report(epoch, val_accuracy=value(trial, epoch))


def returning(config: Any, trial: Trial) -> float:
    return 0.75


def returning_metrics(config: Any, trial: Trial) -> Mapping[str, float]:
    return {"val_accuracy": 0.75, "loss": 1.0}


def returning_both(config: Any, trial: Trial) -> tuple[float, float]:
    return 0.75, 1.0


def returning_its_epoch(config: Any, trial: Trial) -> Mapping[str, float]:
    return {"epoch": 5, "val_accuracy": 0.75}


def returning_numbered(config: Any, trial: Trial) -> Mapping[Any, float]:
    return {"val_accuracy": 0.75, 1: 0.5}


def typed(config: Settings, trial: Trial) -> None:
    trial.report(1, val_accuracy=config.rate * config.depth)


def silent(config: Any, trial: Trial) -> None:
    pass


def raising(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy=0.5)
    raise KeyError("weights")


def leaving(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy=0.5)
    sys.exit(config.code)


def twice(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy=0.5)
    trial.report(1, val_accuracy=0.5)


def leaping(config: Any, trial: Trial) -> None:
    trial.report(5, val_accuracy=0.5)


def in_text(config: Any, trial: Trial) -> None:
    trial.report("1", val_accuracy=0.5)  # type: ignore[arg-type]


def of_numpy(config: Any, trial: Trial) -> None:
    for epoch in np.arange(1, 3):
        trial.report(epoch, val_accuracy=np.float32(0.5))


def infinite(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy=0.5, loss=float("inf"))


def not_a_number(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy="good")  # type: ignore[arg-type]


def without_objective(config: Any, trial: Trial) -> None:
    trial.report(1, val_acuracy=0.5)


def swallowing(config: Any, trial: Trial) -> None:
    """It goes on after an error that was its own."""
    try:
        trial.report(1, loss=0.5)
    except ValueError:
        trial.report(1, val_accuracy=0.5)


def moving(config: Any, trial: Trial) -> float:
    """It works in its own folder, as if its process were its own."""
    os.chdir(trial.folder)
    return 0.5


def misspelt_key(config: Any, trial: Trial) -> None:
    trial.report(1, val_accuracy=config.rat)


def one_argument(config: Any) -> None:
    pass


def slowly(config: Any, trial: Trial) -> None:
    """As `checkpointing`, with some time for a kill."""
    restored = trial.restored()
    total = json.loads((restored / "state.json").read_text()) if restored else 0.0
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        time.sleep(0.05)
        total += config.rate * epoch
        with trial.checkpoint() as folder:
            (folder / "state.json").write_text(json.dumps(total))
        trial.report(epoch, val_accuracy=config.rate * (1 - 0.5**epoch), total=total)

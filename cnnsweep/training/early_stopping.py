"""Early stopping of a trial by its own epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config, Training
from cnnsweep.formatting import counted
from cnnsweep.models.fine_tuning import out_of_patience


def reason_to_stop(rows: Sequence[Mapping[str, float]], objective: Objective, training: Training) -> str | None:
    """Why a trial with these epochs ends here; None where it goes on.

    >>> from cnnsweep.config.compose import compose
    >>> training, goal = compose(["training.patience=2", "training.min_delta=0.1"]).training, Objective.of("val_loss")
    >>> reason_to_stop([{"val_loss": 1.0}, {"val_loss": 0.95}, {"val_loss": 0.91}], goal, training)
    'no better val_loss for 2 epochs (by more than 0.1)'
    >>> reason_to_stop([{"val_loss": 0.5}], goal, training.replace(target=0.5))
    'val_loss reached 0.5'
    """
    values = [row[objective.metric] for row in rows]
    if any(_reached(value, objective, training.target) for value in values):
        return f"{objective.metric} reached {training.target:g}"
    if not out_of_patience(training, _last_better(values, objective, training.min_delta), len(rows)):
        return None
    margin = f" (by more than {training.min_delta:g})" if training.min_delta else ""
    return f"no better {objective.metric} for {counted(training.patience or 0, 'epoch')}{margin}"


def stopped_after(epoch: int) -> str:
    """The reason of a trial that the search stopped."""
    return f"stopped by the search after epoch {epoch}"


def without_early_stopping(config: Config) -> Config:
    """The config of a training that its own validation does not end early."""
    return config.replace(training=config.training.replace(patience=None, target=None))


def _reached(value: float, objective: Objective, target: float | None) -> bool:
    return target is not None and not math.isnan(value) and not objective.better(target, value)


def _last_better(values: Sequence[float], objective: Objective, margin: float) -> int | None:
    """The index of the last value that beat the best before it by more than the margin."""
    best: float | None = None
    place: int | None = None
    for index, value in enumerate(values):
        if objective.better(value, best) and (best is None or abs(value - best) > margin):
            best, place = value, index
    return place

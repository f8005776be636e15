"""What a trial on folds of the data has to reach to go on with the next fold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from cnnsweep.config.schema import Config
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.search.oracle import Oracle
from cnnsweep.training.folds import fold_metric
from cnnsweep.trial import Rival

LEAST = 4
"""Degrees of freedom from which the standard deviation of the differences between trials is known well enough."""


def rival_of_next(config: Config, search: Oracle, state: SweepState) -> Rival | None:
    """The trial that the next one is compared with between its folds; None: it is trained on all folds together.

    They are trained together where something decides after each epoch: a search with rungs or of the user's own that
    stops trials, patience or a target; and where several objectives count.
    """
    folds, training = config.data.folds, config.training
    if not folds or state.objective.also or stops(search) or (training.patience, training.target) != (None, None):
        return None
    known = [values for trial in state.ranked() if (values := _values(trial, folds, state))]
    if (len(known) - 1) * (folds - 1) < LEAST:
        return Rival()
    best, *others = known
    return Rival(best, _margin(best, others))


def stops(search: Oracle) -> bool:
    """Whether a search stops trials, or compares them, after epochs."""
    return bool(search.rungs) or search.promotes or type(search).keep_on is not Oracle.keep_on


def _values(trial: TrialState, folds: int, state: SweepState) -> list[float]:
    """The objective on each fold at a complete trial's best epoch; none for others."""
    epoch, names = trial.best_epoch(state.objective), [fold_metric(n, state.objective) for n in range(1, folds + 1)]
    row: Mapping[str, float] = trial.curve[epoch - 1] if epoch and trial.status == "completed" else {}
    return [row[name] for name in names] if all(math.isfinite(row.get(name, math.nan)) for name in names) else []


def _margin(best: list[float], others: list[list[float]]) -> float:
    """t·σ: σ is the standard deviation over folds of the differences to the best, of all other trials together."""
    from scipy.stats import t

    differences = [[a - b for a, b in zip(other, best, strict=True)] for other in others]
    freedom = len(others) * (len(best) - 1)
    return float(t.ppf(0.975, freedom)) * math.sqrt(statistics.fmean(map(statistics.variance, differences)))

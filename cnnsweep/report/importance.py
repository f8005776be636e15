"""How much each searched key matters, by Optuna's evaluators, and how far the answer is to be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnsweep.config.objective import Objective

FANOVA_TRIALS = 150
"""Up to here fANOVA, whose forest takes a tenth of a second for ten trials; beyond, PED-ANOVA, which wants many."""
FEWEST, PER_KEY = 20, 5
"""Below so many trials, or so many a key, the order of the keys is mostly chance."""
PROBES, PROBE_SEED = 3, 7_919_000
"""A seed of their own: with a sweep's seed the probes would repeat what the search drew."""
ABSENT = "absent"


@dataclass(frozen=True)
class Importance:
    """Shares that add up to 1, the largest first."""

    method: str
    trials: int
    """How many it rests on."""
    shares: dict[str, float]
    noise: float
    """The largest share of a key made up at random: what is below it cannot be told from chance."""
    warning: str | None

    @property
    def telling(self) -> list[str]:
        """The keys above the noise, the most important first."""
        return [key for key, share in self.shares.items() if share > self.noise]


def importance(trials: pd.DataFrame, keys: Sequence[str], objective: Objective) -> Importance | None:
    """Work out each key's share in the objective's variance (fANOVA), or in getting into the best tenth (PED-ANOVA).

    `trials` has a row a trial and `best_<metric>`. None where fewer than 4 trials have a value, or none differ.
    A key that a trial did not use counts as a value of its own.
    fANOVA: Hutter, Hoos, Leyton-Brown 2014. PED-ANOVA: Watanabe, Bansal, Hutter 2023.
    """
    column = f"best_{objective.metric}"
    scored = trials[trials[column].notna() & (trials["status"] != "failed")] if column in trials else trials.head(0)
    varied = [key for key in keys if scored[key].astype(object).map(str).nunique() > 1]
    if len(scored) < 4 or not varied or scored[column].nunique() < 2:
        return None
    probes = {f"probe {i}": np.random.default_rng([PROBE_SEED, i]).random(len(scored)) for i in range(PROBES)}
    with_probes = pd.concat([scored[varied], pd.DataFrame(probes, scored.index)], axis=1)
    method = "fANOVA" if len(scored) <= FANOVA_TRIALS else "PED-ANOVA"
    found = _evaluate(with_probes, scored[column], objective, method)
    noise = max(found[name] for name in probes)
    shares = {key: found[key] for key in varied}
    whole = sum(shares.values())
    if not whole > 0:
        return None
    ordered = dict(sorted(((k, v / whole) for k, v in shares.items()), key=lambda item: -item[1]))
    needed = max(FEWEST, PER_KEY * len(varied))
    few = f"{len(scored)} trials are too few for {len(varied)} keys (about {needed} would do): do not trust the order"
    return Importance(method, len(scored), ordered, noise / whole, few if len(scored) < needed else None)


def _evaluate(columns: pd.DataFrame, values: pd.Series, objective: Objective, method: str) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = [str(name) for name in columns]
    described = {name: _distribution(columns[name]) for name in names}
    params = [dict(zip(described, row, strict=True)) for row in zip(*(d[1] for d in described.values()), strict=True)]
    distributions = {key: d[0] for key, d in described.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluators are called experimental
        study = optuna.create_study(direction="maximize" if objective.direction == "max" else "minimize")
        study.add_trials(
            [
                optuna.trial.create_trial(params=p, distributions=distributions, value=float(v))
                for p, v in zip(params, values, strict=True)
            ]
        )
        evaluator: Any = (
            optuna.importance.FanovaImportanceEvaluator(n_trees=16, max_depth=16, seed=0)
            if method == "fANOVA"
            else optuna.importance.PedAnovaImportanceEvaluator()
        )
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names, normalize=False)
    return {name: max(float(found[name]), 0.0) for name in names}


def _distribution(column: pd.Series) -> tuple[Any, list[Any]]:
    """Optuna's description of a column, and its values in these terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    present = column.dropna()
    if pd.api.types.is_float_dtype(column.dtype) and len(present):
        low, high = float(present.min()), float(present.max())
        log = low > 0 and high / low >= 20
        filled = column.fillna(np.sqrt(low * high) if log else (low + high) / 2)
        return FloatDistribution(low, high, log=log), [float(v) for v in filled]
    texts = [ABSENT if pd.isna(v) else v if isinstance(v, str) else str(v) for v in column]
    return CategoricalDistribution(sorted(set(texts))), texts

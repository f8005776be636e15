"""Analyses of sweeps: the importance of each searched key, and several sweeps at equal numbers of epochs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from cnnsweep.config.inputs import NOUNS
from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted, score
from cnnsweep.search_space.space import Parameter
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Method = Literal["fANOVA", "PED-ANOVA"]
FANOVA_TRIALS = 150
"""Up to here fANOVA, whose forest takes a tenth of a second for ten trials; beyond, PED-ANOVA, which needs many."""
MIN_TRIALS, MIN_TRIALS_PER_KEY = 20, 5
"""With fewer trials, or fewer a key, the order of the keys is mostly chance."""
PROBES, PROBE_SEED = 3, 7_919_000
"""The seed is their own: with a sweep's seed the probes would repeat what the search drew."""
ABSENT = "absent"
FEW_VALUES = 12
"""Up to here a number counts by its place among the others: 16, 32, 64 as 0, 1, 2."""


@dataclass(frozen=True)
class Importance:
    """Shares that add up to 1, the largest first."""

    method: Method
    trials: int
    """The number of trials that it rests on."""
    shares: dict[str, float]
    noise: float
    """The largest share of a random key: a smaller one cannot be distinguished from chance."""
    warning: str | None

    @property
    def significant(self) -> list[str]:
        """The keys above the noise, the most important first."""
        return [key for key, share in self.shares.items() if share > self.noise]


def importance(
    trials: pd.DataFrame, keys: Sequence[str], objective: Objective, space: Mapping[str, Parameter] | None = None
) -> Importance | None:
    """Work out each key's share in the objective's variance (fANOVA), or in getting into the best tenth (PED-ANOVA).

    `trials` has a row a trial and `best_<metric>`. None where fewer than 4 trials have a value, or none differ.
    Numbers count as ordered, on the scale of their range in `space` (parameters by name); others on a logarithmic scale
    where they span a factor of 20. Absence of a key counts as a value of its own. Values far worse than most count as
    the worst of the others. Of a complete grid fANOVA needs no forest.
    fANOVA: Hutter, Hoos, Leyton-Brown 2014. PED-ANOVA: Watanabe, Bansal, Hutter 2023.
    """
    column = f"best_{objective.metric}"
    scored = trials[trials[column].notna() & (trials["status"] != "failed")] if column in trials else trials.head(0)
    varied = [key for key in keys if scored[key].astype(object).map(str).nunique() > 1]
    if len(scored) < 4 or not varied or scored[column].nunique() < 2:
        return None
    values = _weighed(scored[column], objective)
    method: Method = "fANOVA" if len(scored) <= FANOVA_TRIALS else "PED-ANOVA"
    exact = _of_grid(scored[varied].astype(object).map(str), values) if method == "fANOVA" else None
    found, random = exact or _estimated(scored[varied], values, objective, method, space or {})
    whole = sum(found.values())
    if not whole > 0:
        return None
    noise = min(1.0, random / whole)
    shares = dict(sorted(((key, found[key] / whole) for key in varied), key=lambda item: -item[1]))
    needed = max(MIN_TRIALS, MIN_TRIALS_PER_KEY * len(varied))
    searched = counted(len(varied), "key")
    few = f"{len(scored)} trials are too few for {searched} (about {needed} would do): do not trust the order"
    return Importance(method, len(scored), shares, noise, few if len(scored) < needed else None)


def _of_grid(columns: pd.DataFrame, values: pd.Series) -> tuple[dict[str, float], float] | None:
    """Where each combination was tried once: the variances of the keys' means, and the largest of a random key.

    A forest of so few trials that differ in several keys often takes one for another. What random keys get is that of
    the differences that no key alone explains, shuffled. None where it is no such grid, or leaves no such differences.
    """
    levels = {str(key): int(columns[key].nunique()) for key in columns}
    left = len(values) - 1 - sum(count - 1 for count in levels.values())
    if left < 1 or math.prod(levels.values()) != len(values) or columns.duplicated().any():
        return None
    means = {key: values.groupby(columns[key]).transform("mean") - values.mean() for key in levels}
    rest = (values - values.mean() - sum(means.values())) * math.sqrt((len(values) - 1) / left)
    probes = [pd.Series(np.random.default_rng([PROBE_SEED, i]).permutation(rest), rest.index) for i in range(PROBES)]
    random = max(float(p.groupby(columns[key]).transform("mean").var(ddof=0)) for p in probes for key in levels)
    return {key: float(effect.var(ddof=0)) for key, effect in means.items()}, random


def _estimated(
    columns: pd.DataFrame, values: pd.Series, objective: Objective, method: Method, space: Mapping[str, Parameter]
) -> tuple[dict[str, float], float]:
    """The importance of each key by Optuna's evaluators, and the largest of a random key."""
    probes = {f"probe {i}": np.random.default_rng([PROBE_SEED, i]).random(len(columns)) for i in range(PROBES)}
    with_probes = pd.concat([columns, pd.DataFrame(probes, columns.index)], axis=1)
    scales = {**space, **{name: Parameter(name, low=0, high=1) for name in probes}}
    found = _evaluate(with_probes, values, objective, method, scales)
    return {key: found[key] for key in found if key not in probes}, max(found[name] for name in probes)


def _evaluate(
    columns: pd.DataFrame, values: pd.Series, objective: Objective, method: Method, space: Mapping[str, Parameter]
) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    described = {str(name): _distribution(columns[name], space.get(str(name))) for name in columns}
    distributions: dict[str, BaseDistribution] = {name: kind for name, (kind, _) in described.items()}
    rows = zip(*(column for _, column in described.values()), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluators are called experimental
        study = optuna.create_study(direction="maximize" if objective.direction == "max" else "minimize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=dict(zip(described, row, strict=True)), distributions=distributions, value=float(value)
                )
                for row, value in zip(rows, values, strict=True)
            ]
        )
        evaluator = (
            FanovaImportanceEvaluator(n_trees=16, max_depth=16, seed=0)
            if method == "fANOVA"
            else PedAnovaImportanceEvaluator()
        )
        found = get_param_importances(study, evaluator=evaluator, params=list(described), normalize=False)
    return {name: max(float(found[name]), 0.0) for name in described}


def _distribution(
    column: pd.Series, parameter: Parameter | None
) -> tuple[BaseDistribution, list[float] | list[int] | list[str]]:
    """Optuna's description of a column, and its values in these terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    is_number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    if not is_number or column.isna().all():
        texts = [ABSENT if pd.isna(v) else str(v) for v in column]
        return CategoricalDistribution(sorted(set(texts))), texts
    values = column.astype("Float64").to_numpy(float, na_value=np.nan)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    log = parameter.log if parameter and parameter.choices is None else low > 0 and high / low >= 20
    if log and low > 0:
        values, low, high = np.log(values), math.log(low), math.log(high)
    values = np.where(np.isnan(values), low - (high - low) / 4, values)  # absent: apart from all numbers
    distinct, places = np.unique(values, return_inverse=True)
    if len(distinct) <= FEW_VALUES:
        return IntDistribution(0, len(distinct) - 1), [int(place) for place in places]
    return FloatDistribution(float(values.min()), float(values.max())), [float(v) for v in values]


def _weighed(values: pd.Series, objective: Objective) -> pd.Series:
    """Values of 0 to 1, since to scikit-learn's trees a variance below 2e-16 is none.

    Those far worse than most count as the worst of the others: a few failures would be most of the variance. Far worse
    is more than 1.5 interquartile ranges beyond the worse quartile (Tukey 1977, Exploratory Data Analysis).
    """
    lower, upper = values.quantile([0.25, 0.75])
    reach = 1.5 * (upper - lower)
    if objective.direction == "max":
        clipped = values.clip(lower=values[values >= lower - reach].min())
    else:
        clipped = values.clip(upper=values[values <= upper + reach].max())
    kept = clipped if clipped.nunique() > 1 else values
    return (kept - kept.min()) / (kept.max() - kept.min())


@dataclass(frozen=True)
class Comparison:
    """Several sweeps at equal epochs."""

    objective: Objective
    equal: int
    """Epochs, all trials together, that each sweep trained at least."""
    race: dict[str, pd.DataFrame]
    """By sweep: a row an epoch trained: `epochs` (so many so far), `best` (so far), `run_id` (of the best)."""
    table: pd.DataFrame
    """A row a sweep: its best at a quarter, half and all of `equal`, and in the end."""
    runs: dict[tuple[str, str], str]
    """By sweep and column: the run that a figure of the table belongs to."""
    doubts: list[str]
    """Reasons why the sweeps may not be comparable."""
    verdict: str


def compare(sweeps: Sequence[Results]) -> Comparison:
    """Compare sweeps of one objective. Raises UserError where their objectives differ."""
    objectives = {r.objective.metric: r.sweep.id for r in sweeps}
    if len(objectives) > 1:
        listed = ", ".join(f"{id_} has {metric}" for metric, id_ in objectives.items())
        raise UserError(f"these sweeps have different objectives and cannot be compared: {listed}")
    objective = sweeps[0].objective
    race = {r.sweep.id: _steps(r, objective) for r in sweeps}
    equal = min(len(steps) for steps in race.values())
    marks = sorted({max(1, equal // 4), max(1, equal // 2), equal})
    table = pd.DataFrame([_row(r, race[r.sweep.id], marks) for r in sweeps])
    runs = {pair: run for r in sweeps for pair, run in _runs(r, race[r.sweep.id], marks)}
    return Comparison(objective, equal, race, table, runs, _doubts(sweeps), _verdict(sweeps, race, equal, objective))


def _steps(results: Results, objective: Objective) -> pd.DataFrame:
    """Trials that failed cost their epochs, and have no result."""
    ordered = results.curves.sort_values(["time", "trial", "epoch"], ignore_index=True)
    failed = results.trials.loc[results.trials["status"] == "failed", "trial"]
    values = ordered[objective.metric].mask(ordered["trial"].isin(failed))
    best = (values.cummin() if objective.direction == "min" else values.cummax()).ffill()
    lead = ordered["run_id"].where(values.eq(best) & best.ne(best.shift())).ffill()
    return pd.DataFrame({"epochs": range(1, len(ordered) + 1), "best": best, "run_id": lead})


def _row(results: Results, steps: pd.DataFrame, marks: Sequence[int]) -> dict[str, object]:
    trials = results.trials
    return {
        "sweep": results.sweep.id,
        "search": results.parent("params", "search") or "",
        "seed": results.parent("params", "seed") or "",
        "trials": len(trials),
        "epochs": len(steps),
        "minutes": float(trials["seconds"].sum()) / 60,
        **{_at(mark): steps["best"].iloc[mark - 1] for mark in marks},
        f"best {results.objective.metric}": results.ranked()[results.best_column].iloc[0],
        **({f"test {results.test[0]}": results.test[1]} if results.test else {"test accuracy": None}),
    }


def _runs(results: Results, steps: pd.DataFrame, marks: Sequence[int]) -> Iterator[tuple[tuple[str, str], str]]:
    id_ = results.sweep.id
    for mark in marks:
        yield (id_, _at(mark)), str(steps["run_id"].iloc[mark - 1])
    yield (id_, f"best {results.objective.metric}"), str(results.ranked()["run_id"].iloc[0])
    if results.test:
        yield (id_, f"test {results.test[0]}"), results.sweep.run


def noun(results: Results) -> str:
    """What the data are: "images", "texts" …"""
    return NOUNS[results.parent("tags", "cnnsweep.data.kind") or "image"]


def _at(epochs: int) -> str:
    return f"at {counted(epochs, 'epoch')}"


def _doubts(sweeps: Sequence[Results]) -> list[str]:
    doubts = []
    if len({r.parent("tags", "cnnsweep.data.digest") for r in sweeps}) > 1:
        doubts.append("They used different data or splits: their numbers are not of the same examples.")
    if len({tuple(r.keys) for r in sweeps}) > 1:
        doubts.append("They searched different keys.")
    if len({r.parent("tags", "cnnsweep.machine.host") for r in sweeps}) > 1:
        doubts.append("They ran on different machines: their times say little about the searches.")
    return doubts


def _verdict(sweeps: Sequence[Results], race: dict[str, pd.DataFrame], equal: int, objective: Objective) -> str:
    sign = -1 if objective.direction == "max" else 1
    reached = [(float(race[r.sweep.id]["best"].iloc[equal - 1]), r) for r in sweeps]
    ends = sorted(reached, key=lambda e: (math.isnan(e[0]), sign * e[0]))
    (first, winner), (second, other) = ends[0], ends[1]
    verdict = (
        f"After {counted(equal, 'epoch')} each, the best {objective.metric} of {winner.sweep.id} is {score(first)}"
    )
    if first == second:
        return f"{verdict}, and so is that of {other.sweep.id}: no difference."
    verdict += f", that of {other.sweep.id} {score(second)}."
    images = winner.parent("tags", "cnnsweep.data.validation")
    if images and winner.by_share:
        low, high = wilson(first, int(images))
        position = "within" if low <= second <= high else "outside"
        verdict += f" The second is {position} the 95% interval of the first, {score(low)} to {score(high)}"
        verdict += f" on {int(images):,} validation {noun(winner)}."
    return f"{verdict} It is one sweep each: other seeds may reverse the order."

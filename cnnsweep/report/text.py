"""A sweep's settings and results in sentences, each figure with the run that it belongs to."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

import pandas as pd

from cnnsweep.config.objective import COSTS
from cnnsweep.config.own_code import MODELS, NETWORKS
from cnnsweep.formatting import counted, duration, score
from cnnsweep.report.analysis import Importance, noun
from cnnsweep.report.axes import short
from cnnsweep.statistics import wilson
from cnnsweep.tracking.credentials import shown
from cnnsweep.tracking.frames import Results

OUTCOMES = {
    "completed": ("ran to its end", "ran to their end"),
    "pruned": ("was stopped early", "were stopped early"),
    "failed": ("failed", "failed"),
    "interrupted": ("was interrupted", "were interrupted"),
    "running": ("is still running", "are still running"),
}
"""Of one trial, and of several."""


def searched(results: Results) -> str:
    """The searched keys, the data, the search, and the trials, epochs and time that it took."""
    trials, name, search = results.trials, _data(results, "name"), results.parent("params", "search")
    own = name == "none"  # the trials ran a function of the user's own
    data = f" on {name}" if name and not own else ""
    train, validation = _data(results, "train"), _data(results, "validation")
    if train and validation:
        data += f" ({int(train):,} training and {int(validation):,} validation {noun(results)})"
    keys = counted(len(results.keys), "setting") if results.keys else "one configuration"
    what = "" if own else " of a CNN" if _is_ours(results) else " of a network"
    by = f" with {search} search" if search else ""
    each = [
        f"{count:,} {OUTCOMES[str(status)][count != 1]}" for status, count in trials["status"].value_counts().items()
    ]
    epochs = int(trials["epochs"].fillna(0).sum())
    workers = json.loads(results.parent("tags", "cnnsweep.machine.workers") or "[]")
    where = f" on {', '.join(workers) if len(workers) < 5 else f'{len(workers)} workers'}" if workers else ""
    precision = (results.config.get("training") or {}).get("precision")
    if precision not in (None, "auto") and "training.precision" not in results.keys and not own:
        where += f", in {precision}"
    return (
        f"Searched {keys}{what}{data}{by}: {counted(len(trials), 'trial')}, {counted(epochs, 'epoch')}, "
        f"{duration(sweep_seconds(results))}{where}. Of the trials {', '.join(each)}."
    )


def exportable(results: Results) -> bool:
    """Whether `export` can train the best configuration again: not what a function of the user's own trained."""
    return (results.config.get("job") or {}).get("_target_") == NETWORKS


def place(results: Results) -> str:
    """The overrides with which a command finds the sweep, where it is not in mlruns; of its own config."""
    tracking = results.config.get("tracking") or {}
    folder, uri = tracking.get("dir") or "mlruns", tracking.get("uri")
    given = ["tracking=server", f"tracking.uri={shown(uri)}"] if uri else []
    given += [f"tracking.dir={folder}"] if folder != "mlruns" else []
    return "".join(f" {shlex.quote(override)}" for override in given)


def found(results: Results) -> list[str]:
    """The best trial, its final test, how certain these are, and smaller networks that are nearly as good."""
    best, metric = results.ranked().iloc[0], results.objective.metric
    value = f"{metric} {score(best[results.best_column])} at epoch {best['best_epoch']:.0f} of {best['epochs']}"
    by = f" by {metric}" if results.objective.also else ""
    if len(results.finalists()) > 1:
        by = " by the mean of its trainings with other seeds"
        value = f"{metric} {spread(best, metric)}, at first {value}"
    first = f"Best{by} is trial {best['name']} with {value}{_size(best)} (run {best['run_id'][:8]})."
    more = (_finalists(results), _front(results), _test(results), _ties(results), _cheaper(results))
    return [first, *(sentence for sentence in more if sentence)]


def mattered(importance: Importance | None) -> str:
    """The keys that mattered most, where that can be said."""
    if importance is None:
        return "The settings cannot be ranked by importance: too few trials have a value, or none differ."
    if not importance.significant:
        result = "No setting stands out from chance"
    else:
        named = [f"{short(key)} ({importance.shares[key]:.0%})" for key in importance.significant[:4]]
        result = f"Most of the difference comes from {', '.join(named)}"
    return f"{result}, by {importance.method} on {importance.trials:,} trials."


def sweep_seconds(results: Results) -> float:
    """Wall time of the sweep; of a running one, until its last trial's end so far."""
    known = results.parent("metrics", "sweep_seconds")
    if known is not None:
        return float(known)
    trials = results.trials
    return float((trials[["started", "ended"]].max().max() - trials["started"].min()).total_seconds())


@dataclass(frozen=True)
class Tested:
    """The final evaluation of the best network."""

    name: str
    """Of the metric."""
    value: float
    images: int
    interval: tuple[float, float] | None
    """At 95%; None where the value is no share of images."""

    @property
    def range(self) -> str:
        """The interval as text: "95% interval 0.9012 to 0.9344"."""
        return f"95% interval {score(self.interval[0])} to {score(self.interval[1])}" if self.interval else ""


def tested(results: Results) -> Tested | None:
    """The final evaluation of the best; None where it was not evaluated."""
    found, images = results.test, _data(results, "test")
    if found is None or not images:
        return None
    is_share = found[0] == "accuracy" and results.task == "classification"
    return Tested(*found, int(images), wilson(found[1], int(images)) if is_share else None)


def spread(row: pd.Series, metric: str) -> str:
    """Mean and standard deviation of a finalist's further trainings, and their number; empty for other trials."""
    if pd.isna(row.get(f"mean_{metric}")):
        return ""
    count = row.get("replicates")
    number = f" ({count:.0f})" if pd.notna(count) else ""
    return f"{score(row[f'mean_{metric}'])} ± {score(row[f'std_{metric}'])}{number}"


def _is_ours(results: Results) -> bool:
    """Whether the networks are of a family of this package, as far as the config is known."""
    family = (results.config.get("model") or {}).get("_target_", "cnnsweep.models")
    return family.startswith("cnnsweep.") and family not in MODELS


def _data(results: Results, key: str) -> str | None:
    return results.parent("tags", f"cnnsweep.data.{key}")


def _finalists(results: Results) -> str | None:
    again, metric = results.finalists(), results.objective.metric
    if again.empty:
        return None
    named = [f"{row['trial']:03d} {spread(row, metric)}" for _, row in again.iterrows()]
    subject = f"{len(again)} finalists were" if len(again) > 1 else "The best was"
    return (
        f"{subject} trained again, each time with another seed; {metric}, mean ± standard deviation (trainings): "
        f"{', '.join(named)}. The first training, by which a trial becomes a finalist, is not in it."
    )


def _front(results: Results) -> str | None:
    trials, names = results.front(), [o.metric for o in results.objective.all]
    if len(names) < 2 or trials.empty:
        return None
    columns = [name if name in COSTS else f"best_{name}" for name in names]
    shown = [c for c in columns if c in trials and trials[c].notna().all()]
    ends = trials.iloc[[0, -1]] if len(trials) > 1 else trials
    named = [f"{row['trial']:03d} ({', '.join(_number(row[c]) for c in shown)})" for _, row in ends.iterrows()]
    front = f"the Pareto front of {' and '.join(names)}"
    if len(trials) == 1:
        return f"Trial {named[0]} alone forms {front}: no trial is better than it in one of these."
    return (
        f"{len(trials)} trials form {front}, from {' to '.join(named)}: no trial is better than these in one without "
        "being worse in another."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e12 else score(value)


def _size(row: pd.Series) -> str:
    if pd.isna(row["parameters"]):
        return ""
    adds = f" and {row['mmacs']:,.2f} million multiply-adds" if pd.notna(row["mmacs"]) else ""
    return f"; {row['parameters']:,} parameters{adds}"


def _test(results: Results) -> str | None:
    measured = tested(results)
    if measured is None:
        return None
    name = "" if measured.name == "accuracy" else f"{measured.name} "
    interval = f"{measured.range}; " if measured.interval else ""
    return (
        f"On the {measured.images:,} test {noun(results)}, which the search never saw, that network reaches "
        f"{name}{score(measured.value)}, evaluated once ({interval}run {results.sweep.run[:8]})."
    )


def _ties(results: Results) -> str | None:
    images = _data(results, "validation")
    if not images or not results.by_share:
        return None
    values = results.ranked()[results.best_column]
    low, _ = wilson(float(values.iloc[0]), int(images))
    close = int((values >= low).sum()) - 1
    if not close:
        sample = f"{int(images):,} validation {noun(results)}"
        return f"No other trial is within the 95% interval of {sample} (down to {score(low)})."
    return (
        f"{close:,} other trial{'s' if close > 1 else ''} cannot be distinguished from it: the 95% interval of "
        f"{int(images):,} validation {noun(results)} extends down to {score(low)}, and the best of many is partly luck."
    )


def _cheaper(results: Results) -> str | None:
    """The smallest network within a point of the best, where it is at most half the size."""
    ranked = results.ranked()
    if not results.by_share or ranked["parameters"].isna().all():
        return None
    best = ranked.iloc[0]
    near = ranked[ranked[results.best_column] >= best[results.best_column] - 0.01]
    small = near.loc[near["parameters"].astype(float).idxmin()]
    if pd.isna(best["parameters"]) or small["parameters"] * 2 > best["parameters"]:
        return None
    reached = f"{score(small[results.best_column])} (run {small['run_id'][:8]})"
    times = best["parameters"] / small["parameters"]
    return f"Trial {small['name']}, {times:.1f} times smaller ({small['parameters']:,} parameters), reaches {reached}."

"""What a sweep searched and found, in sentences; each figure comes with the run that it belongs to."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from cnnsweep.config.schema import COSTS
from cnnsweep.report.axes import short
from cnnsweep.report.importance import Importance
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results


def searched(results: Results) -> str:
    """What was searched, on which data, how, and for how much."""
    trials, tags = results.trials, lambda key: results.parent("tags", f"cnnsweep.data.{key}")
    counts = trials["status"].value_counts()
    workers = json.loads(results.parent("tags", "cnnsweep.machine.workers") or "[]")
    data = f" on {tags('name')}" if tags("name") else ""
    if tags("train") and tags("validation"):
        data += f" ({int(tags('train')):,} training and {int(tags('validation')):,} validation images)"
    by = results.parent("params", "search")
    keys = f"{len(results.keys)} settings of a CNN" if results.keys else "one configuration of a CNN"
    told = {
        "completed": "ran to their end",
        "pruned": "were stopped early",
        "failed": "failed",
        "interrupted": "were interrupted",
        "running": "are still running",
    }
    each = [f"{n:,} {told[str(s)]}" for s, n in counts.items()]
    epochs = int(trials["epochs"].fillna(0).sum())
    where = f" on {', '.join(workers) if len(workers) < 5 else f'{len(workers)} workers'}" if workers else ""
    return (
        f"Searched {keys}{data}{f' with {by} search' if by else ''}: {len(trials):,} trials, {epochs:,} epochs, "
        f"{duration(sweep_seconds(results))}{where}. Of the trials {', '.join(each)}."
    )


def found(results: Results) -> list[str]:
    """What came out: the best, its test accuracy, how sure that is, and what is nearly as good for less."""
    best, metric = results.ranked().iloc[0], results.objective.metric
    value = f"{metric} {best[results.best_column]:.4f} at epoch {best['best_epoch']:.0f} of {best['epochs']}"
    by = f" by {metric}" if results.objective.also else ""
    if len(results.finalists()) > 1:
        by = " by the mean of its trainings with other seeds"
        value = f"{metric} {spread(best, metric)}, at first {value}"
    told = [f"Best{by} is trial {best['name']} with {value}{_size(best)} (run {best['run_id'][:8]})."]
    further = (_again(results), _front(results), _test(results), _ties(results), _cheaper(results))
    told += [sentence for sentence in further if sentence]
    return told


def mattered(importance: Importance | None) -> str:
    """Which keys mattered, as far as that can be told."""
    if importance is None:
        return "Which setting mattered cannot be told: too few trials have a value, or none differ."
    if not importance.telling:
        told = "No setting stands out from chance"
    else:
        named = [f"{short(key)} ({importance.shares[key]:.0%})" for key in importance.telling[:4]]
        told = f"Most of the difference comes from {', '.join(named)}"
    return f"{told}, by {importance.method} on {importance.trials:,} trials."


def sweep_seconds(results: Results) -> float:
    """Wall time of the sweep; of a running one, until its last trial's end so far."""
    known = results.parent("metrics", "sweep_seconds")
    if known is not None:
        return float(known)
    trials = results.trials
    return float((trials[["started", "ended"]].max().max() - trials["started"].min()).total_seconds())


def tested(results: Results) -> tuple[float, float, float, int] | None:
    """Test accuracy, its 95% interval and the number of images; None before the final evaluation."""
    accuracy, images = results.parent("metrics", "test_accuracy"), results.parent("tags", "cnnsweep.data.loading.test")
    if accuracy is None or not images:
        return None
    return float(accuracy), *wilson(float(accuracy), int(images)), int(images)


def duration(seconds: float) -> str:
    """
    >>> duration(8), duration(95), duration(7300)
    ('8 s', '1 min 35 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def spread(row: pd.Series[Any], metric: str) -> str:
    """Mean and standard deviation of a finalist's further trainings, and their number."""
    if pd.isna(row.get(f"mean_{metric}")):
        return ""
    count = row.get("replicates")
    number = f" ({count:.0f})" if pd.notna(count) else ""
    return f"{row[f'mean_{metric}']:.4f} ± {row[f'std_{metric}']:.4f}{number}"


def _again(results: Results) -> str | None:
    """What the replicates came to."""
    again, metric = results.finalists(), results.objective.metric
    if again.empty:
        return None
    named = [f"{row['trial']:03d} {spread(row, metric)}" for _, row in again.iterrows()]
    many = f"{len(again)} finalists were" if len(again) > 1 else "The best was"
    return (
        f"{many} trained again, each time with another seed; {metric}, mean ± standard deviation (trainings): "
        f"{', '.join(named)}. The first training, by which a trial becomes a finalist, is not in it."
    )


def _front(results: Results) -> str | None:
    """The Pareto front, from end to end."""
    trials, names = results.front(), [o.metric for o in results.objective.all]
    if len(names) < 2 or trials.empty:
        return None
    columns = [name if name in COSTS else f"best_{name}" for name in names]
    shown = [c for c in columns if c in trials and trials[c].notna().all()]
    ends = trials.iloc[[0, -1]] if len(trials) > 1 else trials
    named = [f"{row['trial']:03d} ({', '.join(_plain(row[c]) for c in shown)})" for _, row in ends.iterrows()]
    many = f"{len(trials)} trials form" if len(trials) > 1 else "One trial forms"
    return (
        f"{many} the Pareto front of {' and '.join(names)}, from {' to '.join(named)}: nothing is better "
        "than these in one without being worse in another."
    )


def _plain(value: Any) -> str:
    return f"{value:,.0f}" if float(value) >= 100 else f"{value:.4f}"


def _size(row: pd.Series[Any]) -> str:
    if pd.isna(row["parameters"]):
        return ""
    adds = f" and {row['mmacs']:,.2f} million multiply-adds" if pd.notna(row["mmacs"]) else ""
    return f"; {row['parameters']:,} parameters{adds}"


def _test(results: Results) -> str | None:
    measured = tested(results)
    if measured is None:
        return None
    accuracy, low, high, images = measured
    return (
        f"On the {images:,} test images, which the search never saw and which were looked at once, that network "
        f"reaches {accuracy:.4f} (95% interval {low:.4f} to {high:.4f}; run {results.sweep.run[:8]})."
    )


def _ties(results: Results) -> str | None:
    images = results.parent("tags", "cnnsweep.data.loading.validation")
    if not images or results.objective.metric != "val_accuracy":
        return None
    values = results.ranked()[results.best_column]
    low, _ = wilson(float(values.iloc[0]), int(images))
    close = int((values >= low).sum()) - 1
    if not close:
        return f"No other trial comes within what {int(images):,} validation images leave open (down to {low:.4f})."
    return (
        f"{close:,} other trial{'s' if close > 1 else ''} cannot be told from it: {int(images):,} validation images "
        f"leave everything down to {low:.4f} open, and the best of many is partly luck."
    )


def _cheaper(results: Results) -> str | None:
    """The smallest network within a point of the best, where it is at most half the size."""
    ranked = results.ranked()
    if "accuracy" not in results.objective.metric or ranked["parameters"].isna().all():
        return None
    best = ranked.iloc[0]
    near = ranked[ranked[results.best_column] >= best[results.best_column] - 0.01]
    small = near.loc[near["parameters"].astype(float).idxmin()]
    if pd.isna(best["parameters"]) or small["parameters"] * 2 > best["parameters"]:
        return None
    reached = f"{small[results.best_column]:.4f} (run {small['run_id'][:8]})"
    times = best["parameters"] / small["parameters"]
    return f"Trial {small['name']}, {times:.1f} times smaller ({small['parameters']:,} parameters), comes to {reached}."

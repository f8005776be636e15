"""Training the best few again with other seeds, so that the winner is not the luckiest."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.search_space import space as spaces
from cnnsweep.search_space.problem import trial_seed
from cnnsweep.trial import TrialSpec


def wanted(config: Mapping[str, Any], ledger: SweepState) -> list[tuple[TrialState, int]]:
    """The finalists, each with the number of a replicate that it still lacks."""
    count, budget = config["budget"]["replicates"] or 0, config["budget"]
    return [(e, k) for e in finalists(budget, ledger) for k in range(1, count + 1) if k not in e.replicates]


def finalists(budget: Mapping[str, Any], ledger: SweepState) -> list[TrialState]:
    return [e for e in ledger.ranked() if e.status in ("completed", "pruned")][: budget["finalists"] or 1]


def spec(config: Mapping[str, Any], folder: Path, entry: TrialState, number: int) -> TrialSpec:
    """As many epochs as the trial had, with a seed of its own."""
    composed = spaces.apply(config, entry.values)
    return TrialSpec(
        number=entry.number,
        values=dict(entry.values),
        config=composed,
        seed=trial_seed(trial_seed(composed["seed"], entry.number), number),
        folder=folder / "trials" / f"{entry.number:03d}" / "replicates" / str(number),
        data=folder / "data",
        epochs=len(entry.curve),
    )


def clear(made: TrialSpec) -> None:
    """A replicate's value is all that is kept of it."""
    shutil.rmtree(made.folder, ignore_errors=True)


def outcome(entries: Sequence[TrialState], ledger: SweepState) -> dict[str, Any] | None:
    """The fields of the event `winner`; None where no replicate came to a value.

    The first training does not count among the mean: it is what made a trial a finalist, by luck in part.
    """
    values = {e.number: [v for v in e.replicates.values() if v is not None] for e in entries}
    means = {number: statistics.fmean(found) for number, found in values.items() if found}
    if not means:
        return None
    sign = -1 if ledger.objective.direction == "max" else 1
    best = min(means, key=lambda number: (sign * means[number], number))
    results = {
        str(number): {"mean": mean, "std": statistics.stdev(values[number]) if len(values[number]) > 1 else 0.0}
        | {"count": len(values[number])}
        for number, mean in means.items()
    }
    return {"trial": best, "results": results}

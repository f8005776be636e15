"""Which of several sweeps was better, when each had trained for equally many epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results


@dataclass(frozen=True)
class Comparison:
    """Several sweeps at equal epochs."""

    objective: Objective
    equal: int
    """Epochs, all trials together, that each sweep trained at least."""
    race: dict[str, pd.DataFrame]
    """By sweep: a row an epoch trained: `epochs` (so many so far), `best` (so far), `run_id` (of the best)."""
    table: pd.DataFrame
    """A row a sweep: what it had at a quarter, half and all of `equal`, and in the end."""
    runs: dict[tuple[str, str], str]
    """By sweep and column: the run that a figure of the table belongs to."""
    doubts: list[str]
    """Why the sweeps may not be comparable."""
    verdict: str


def compare(sweeps: Sequence[Results]) -> Comparison:
    """Set sweeps of one objective side by side. Raises UserError where their objectives differ."""
    objectives = {r.objective.metric: r.sweep.id for r in sweeps}
    if len(objectives) > 1:
        told = ", ".join(f"{id_} has {metric}" for metric, id_ in objectives.items())
        raise UserError(f"these sweeps have different objectives and cannot be compared: {told}")
    objective = sweeps[0].objective
    race = {r.sweep.id: _steps(r.curves, objective) for r in sweeps}
    equal = min(len(steps) for steps in race.values())
    marks = sorted({max(1, equal // 4), max(1, equal // 2), equal})
    rows = [_row(r, race[r.sweep.id], marks) for r in sweeps]
    table = pd.DataFrame(rows)
    runs = {pair: run for r in sweeps for pair, run in _runs(r, race[r.sweep.id], marks)}
    return Comparison(objective, equal, race, table, runs, _doubts(sweeps), _verdict(sweeps, race, equal, objective))


def _steps(curves: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    ordered = curves.sort_values(["time", "trial", "epoch"], ignore_index=True)
    values = ordered[objective.metric]
    best = (values.cummin() if objective.direction == "min" else values.cummax()).ffill()
    lead = ordered["run_id"].where(values.eq(best) & best.ne(best.shift())).ffill()
    return pd.DataFrame({"epochs": range(1, len(ordered) + 1), "best": best, "run_id": lead})


def _row(results: Results, steps: pd.DataFrame, marks: Sequence[int]) -> dict[str, object]:
    trials, ranked = results.trials, results.ranked()
    at = {_at(m): steps["best"].iloc[m - 1] for m in marks}
    return {
        "sweep": results.sweep.id,
        "search": results.parent("params", "search") or "",
        "seed": results.parent("params", "seed") or "",
        "trials": len(trials),
        "epochs": len(steps),
        "minutes": float(trials["seconds"].sum()) / 60,
        **at,
        f"best {results.objective.metric}": ranked[results.best_column].iloc[0],
        "test accuracy": results.parent("metrics", "test_accuracy"),
    }


def _runs(results: Results, steps: pd.DataFrame, marks: Sequence[int]) -> Iterator[tuple[tuple[str, str], str]]:
    id_ = results.sweep.id
    for mark in marks:
        yield (id_, _at(mark)), str(steps["run_id"].iloc[mark - 1])
    yield (id_, f"best {results.objective.metric}"), str(results.ranked()["run_id"].iloc[0])
    if results.parent("metrics", "test_accuracy") is not None:
        yield (id_, "test accuracy"), results.sweep.run


def _at(epochs: int) -> str:
    return f"at {epochs:,} epochs"


def _doubts(sweeps: Sequence[Results]) -> list[str]:
    doubts = []
    if len({r.parent("tags", "cnnsweep.data.loading.digest") for r in sweeps}) > 1:
        doubts.append("They used different data or splits: their numbers are not of the same images.")
    if len({tuple(r.keys) for r in sweeps}) > 1:
        doubts.append("They searched different keys.")
    if len({r.parent("tags", "cnnsweep.machine.host") for r in sweeps}) > 1:
        doubts.append("They ran on different machines: their times say little about the searches.")
    return doubts


def _verdict(sweeps: Sequence[Results], race: dict[str, pd.DataFrame], equal: int, objective: Objective) -> str:
    sign = -1 if objective.direction == "max" else 1
    ends = sorted(((float(race[r.sweep.id]["best"].iloc[equal - 1]), r) for r in sweeps), key=lambda e: sign * e[0])
    (first, winner), (second, other) = ends[0], ends[1]
    told = f"After {equal:,} epochs each, the best {objective.metric} of {winner.sweep.id} is {first:.4f}"
    if first == second:
        return f"{told}, and so is that of {other.sweep.id}: no difference."
    told += f", that of {other.sweep.id} {second:.4f}."
    images = winner.parent("tags", "cnnsweep.data.loading.validation")
    if images and objective.metric == "val_accuracy":
        low, high = wilson(first, int(images))
        inside = low <= second <= high
        clear = "less than" if inside else "more than"
        interval = f"(95%: {low:.4f} to {high:.4f})"
        told += f" The difference is {clear} what {int(images):,} validation images leave open {interval}."
    return f"{told} It is one sweep each: other seeds may turn it round."

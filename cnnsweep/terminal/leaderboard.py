"""The best trials as a table on the terminal, which omits columns that have no room."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table

from cnnsweep.config.objective import Objective
from cnnsweep.formatting import duration, score
from cnnsweep.journal.state import SweepState, TrialState

MARKS = {"completed": "", "running": "…", "pruned": "pruned", "failed": "failed", "interrupted": "interrupted"}
COSTS = {"parameters": ",.0f", "mmacs": ",.2f"}
"""Of a network, and their formats."""
FIRST_OUT = ("mmacs", "parameters", "time", "epoch")
"""Columns in the order in which they are omitted on a narrow terminal."""
WIDE = 1000


@dataclass(frozen=True)
class Leaderboard:
    """The best trials, as many columns as fit."""

    state: SweepState
    count: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for number in range(len(FIRST_OUT) + 1):
            table = leaderboard(self.state, self.count, FIRST_OUT[:number])
            if console.measure(table, options=options.update(width=WIDE)).maximum <= options.max_width:
                break
        yield table


def leaderboard(state: SweepState, count: int, without: Collection[str] = ()) -> Table:
    """The best trials, those of the Pareto front first, with their costs where they are known."""
    front = state.front()
    on_front = {trial.number for trial in front}
    others = [trial for trial in state.ranked(count + len(front)) if trial.number not in on_front]
    shown = (front + others)[: max(count, len(front))]
    columns = {state.objective.metric: [best_value(trial, state.objective) for trial in shown]}
    for metric in state.objective.metrics[1:]:
        columns[metric] = [_at_best(trial, metric, state.objective) for trial in shown]
    if any(state.spread(trial) for trial in shown):
        columns["with other seeds"] = [_spread(state, trial) for trial in shown]
    columns["epoch"] = [str(trial.best_epoch(state.objective)) for trial in shown]
    for name, form in COSTS.items():
        if any(name in trial.summary for trial in shown):
            columns[name] = [f"{t.summary[name]:{form}}" if name in t.summary else "" for t in shown]
    columns["time"] = [duration(trial.seconds) if trial.seconds else "" for trial in shown]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("trial")
    kept = [name for name in columns if name not in without or name == state.objective.metric]
    for name in kept:
        table.add_column(name, justify="right", no_wrap=True)
    marks = ["Pareto front" if trial.number in on_front else MARKS[trial.status] for trial in shown]
    if any(marks):
        table.add_column("", no_wrap=True)
    for place, trial in enumerate(shown):
        row = [str(place + 1), trial.name, *(columns[name][place] for name in kept), marks[place]]
        table.add_row(*row[: len(table.columns)])
    return table


def best_value(trial: TrialState, objective: Objective) -> str:
    """The trial's best value of the objective; empty where it has none."""
    value = trial.best(objective)
    return "" if value is None else score(value)


def _at_best(trial: TrialState, metric: str, objective: Objective) -> str:
    """Another metric of the trial's best epoch."""
    row = trial.curve[(trial.best_epoch(objective) or 1) - 1]
    return score(row[metric]) if metric in row else ""


def _spread(state: SweepState, trial: TrialState) -> str:
    """The mean of its replicates, their deviation and their number."""
    found = state.spread(trial)
    return f"{score(found['mean'])} ± {score(found['std'])} ({found['count']:.0f})" if found else ""

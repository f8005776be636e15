"""The report's interactive figures of trials and sweeps, each a plain dictionary in Plotly's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnnsweep.config.objective import Objective
from cnnsweep.report.axes import brief
from cnnsweep.report.figure_style import (
    BEST,
    INK,
    MOST_POINTS,
    MUTED,
    SERIES,
    STATUS,
    Figure,
    by_status,
    figure_of,
    numbers,
    thin,
)

MOST_CURVES = 150


def best_by_trial(trials: pd.DataFrame, objective: Objective) -> Figure:
    """Each trial's best value by its number, and the best so far."""
    column = f"best_{objective.metric}"
    ordered = trials[trials[column].notna()].sort_values("trial")
    lead = _running_best(ordered[column], objective)
    drawn = thin(ordered, column, objective, MOST_POINTS)
    steps = ordered.assign(lead=lead)
    steps = steps[steps["lead"].ne(steps["lead"].shift()) | (steps["trial"] == steps["trial"].max())]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": numbers(steps["trial"]),
        "y": numbers(steps["lead"]),
        "line": {"shape": "hv", "color": INK, "width": 2},
        "hoverinfo": "skip",
    }
    return figure_of([*by_status(drawn, drawn["trial"], drawn[column]), line], "trial", objective.metric, legend=True)


def best_by_time(trials: pd.DataFrame, epochs: pd.DataFrame, objective: Objective) -> Figure:
    """The best value that any trial had reached, over the minutes since the first trial's start."""
    seen = epochs[epochs[objective.metric].notna()].sort_values("time")
    lead = _running_best(seen[objective.metric], objective)
    minutes = (seen["time"] - epochs["time"].min()).dt.total_seconds() / 60
    steps = pd.DataFrame({"x": minutes, "y": lead, "trial": seen["trial"]})
    last = steps.tail(1).assign(trial=None)
    steps = pd.concat([steps[steps["y"].ne(steps["y"].shift())], last])
    hover = [f"trial {t:03.0f}" if t == t and t is not None else "" for t in steps["trial"]]
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": numbers(steps["x"]),
        "y": numbers(steps["y"]),
        "text": hover,
        "line": {"shape": "hv", "color": INK, "width": 2},
        "marker": {"size": 5},
        "hovertemplate": "%{y:.4f} after %{x:.1f} min<br>%{text}<extra></extra>",
    }
    figure = figure_of([line], "minutes", objective.metric)
    # The very first epochs are far below; what matters is how the best compares with what trials reach.
    reached = trials[f"best_{objective.metric}"]
    low, high = sorted((float(reached.quantile(0.1 if objective.direction == "max" else 0.9)), float(lead.iloc[-1])))
    margin = 0.08 * (high - low) or 0.01
    figure["layout"]["yaxis"]["range"] = [low - margin, high + margin]
    return figure


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame, objective: Objective) -> Figure:
    """The objective over the epochs: pruned trials dashed, the best on top."""
    column = f"best_{objective.metric}"
    chosen = thin(trials[trials[column].notna()], column, objective, MOST_CURVES)
    best = _best_trial(trials, objective)
    lines: list[dict[str, Any]] = []
    for status, colour in STATUS.items():
        some = chosen[(chosen["status"] == status) & (chosen["trial"] != best)]
        if len(some):
            dash = "dot" if status == "pruned" else "solid"
            lines.append(
                _curves(
                    epochs[epochs["trial"].isin(some["trial"])],
                    some,
                    objective,
                    status,
                    {"color": colour, "width": 1.2, "dash": dash},
                    0.55,
                )
            )
    if best is not None:
        some = trials[trials["trial"] == best]
        lines.append(_curves(epochs[epochs["trial"] == best], some, objective, "best", {"color": INK, "width": 3}, 1))
    return figure_of(lines, "epoch", objective.metric, legend=True, height=420)


def cost(trials: pd.DataFrame, by: str, title: str, objective: Objective) -> Figure:
    """The objective against a cost, with the front of those that no cheaper trial beats."""
    column = f"best_{objective.metric}"
    shown = trials[trials[column].notna() & trials[by].notna() & (trials["status"] != "failed")]
    drawn = thin(shown, column, objective, MOST_POINTS)
    front = pareto(shown, by, objective)
    traces = by_status(drawn, drawn[by].astype(float), drawn[column])
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "Pareto front",
            "x": numbers(front[by]),
            "y": numbers(front[column]),
            "text": front["name"].tolist(),
            "line": {"color": BEST, "width": 2, "shape": "hv"},
            "marker": {"size": 8, "symbol": "circle-open", "line": {"width": 2}},
            "hovertemplate": "%{text}<br>%{y:.4f} at %{x:,.4g}<extra></extra>",
        }
    )
    figure = figure_of(traces, title, objective.metric, legend=True)
    ticks = round_ticks(float(shown[by].min()), float(shown[by].max()))
    figure["layout"]["xaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [brief(t) for t in ticks]}
    return figure


def worker_time(shares: pd.DataFrame) -> Figure:
    """Minutes by worker; `shares` has a row a worker and a column a use."""
    colours = dict(zip(shares.columns, (STATUS["completed"], "#7fb0d9", "#dfe3ea"), strict=False))
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": use,
            "x": numbers(shares[use] / 60),
            "y": list(map(str, shares.index)),
            "marker": {"color": colours.get(use, MUTED)},
            "hovertemplate": f"%{{y}}: %{{x:.2f}} min {use}<extra></extra>",
        }
        for use in shares.columns
    ]
    figure = figure_of(bars, "minutes", "", legend=True, height=130 + 34 * len(shares))
    figure["layout"] |= {"barmode": "stack"}
    figure["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    return figure


def race(by_sweep: Mapping[str, pd.DataFrame], objective: Objective, equal: int) -> Figure:
    """The best so far of several sweeps over the epochs that they trained; a line marks where the shortest ends."""
    traces = []
    for (name, steps), colour in zip(by_sweep.items(), SERIES * len(by_sweep), strict=False):
        kept = steps[steps["best"].ne(steps["best"].shift()) | (steps["epochs"] == steps["epochs"].max())]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": numbers(kept["epochs"]),
                "y": numbers(kept["best"]),
                "line": {"shape": "hv", "color": colour, "width": 2.5},
                "hovertemplate": "%{y:.4f} after %{x} epochs",
            }
        )
    figure = figure_of(traces, "epochs trained, all trials together", objective.metric, legend=True, height=420)
    figure["layout"]["shapes"] = [
        {
            "type": "line",
            "x0": equal,
            "x1": equal,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
        }
    ]
    return figure


def pareto(trials: pd.DataFrame, by: str, objective: Objective) -> pd.DataFrame:
    """The trials that no other beats at the same or a smaller cost, the cheapest first."""
    column = f"best_{objective.metric}"
    ordered = trials.sort_values([by, column], ascending=[True, objective.direction == "min"])
    before = _running_best(ordered[column], objective).shift()
    beats = ordered[column] > before if objective.direction == "max" else ordered[column] < before
    return ordered[beats | before.isna()]


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis.

    >>> round_ticks(150.0, 3000.0)
    [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [t for t in ticks if low / 2 <= t <= high * 2]


def _curves(
    epochs: pd.DataFrame, trials: pd.DataFrame, objective: Objective, name: str, line: Mapping[str, Any], opacity: float
) -> dict[str, Any]:
    names = dict(zip(trials["trial"], trials["name"], strict=True))
    x: list[Any] = []
    y: list[Any] = []
    text: list[str] = []
    for trial, rows in epochs.groupby("trial"):
        x += [*numbers(rows["epoch"]), None]
        y += [*numbers(rows[objective.metric]), None]
        text += [names[trial]] * (len(rows) + 1)
    mode = "lines+markers" if name == "best" else "lines+markers" if len(x) < 2000 else "lines"
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": x,
        "y": y,
        "text": text,
        "line": dict(line),
        "opacity": opacity,
        "marker": {"size": 4},
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.4f}<extra></extra>",
    }


def _running_best(values: pd.Series, objective: Objective) -> pd.Series:
    return values.cummin() if objective.direction == "min" else values.cummax()


def _best_trial(trials: pd.DataFrame, objective: Objective) -> int | None:
    sound = trials[trials["status"] != "failed"]
    index = objective.best(sound[f"best_{objective.metric}"].astype(float))
    return None if index is None else int(sound["trial"].iloc[index])

"""The report's interactive figures, each a plain dictionary in Plotly's terms, made from data frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsweep.axes import Axis, brief
from cnnsweep.importance import Importance
from cnnsweep.objective import Objective

Figure = dict[str, Any]
INK, MUTED, GRID, BEST = "#1f2328", "#8b93a1", "#e7e9ee", "#d1495b"
STATUS = {
    "completed": "#1f6fb2",
    "pruned": "#d99a1c",
    "failed": "#d1495b",
    "interrupted": "#8b93a1",
    "running": "#4a9d6f",
}
SERIES = ("#1f6fb2", "#d1495b", "#4a9d6f", "#d99a1c", "#7b5ea7", "#3aa6a6")
SCALE = [[0, "#dbe3ee"], [0.5, "#7fb0d9"], [0.8, "#2f7fc1"], [1, "#0b3c68"]]
MOST_POINTS, MOST_LINES, MOST_CURVES = 3000, 1500, 150


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
    return _figure([*_by_status(drawn, drawn["trial"], drawn[column]), line], "trial", objective.metric, legend=True)


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
    figure = _figure([line], "minutes", objective.metric)
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
    return _figure(lines, "epoch", objective.metric, legend=True, height=420)


def parallel(trials: pd.DataFrame, axes: Sequence[Axis], objective: Objective) -> Figure:
    """Every trial a line across its values; drag along an axis to brush, drag a name to move an axis."""
    column = f"best_{objective.metric}"
    placed = trials.reset_index(drop=True)
    chosen = thin(placed[placed[column].notna()], column, objective, MOST_LINES)
    chosen = chosen.sort_values(column, ascending=objective.direction == "max")  # the best are drawn last, on top
    rows, values = chosen.index, chosen[column]
    dimensions = [
        {
            "label": a.title,
            "values": numbers(pd.Series(a.at[rows])),
            "tickvals": a.ticks,
            "ticktext": a.labels,
            "range": [a.low, a.high],
        }
        for a in axes
    ]
    dimensions.append({"label": objective.metric, "values": numbers(values)})
    low, high = (float(values.quantile(q)) for q in ((0.1, 1.0) if objective.direction == "max" else (0.0, 0.9)))
    line = {
        "color": numbers(values),
        "colorscale": SCALE,
        "reversescale": objective.direction == "min",
        "cmin": low,
        "cmax": high if high > low else low + 1e-9,
    }
    data = [
        {
            "type": "parcoords",
            "dimensions": dimensions,
            "line": line,
            "labelangle": -25,
            "labelside": "top",
            "unselected": {"line": {"color": "#d8dbe1", "opacity": 0.12}},
            "labelfont": {"size": 12, "color": INK},
            "tickfont": {"size": 10, "color": INK},
            "rangefont": {"size": 9, "color": MUTED},
        }
    ]
    return {"data": data, "layout": {"height": 460, "margin": {"l": 60, "r": 50, "t": 100, "b": 30}, **_PAPER}}


def importances(found: Importance) -> Figure:
    """A bar a key; grey ones are below what a random key gets."""
    shares = dict(reversed(found.shares.items()))
    colours = [STATUS["completed"] if s > found.noise else "#c3c9d3" for s in shares.values()]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(pd.Series(shares.values())),
        "y": list(shares),
        "marker": {"color": colours},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    figure = _figure([bars], f"share ({found.method}, {found.trials:,} trials)", "", height=90 + 24 * len(shares))
    figure["layout"]["xaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    figure["layout"]["yaxis"] |= {"automargin": True, "tickfont": {"size": 12}, "gridcolor": "rgba(0,0,0,0)"}
    figure["layout"]["shapes"] = [
        {
            "type": "line",
            "x0": found.noise,
            "x1": found.noise,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": BEST, "width": 1.5, "dash": "dash"},
        }
    ]
    figure["layout"]["annotations"] = [
        {
            "x": found.noise,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "text": "a random key",
            "font": {"size": 11, "color": BEST},
        }
    ]
    return figure


def slice_of(trials: pd.DataFrame, axis: Axis, objective: Objective) -> Figure:
    """The objective over one key's values, darker for later trials."""
    column = f"best_{objective.metric}"
    placed = trials.reset_index(drop=True)
    placed = placed.assign(at=axis.at)[placed[column].notna()]
    drawn = thin(placed, column, objective, 1000)
    jitter = 0 if axis.continuous else (np.random.default_rng(0).random(len(drawn)) - 0.5) * 0.5
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(drawn["at"] + jitter),
        "y": numbers(drawn[column]),
        "text": drawn["name"].tolist(),
        "marker": {
            "size": 6,
            "opacity": 0.75,
            "color": numbers(drawn["trial"]),
            "colorscale": SCALE,
            "cmin": 1,
            "cmax": int(placed["trial"].max()),
        },
        "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>",
    }
    traces = [points]
    if not axis.continuous:
        medians = placed.groupby("at")[column].median()
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": numbers(medians.index.to_series()),
                "y": numbers(medians),
                "marker": {"symbol": "line-ew-open", "size": 26, "color": BEST, "line": {"width": 2.5}},
                "hovertemplate": "median %{y:.4f}<extra></extra>",
            }
        )
    figure = _figure(traces, axis.title, "", height=230)
    figure["layout"]["margin"] = {"l": 52, "r": 12, "t": 10, "b": 46}
    figure["layout"]["xaxis"] |= {
        "tickvals": axis.ticks,
        "ticktext": axis.labels,
        "range": [axis.low, axis.high],
        "tickangle": 0,
    }
    return figure


def contour(trials: pd.DataFrame, across: Axis, up: Axis, objective: Objective) -> Figure:
    """What two keys give together: a smoothed surface where both are ranges or many, and the trials on it."""
    column = f"best_{objective.metric}"
    mask = trials[column].notna().to_numpy()
    x, y, z = across.at[mask], up.at[mask], trials[column].to_numpy(float)[mask]
    grid_x, grid_y = _grid(across), _grid(up)
    surface = _smooth(x, y, z, grid_x, grid_y, across, up)
    shared = {
        "x": list(map(float, grid_x)),
        "y": list(map(float, grid_y)),
        "z": [numbers(pd.Series(row)) for row in surface],
        "colorscale": SCALE,
        "reversescale": objective.direction == "min",
        "hoverinfo": "skip",
        "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": objective.metric, "side": "right"}},
    }
    flat = not (across.continuous and up.continuous)
    ground = (
        {"type": "heatmap", **shared}
        if flat
        else {"type": "contour", **shared, "contours": {"coloring": "heatmap"}, "line": {"width": 0.5, "color": "#fff"}}
    )
    drawn = thin(trials[mask].assign(x=x, y=y), column, objective, 800)
    rng = np.random.default_rng(0)
    nudge_x, nudge_y = (0 if a.continuous else (rng.random(len(drawn)) - 0.5) * 0.5 for a in (across, up))
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(drawn["x"] + nudge_x),
        "y": numbers(drawn["y"] + nudge_y),
        "text": [f"{n}<br>{v:.4f}" for n, v in zip(drawn["name"], drawn[column], strict=True)],
        "marker": {"size": 6, "color": "#fff", "line": {"color": INK, "width": 1}},
        "hovertemplate": "%{text}<extra></extra>",
    }
    figure = _figure([ground, points], across.title, up.title, height=440)
    figure["layout"]["xaxis"] |= {
        "tickvals": across.ticks,
        "ticktext": across.labels,
        "range": [across.low, across.high],
    }
    figure["layout"]["yaxis"] |= {"tickvals": up.ticks, "ticktext": up.labels, "range": [up.low, up.high]}
    return figure


def cost(trials: pd.DataFrame, by: str, title: str, objective: Objective) -> Figure:
    """The objective against a cost, with the front of those that no cheaper trial beats."""
    column = f"best_{objective.metric}"
    shown = trials[trials[column].notna() & trials[by].notna() & (trials["status"] != "failed")]
    drawn = thin(shown, column, objective, MOST_POINTS)
    front = pareto(shown, by, objective)
    traces = _by_status(drawn, drawn[by].astype(float), drawn[column])
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
    figure = _figure(traces, title, objective.metric, legend=True)
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
    figure = _figure(bars, "minutes", "", legend=True, height=130 + 34 * len(shares))
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
    figure = _figure(traces, "epochs trained, all trials together", objective.metric, legend=True, height=420)
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


def thin(trials: pd.DataFrame, column: str, objective: Objective, most: int) -> pd.DataFrame:
    """At most so many rows: the better half of that number as it is, the rest evenly by rank."""
    if len(trials) <= most:
        return trials
    ranked = trials.sort_values(column, ascending=objective.direction == "min")
    rest = np.linspace(most // 2, len(trials) - 1, most - most // 2).round().astype(int)
    return ranked.iloc[np.concatenate([np.arange(most // 2), rest])]


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis.

    >>> round_ticks(150.0, 3000.0)
    [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [t for t in ticks if low / 2 <= t <= high * 2]


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Plain numbers that JSON takes, to 6 digits, with None for what is absent."""
    return [
        None if pd.isna(v) or not math.isfinite(v) else int(v) if float(v).is_integer() else float(f"{float(v):.6g}")
        for v in values
    ]


_PAPER: dict[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
}


def _figure(data: list[dict[str, Any]], x: str, y: str, legend: bool = False, height: int = 340) -> Figure:
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True}
    layout = {
        "height": height,
        "margin": {"l": 58, "r": 16, "t": 34 if legend else 14, "b": 46},
        "showlegend": legend,
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        **_PAPER,
    }
    return {"data": data, "layout": layout}


def _by_status(trials: pd.DataFrame, x: pd.Series, y: pd.Series) -> list[dict[str, Any]]:
    traces = []
    for status, colour in STATUS.items():
        mask = trials["status"] == status
        if mask.any():
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": status,
                    "x": numbers(x[mask]),
                    "y": numbers(y[mask]),
                    "text": [
                        f"{n}<br>run {r[:8]}" for n, r in zip(trials["name"][mask], trials["run_id"][mask], strict=True)
                    ],
                    "marker": {"color": colour, "size": 7, "opacity": 0.75},
                    "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>",
                }
            )
    return traces


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


def _grid(axis: Axis) -> np.ndarray:
    return np.linspace(axis.low, axis.high, 40) if axis.continuous else np.array(axis.ticks)


def _smooth(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, grid_x: np.ndarray, grid_y: np.ndarray, across: Axis, up: Axis
) -> np.ndarray:
    """A kernel-weighted mean of the trials around each point of the grid; absent where there are none near."""

    def weights(grid: np.ndarray, at: np.ndarray, axis: Axis) -> np.ndarray:
        width = (axis.high - axis.low) / 9 if axis.continuous else 0.25
        return np.exp(-0.5 * ((grid[:, None] - at[None, :]) / width) ** 2)

    along, above = weights(grid_x, x, across), weights(grid_y, y, up)
    total = above @ along.T
    surface = (above * z) @ along.T / np.maximum(total, 1e-12)
    return np.where(total > 0.05, surface, np.nan)

"""The report's interactive figures of what the searched keys did, each a plain dictionary in Plotly's terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnnsweep.config.objective import Objective
from cnnsweep.report.axes import Axis
from cnnsweep.report.figure_style import BEST, INK, PAPER, SCALE, STATUS, Figure, figure_of, numbers, thin
from cnnsweep.report.importance import Importance

MOST_LINES = 1500


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
            "rangefont": {"size": 9, "color": "rgba(0,0,0,0)"},  # it would stand in the names
        }
    ]
    return {"data": data, "layout": {"height": 460, "margin": {"l": 60, "r": 50, "t": 100, "b": 30}, **PAPER}}


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
    figure = figure_of([bars], f"share ({found.method}, {found.trials:,} trials)", "", height=90 + 24 * len(shares))
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
    figure = figure_of(traces, axis.title, "", height=230)
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
    figure = figure_of([ground, points], across.title, up.title, height=440)
    figure["layout"]["xaxis"] |= {
        "tickvals": across.ticks,
        "ticktext": across.labels,
        "range": [across.low, across.high],
    }
    figure["layout"]["yaxis"] |= {"tickvals": up.ticks, "ticktext": up.labels, "range": [up.low, up.high]}
    return figure


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

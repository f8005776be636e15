"""What the report's figures share: colours, the layout, and thinning out what is too much to draw."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cnnsweep.config.objective import Objective

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
MOST_POINTS = 3000
PAPER: dict[str, Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
}


def figure_of(data: list[dict[str, Any]], x: str, y: str, legend: bool = False, height: int = 340) -> Figure:
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True}
    layout = {
        "height": height,
        "margin": {"l": 58, "r": 16, "t": 34 if legend else 14, "b": 46},
        "showlegend": legend,
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        **PAPER,
    }
    return {"data": data, "layout": layout}


def by_status(trials: pd.DataFrame, x: pd.Series, y: pd.Series) -> list[dict[str, Any]]:
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


def thin(trials: pd.DataFrame, column: str, objective: Objective, most: int) -> pd.DataFrame:
    """At most so many rows: the better half of that number as it is, the rest evenly by rank."""
    if len(trials) <= most:
        return trials
    ranked = trials.sort_values(column, ascending=objective.direction == "min")
    rest = np.linspace(most // 2, len(trials) - 1, most - most // 2).round().astype(int)
    return ranked.iloc[np.concatenate([np.arange(most // 2), rest])]


def numbers(values: Iterable[Any]) -> list[float | int | None]:
    """Plain numbers that JSON takes, to 6 digits, with None for what is absent."""
    return [
        None if pd.isna(v) or not math.isfinite(v) else int(v) if float(v).is_integer() else float(f"{float(v):.6g}")
        for v in values
    ]

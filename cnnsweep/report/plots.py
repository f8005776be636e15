"""Pictures from data frames. Each function returns a matplotlib Figure of its own and keeps no state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAINING, VALIDATION, MARK, INK, PALE = "#8a8f98", "#1f6fb2", "#d1495b", "#2b2f36", "#d9dce1"
STATUS_COLOURS = {"completed": VALIDATION, "pruned": "#c9a227", "failed": MARK}


def curves(epochs: pd.DataFrame, objective: str = "val_accuracy") -> Figure:
    """Draw loss and accuracy over the epochs of one trial, with the best epoch by `objective` marked.

    `epochs` has a row an epoch: `epoch`, and what there is of loss, accuracy, val_loss and val_accuracy.
    """
    figure, (left, right) = _figure(9, 3.5, columns=2)
    best = _best_epoch(epochs, objective)
    for axes, metric in ((left, "loss"), (right, "accuracy")):
        _curve(axes, epochs, metric, TRAINING, "training")
        _curve(axes, epochs, f"val_{metric}", VALIDATION, "validation")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(metric, loc="left")
        if best is not None:
            _mark_best(axes, epochs, f"val_{metric}", best)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    return figure


def best_so_far(trials: pd.DataFrame, objective: str = "val_accuracy") -> Figure:
    """Draw each trial's best value and the best so far, by trial number.

    `trials` has a row a trial: `trial` (its number), `best_<objective>` and `status`.
    """
    figure, (axes,) = _figure(9, 3.5)
    values = trials.sort_values("trial")
    column = values[f"best_{objective}"]
    best = (column.cummin() if "loss" in objective else column.cummax()).ffill()
    axes.step(values["trial"], best, where="post", color=INK, linewidth=1.6, label="best so far", zorder=2)
    for status, colour in STATUS_COLOURS.items():
        some = values[(values["status"] == status) & column.notna()]
        if len(some):
            axes.scatter(some["trial"], some[f"best_{objective}"], s=26, color=colour, label=status, zorder=3)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_title(f"best {objective}", loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def leaderboard(trials: pd.DataFrame, objective: str = "val_accuracy", top: int = 10) -> Figure:
    """Draw the best values as points on lines, best on top: an axis that need not begin at 0.

    `trials` has a row a trial: `name`, `best_<objective>`.
    """
    column = f"best_{objective}"
    best = trials.dropna(subset=[column]).sort_values(column, ascending="loss" in objective).head(top)[::-1]
    figure, (axes,) = _figure(9, 1.1 + 0.32 * max(len(best), 1))
    axes.scatter(best[column], best["name"], s=60, color=VALIDATION, zorder=3)
    for value, name in zip(best[column], best["name"], strict=True):
        axes.annotate(f"{value:.4f}", (value, name), (9, 0), textcoords="offset points", va="center", fontsize=9)
    axes.margins(x=0.12)
    axes.grid(axis="x", visible=False)
    axes.set_title(f"best {objective}", loc="left")
    return figure


def confusion_matrix(matrix: Any, class_names: Sequence[str]) -> Figure:
    """Draw counts (rows: true class, columns: predicted); shades are shares of the row, mistakes in red."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.5, 1.6 + 0.52 * len(class_names))
    figure, (axes,) = _figure(side, side)
    right = np.eye(len(counts), dtype=bool)
    colours = np.ones((*counts.shape, 3))
    for mask, colour in ((right, (0.12, 0.44, 0.70)), (~right, (0.82, 0.29, 0.36))):
        strength = np.where(right, shares, np.minimum(1, shares * 5))[mask][:, None]
        colours[mask] = 1 - strength * (1 - np.array(colour))
    axes.imshow(colours)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = colours[row, column].mean() < 0.6
            axes.text(column, row, f"{count:g}", ha="center", va="center", fontsize=9, color="w" if dark else INK)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    path.write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    found = list(np.atleast_1d(figure.subplots(1, columns)))
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(color=PALE, labelcolor=INK, labelsize=9)
        axes.grid(color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, found


def _curve(axes: Axes, epochs: pd.DataFrame, column: str, colour: str, label: str) -> None:
    if column in epochs:
        marker = "o" if len(epochs) <= 30 else None
        axes.plot(epochs["epoch"], epochs[column], color=colour, marker=marker, markersize=3.5, label=label)


def _best_epoch(epochs: pd.DataFrame, objective: str) -> int | None:
    if objective not in epochs or epochs[objective].isna().all():
        return None
    column = epochs[objective]
    values = column.to_numpy(float)
    return int(np.nanargmin(values) if "loss" in objective else np.nanargmax(values))


def _mark_best(axes: Axes, epochs: pd.DataFrame, column: str, index: int) -> None:
    epoch = epochs["epoch"].iloc[index]
    axes.axvline(epoch, color=MARK, linewidth=1, linestyle=":", zorder=1)
    if column in epochs:
        value = epochs[column].iloc[index]
        axes.plot([epoch], [value], "o", color=MARK, markersize=7, label=f"epoch {epoch:g}: {value:.4f}", zorder=4)

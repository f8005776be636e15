"""Record a sweep's results in a folder: its trials, its report's summary, three pictures.

python -m cnnsweep +sweep=fashion
python experiments/record.py experiments/fashion [SWEEP] [tracking.dir=DIR]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import cnnsweep
from cnnsweep.config.compose import compose

OBJECTIVE = "val_accuracy"
INK, BEST, OTHERS = "#2b2f36", "#1f6fb2", "#b8bec8"
STATUS_COLOURS = {"completed": BEST, "pruned": "#c9a227", "failed": "#d1495b"}


def best_so_far(trials: pd.DataFrame) -> Figure:
    """Each trial's best validation accuracy and the best so far, by trial number."""
    figure, axes = _figure(3.5)
    values = trials.sort_values("trial")
    column = values[f"best_{OBJECTIVE}"]
    axes.step(values["trial"], column.cummax().ffill(), where="post", color=INK, linewidth=1.6, label="best so far")
    for status, colour in STATUS_COLOURS.items():
        some = values[(values["status"] == status) & column.notna()]
        if len(some):
            axes.scatter(some["trial"], some[f"best_{OBJECTIVE}"], s=26, color=colour, label=status, zorder=3)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_title(f"best {OBJECTIVE}", loc="left")
    axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Validation accuracy over the epochs, a line a trial, the best three in colour."""
    figure, axes = _figure(4)
    best = list(trials.sort_values(f"best_{OBJECTIVE}", ascending=False)["trial"].head(3))
    for number, rows in epochs.groupby("trial"):
        shown = number in best
        style = {"color": BEST if shown else OTHERS, "linewidth": 1.8 if shown else 1, "zorder": 3 if shown else 2}
        axes.plot(rows["epoch"], rows[OBJECTIVE], marker="o", markersize=3, **style)
    axes.set_xlabel("epoch")
    axes.set_title(f"{OBJECTIVE}, one line a trial; the three best in blue", loc="left")
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def main() -> None:
    named, overrides = [a for a in sys.argv[1:] if "=" not in a], [a for a in sys.argv[1:] if "=" in a]
    here, sweep = Path(named[0]), named[1] if len(named) > 1 else None
    here.mkdir(exist_ok=True)
    trials, epochs = cnnsweep.trials(sweep, *overrides), cnnsweep.curves(sweep, *overrides)
    folder = Path(compose(overrides).tracking.dir) / "sweeps" / trials["sweep"].iloc[0]
    trials.drop(columns="run_id").to_csv(here / "trials.csv", index=False, float_format="%.6g")
    shutil.copy(folder / "report" / "report.md", here / "report.md")
    best_so_far(trials).savefig(here / "best_so_far.png")
    learning_curves(trials, epochs).savefig(here / "learning_curves.png")
    winner = trials.sort_values(f"best_{OBJECTIVE}", ascending=False)["trial"].iloc[0]
    gallery = folder / "trials" / f"{winner:03d}" / "artifacts" / "gallery"
    shutil.copy(gallery / "1_confusion_matrix.png", here / "confusion_matrix.png")


if __name__ == "__main__":
    main()

"""Write down what a sweep found: its trials, its report's summary, three pictures.

python -m cnnsweep +sweep=fashion
python experiments/fashion/results.py [SWEEP] [tracking.dir=DIR]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import cnnsweep
from cnnsweep.api import tracking_of
from cnnsweep.report import plots

HERE = Path(__file__).parent
OBJECTIVE = "val_accuracy"
BEST, OTHERS = "#1f6fb2", "#b8bec8"


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Validation accuracy over the epochs, a line a trial, the best three in colour."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    best = list(trials.sort_values(f"best_{OBJECTIVE}", ascending=False)["trial"].head(3))
    for number, rows in epochs.groupby("trial"):
        shown = number in best
        style = {"color": BEST if shown else OTHERS, "linewidth": 1.8 if shown else 1, "zorder": 3 if shown else 2}
        axes.plot(rows["epoch"], rows[OBJECTIVE], marker="o", markersize=3, **style)
    axes.set_xlabel("epoch")
    axes.set_title(f"{OBJECTIVE}, one line a trial; the three best in blue", loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    sweep = next((a for a in sys.argv[1:] if "=" not in a), None)
    overrides = [a for a in sys.argv[1:] if "=" in a]
    trials, epochs = cnnsweep.trials(sweep, *overrides), cnnsweep.curves(sweep, *overrides)
    folder = Path(tracking_of(overrides)["dir"]) / "sweeps" / trials["sweep"].iloc[0]
    trials.drop(columns="run_id").to_csv(HERE / "trials.csv", index=False, float_format="%.6g")
    shutil.copy(folder / "report" / "report.md", HERE / "report.md")
    plots.save(plots.best_so_far(trials), HERE / "best_so_far.png")
    plots.save(learning_curves(trials, epochs), HERE / "learning_curves.png")
    winner = trials.sort_values(f"best_{OBJECTIVE}", ascending=False)["trial"].iloc[0]
    gallery = folder / "trials" / f"{winner:03d}" / "artifacts" / "gallery"
    shutil.copy(gallery / "1_confusion_matrix.png", HERE / "confusion_matrix.png")


if __name__ == "__main__":
    main()

"""The pictures are drawn from what real sweeps hand over: gaps, NaN, a single epoch, no objective."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsweep.report import plots
from cnnsweep.training import curve_plot as sketch

EPOCHS = {
    "epoch": [1, 2, 3, 4],
    "loss": [1.9, 1.1, 0.8, 0.6],
    "accuracy": [0.3, 0.6, 0.7, 0.8],
    "val_loss": [1.6, 1.0, 0.9, 1.0],
    "val_accuracy": [0.4, 0.6, 0.75, 0.7],
}
TRIALS = pd.DataFrame(
    {
        "trial": [1, 2, 3, 4],
        "name": ["001 · 16", "002 · 32", "003 · 64", "004 · 96"],
        "best_val_accuracy": [0.8, 0.7, np.nan, 0.9],
        "status": ["completed", "pruned", "failed", "completed"],
    }
)
ODD = {
    "one epoch": {k: v[:1] for k, v in EPOCHS.items()},
    "nan": {**EPOCHS, "loss": [float("nan")] * 4, "val_accuracy": [float("nan")] * 4},
    "infinite": {**EPOCHS, "val_loss": [1.0, float("inf"), 1.0, 1.0]},
    "loss only": {k: EPOCHS[k] for k in ("epoch", "loss")},
    "flat": {**EPOCHS, "val_accuracy": [0.1] * 4, "accuracy": [0.1] * 4, "loss": [0.0] * 4, "val_loss": [0.0] * 4},
}


def test_curves_mark_the_best_epoch() -> None:
    figure = plots.curves(pd.DataFrame(EPOCHS))
    loss, accuracy = figure.axes
    assert [axes.get_title(loc="left") for axes in (loss, accuracy)] == ["loss", "accuracy"]
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["training", "validation", "epoch 3: 0.7500"]


def test_curves_by_a_loss_mark_its_lowest() -> None:
    figure = plots.curves(pd.DataFrame(EPOCHS), objective="val_loss")
    assert "epoch 3: 0.9000" in [t.get_text() for t in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("name", ODD)
def test_curves_of_odd_trials(name: str) -> None:
    assert plots.png(plots.curves(pd.DataFrame(ODD[name]))).startswith(b"\x89PNG")


def test_sketch_is_of_the_promised_size_and_not_blank(tmp_path: Path) -> None:
    sketch.save_curves(EPOCHS, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (900, 350)
        assert len(image.getcolors(maxcolors=100_000)) > 50


@pytest.mark.parametrize("name", ODD)
def test_sketch_of_odd_trials(name: str, tmp_path: Path) -> None:
    sketch.save_curves(ODD[name], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1e-9, 3e-9), (0.9123, 0.9124), (-5, 5e6), (1e300, 2e300)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    found = sketch.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * abs(low) <= t <= high + 1e-9 * abs(high) for t in found)


def test_best_so_far_goes_on_over_failed_trials() -> None:
    (axes,) = plots.best_so_far(TRIALS).axes
    assert list(axes.lines[0].get_ydata()) == [0.8, 0.8, 0.8, 0.9]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["best so far", "completed", "pruned"]


def test_leaderboard_has_the_best_on_top() -> None:
    (axes,) = plots.leaderboard(TRIALS, top=2).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["001 · 16", "004 · 96"]


def test_confusion_matrix_names_and_counts() -> None:
    (axes,) = plots.confusion_matrix([[5, 1], [0, 6]], ["cat", "dog"]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "5", "6"]


def test_figures_leave_pyplot_alone(tmp_path: Path) -> None:
    plots.save(plots.curves(pd.DataFrame(EPOCHS)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (900, 350)

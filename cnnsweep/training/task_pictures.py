"""Pictures of what a network predicts, where it is not one class an image: residuals, labels and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array
from cnnsweep.training.pictures import FRAME, INK, MARK, TRAINING, VALIDATION, new_figure, reduced, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGETS, LABELS, POINTS = 4, 30, 3000
"""At most so many targets, labels and points are drawn."""


def residuals(y: Array, predicted: Array, names: Sequence[str]) -> Figure:
    """Draw for each target the predictions over the true values, and the distribution of their differences.

    `y` and `predicted`: (images, targets).
    """
    shown = range(min(len(names), TARGETS))
    figure = new_figure(9, 3.6 * len(shown))
    for row, axes in zip(shown, figure.subplots(len(shown), 2, squeeze=False), strict=True):
        true, said = y[:, row].astype(float), predicted[:, row].astype(float)
        ends = [min(true.min(), said.min()), max(true.max(), said.max())]
        axes[0].plot(ends, ends, color=TRAINING, linewidth=1)
        axes[0].scatter(true[:POINTS], said[:POINTS], s=8, color=VALIDATION, alpha=0.5, linewidths=0)
        name = shortened(names[row])
        axes[0].set(xlabel=f"true {name}", ylabel=f"predicted {name}")
        axes[1].hist(said - true, bins=40, color=VALIDATION)
        axes[1].axvline(0, color=TRAINING, linewidth=1)
        axes[1].axvline(float((said - true).mean()), color=MARK, linewidth=1)
        axes[1].set(xlabel=f"predicted minus true {name} (red: the mean)", ylabel="images")
        for each in axes:
            each.spines[["top", "right"]].set_visible(False)
            each.spines[["left", "bottom"]].set_color(FRAME)
            each.tick_params(color=FRAME, labelcolor=INK, labelsize=9)
    return figure


def label_counts(true: Array, said: Array, names: Sequence[str]) -> Figure:
    """Draw for each label how many images were found, missed and wrongly given it; both: bool (images, labels)."""
    found, missed, wrong = (true & said).sum(axis=0), (true & ~said).sum(axis=0), (~true & said).sum(axis=0)
    chosen = np.sort(np.argsort(-(missed + wrong), kind="stable")[:LABELS])
    figure = new_figure(7, 1.2 + 0.32 * len(chosen))
    axes, rows = figure.subplots(), np.arange(len(chosen))
    axes.barh(rows, found[chosen], color=VALIDATION, label="found")
    axes.barh(rows, missed[chosen], left=found[chosen], color=TRAINING, label="missed")
    axes.barh(rows, -wrong[chosen], color=MARK, label="given wrongly")
    axes.set_yticks(rows, [shortened(names[i]) for i in chosen])
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="images (to the left: without the label)")
    axes.xaxis.set_major_formatter(lambda images, _: f"{abs(images):g}")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def masks(images: Array, true: Array, said: Array, names: Sequence[str]) -> Figure:
    """Draw a row an image: the image, its true mask, the predicted one, and where they differ.

    `images`: (n, height, width, 1 or 3), values 0..1; `true` and `said`: classes (n, height, width).
    """
    from matplotlib.patches import Patch

    images = reduced(images)
    true, said = (reduced(mask[..., np.newaxis])[..., 0] for mask in (true, said))
    figure = new_figure(6.4, 1.6 * len(images) + 0.4)
    grid = figure.subplots(len(images), 4, squeeze=False)
    for index, row in enumerate(grid):
        grey = images.shape[-1] == 1
        row[0].imshow(images[index, ..., 0] if grey else images[index].clip(0, 1), cmap="gray", vmin=0, vmax=1)
        for axes, mask in zip(row[1:3], (true[index], said[index]), strict=True):
            axes.imshow(mask, cmap="tab20", vmin=0, vmax=max(len(names) - 1, 1), interpolation="nearest")
        row[3].imshow(true[index] != said[index], cmap="Reds", vmin=0, vmax=1, interpolation="nearest")
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, title in zip(grid[0], ("image", "true", "predicted", "different"), strict=True):
        axes.set_title(title, fontsize=9, color=INK)
    present = np.union1d(true, said)[:LABELS]
    colours = grid[0][1].images[0]
    handles = [Patch(color=colours.cmap(colours.norm(label)), label=shortened(names[label])) for label in present]
    figure.legend(handles=handles, ncols=4, loc="outside lower center", frameon=False, fontsize=8)
    return figure

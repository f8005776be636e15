"""The final evaluation class by class, label by label or target by target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Array
from cnnsweep.statistics import wilson

Pairs = Iterable[tuple[Array, Array]]
"""Labels and predictions, some images at a time."""


class Breakdown(TypedDict):
    """A table of texts."""

    header: list[str]
    rows: list[list[str]]


def break_down(task: Task, pairs: Pairs, names: Sequence[str]) -> Breakdown:
    """Return the table for labels and a network's outputs, as the data and the network have them."""
    if task == "regression":
        return _targets(pairs, names)
    if task == "multi_label":
        return _labels(pairs, names)
    matrix = confusion(pairs, len(names))
    return _classes(matrix, names) if task == "classification" else _regions(matrix, names)


def confusion(pairs: Pairs, classes: int) -> Array:
    """How often each class (row) was taken for each (column), over images or over pixels."""
    matrix = np.zeros((classes, classes), np.int64)
    for y, predicted in pairs:
        taken = predicted.argmax(axis=-1)
        pairs_of = np.asarray(y, np.int64).reshape(-1) * classes + taken.reshape(-1)
        matrix += np.bincount(pairs_of, minlength=classes * classes).reshape(classes, classes)
    return matrix


def _classes(matrix: Array, names: Sequence[str]) -> Breakdown:
    rows = []
    for name, right, images in zip(names, matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), strict=True):
        if not images:
            rows.append([name, "–", "–", "0"])
            continue
        low, high = wilson(right / images, images)
        rows.append([name, f"{right / images:.3f}", f"{low:.3f} to {high:.3f}", f"{images:,}"])
    return {"header": ["class", "accuracy", "95% interval", "test examples"], "rows": rows}


def _regions(matrix: Array, names: Sequence[str]) -> Breakdown:
    rows = []
    for index, name in enumerate(names):
        right, there, said = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
        union = there + said - right
        found = [f"{right / union:.3f}", f"{2 * right / (there + said):.3f}"] if union else ["–", "–"]
        rows.append([name, *found, f"{there / matrix.sum():.2%}"])
    return {"header": ["class", "intersection over union", "Dice", "share of the test pixels"], "rows": rows}


def _labels(pairs: Pairs, names: Sequence[str]) -> Breakdown:
    """At a threshold of 0.5."""
    right, there, said = (np.zeros(len(names), np.int64) for _ in range(3))
    for y, predicted in pairs:
        true, taken = np.asarray(y) > 0.5, predicted > 0.5
        right, there, said = (a + b.sum(axis=0) for a, b in ((right, true & taken), (there, true), (said, taken)))
    ratios = (_shares(right, said), _shares(right, there), _shares(2 * right, said + there))
    rows = [[name, *(column[i] for column in ratios), f"{there[i]:,}"] for i, name in enumerate(names)]
    return {"header": ["label", "precision", "recall", "F1", "test examples with it"], "rows": rows}


def _shares(above: Array, below: Array) -> list[str]:
    return [f"{a / b:.3f}" if b else "–" for a, b in zip(above.tolist(), below.tolist(), strict=True)]


def _targets(pairs: Pairs, names: Sequence[str]) -> Breakdown:
    """Errors are predictions minus true values."""
    errors = np.concatenate([predicted - y for y, predicted in pairs]).astype(np.float64)
    rows = []
    for index, name in enumerate(names):
        column = errors[:, index]
        low, middle, high = np.quantile(column, [0.05, 0.5, 0.95])
        figures = (np.abs(column).mean(), np.sqrt((column**2).mean()), middle)
        rows.append([name, *(f"{figure:.4g}" for figure in figures), f"{low:.4g} to {high:.4g}"])
    header = ["target", "mean absolute error", "root mean squared error", "median error", "90% of the errors"]
    return {"header": header, "rows": rows}

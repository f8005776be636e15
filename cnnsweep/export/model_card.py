"""The model card of an exported network, and an example of its use."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cnnsweep.data.arrays import Dataset
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.training.evaluate import Refit

TEXT = """# {stored.config.name}

A convolutional network that distinguishes {data.classes} classes in images of {size} (height×width×channels).

| | |
| --- | --- |
| test accuracy | **{accuracy:.4f}** (95% interval {low:.4f} to {high:.4f}, {images:,} images) |
| over {seeds} seeds | {spread}; the model is the first seed's, not the best |
| parameters | {parameters:,} |
| multiply-adds of one image | {adds} |

## Data

{data.name}, from {data.source}; digest `{data.digest}`. Trained on {trained:,} images, the
search's training and validation images together; tested on {images:,} images that took no part in the search.

## Selection

The sweep `{stored.sweep}` tried {count:,} configurations{by} ({tried}) and
compared them by {objective} on {validation:,} validation images. This is trial {row[name]}
({objective} {objective_value:.4f}, MLflow run `{stored.run}`), trained again for the {row[best_epoch]:.0f} epochs at
which the trial was best. Its validation figure is the best of many and therefore optimistic; the test figure is not.

| setting | value |
| --- | --- |
{settings}

`config.yaml` is the whole configuration.

## Accuracy by class

| class | accuracy | 95% interval | test images |
| --- | --- | --- | --- |
{classes}

## Use

The input is pixels as they are in the data ({pixels}), the output is probabilities of the classes in `labels.json`;
scaling is part of the model.
{files}
The network knows no other classes: it assigns one of them to any other image too.
"""

FILES = """
Image files become pixels by `image_decoding.py`, with the settings `decoding` of `labels.json`, as those of the
training data did; this needs NumPy, Pillow and simplejpeg, not cnnsweep. Each of

    python example.py IMAGE.png
    python -m cnnsweep predict FOLDER IMAGE.png

prints the class.
"""
EXAMPLE = """# Needs keras and its backend, numpy, pillow and simplejpeg: python example.py IMAGE.png
import json, sys
from pathlib import Path
import keras, numpy as np
from image_decoding import Decoding, read

here = Path(__file__).parent
labels = json.loads((here / "labels.json").read_text(encoding="utf-8"))
model, decoding = keras.models.load_model(here / "model.keras"), Decoding.of(labels["decoding"])
for path in sys.argv[1:]:
    pixels = read(path, decoding).astype("float32") / (255 * labels["scale"])
    probabilities = model.predict(pixels[np.newaxis], verbose=0)[0]
    print(f"{path}: {labels['classes'][probabilities.argmax()]} {probabilities.max():.4f}")
"""


@dataclass(frozen=True)
class ModelCard:
    """An exported network: the trial it stems from, and its evaluation."""

    results: Results
    row: pd.Series
    """The trial, of the results' frame."""
    stored: StoredTrial
    data: Dataset
    measured: Sequence[Refit]
    """By seed; the model is the first seed's."""

    @property
    def accuracies(self) -> list[float]:
        """On the test set, by seed."""
        return [each["test_accuracy"] for each in self.measured]

    @property
    def images(self) -> int:
        """Of the test set."""
        return sum(self.measured[0]["images"])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the first seed's accuracy."""
        return wilson(self.accuracies[0], self.images)

    def text(self) -> str:
        """The card, in Markdown."""
        data, row, results, (low, high) = self.data, self.row, self.results, self.interval
        statuses, search = results.trials["status"].value_counts(), results.parent("params", "search")
        return TEXT.format(
            stored=self.stored,
            row=row,
            data=data,
            objective=results.objective.metric,
            objective_value=float(row[results.best_column]),
            accuracy=self.accuracies[0],
            low=low,
            high=high,
            size="×".join(map(str, data.input_shape)),
            seeds=len(self.measured),
            spread=spread(self.accuracies),
            images=self.images,
            parameters=self.measured[0]["parameters"],
            trained=len(data.x_train) + len(data.x_val),
            validation=len(data.x_val),
            count=len(results.trials),
            tried=", ".join(f"{count:,} {status}" for status, count in statuses.items()),
            adds="unknown" if pd.isna(row["mmacs"]) else f"{row['mmacs']:,.2f} million",
            by=f" by {search} search" if search else "",
            files=FILES if Decoding.plain(data.input_shape) else "",
            pixels="0 to 1" if data.scale == 1 else f"0 to {1 / data.scale:g}",
            settings="\n".join(f"| `{key}` | {value} |" for key, value in self.stored.values.items()),
            classes="\n".join(self._by_class()),
        )

    def _by_class(self) -> list[str]:
        first, lines = self.measured[0], []
        for name, right, images in zip(self.data.class_names, first["right"], first["images"], strict=True):
            if not images:
                lines.append(f"| {name} | – | – | 0 |")
                continue
            low, high = wilson(right / images, images)
            lines.append(f"| {name} | {right / images:.3f} | {low:.3f} to {high:.3f} | {images:,} |")
        return lines


def spread(accuracies: Sequence[float]) -> str:
    """Mean, standard deviation and range of several accuracies.

    >>> spread([0.9, 0.92]), spread([0.9])
    ('0.9100 ± 0.0141 (0.9000 to 0.9200)', '0.9000')
    """
    if len(accuracies) == 1:
        return f"{accuracies[0]:.4f}"
    mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
    return f"{mean:.4f} ± {deviation:.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})"

"""The model card of an exported network, and an example of its use."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cnnsweep.data.arrays import Dataset
from cnnsweep.export.examples import example_of
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.training.evaluate import Refit

TEXT = """# {stored.config.name}

A convolutional network that distinguishes {data.classes} classes of {data.noun}; one has the shape {size} ({axes}).

| | |
| --- | --- |
| test accuracy | **{accuracy:.4f}** (95% interval {low:.4f} to {high:.4f}, {images:,} {data.noun}) |
| over {seeds} seeds | {spread}; the model is the first seed's, not the best |
| parameters | {parameters:,} |
| multiply-adds of one input | {adds} |

## Data

{data.name}, from {data.source}; digest `{data.digest}`. Trained on {trained:,} {data.noun}, the
search's training and validation {data.noun} together; tested on {images:,} that took no part in the search.

## Selection

The sweep `{stored.sweep}` tried {count:,} configurations{by} ({tried}) and
compared them by {objective} on {validation:,} validation {data.noun}. This is trial {row[name]}
({objective} {objective_value:.4f}, MLflow run `{stored.run}`), trained again for the {row[best_epoch]:.0f} epochs at
which the trial was best. Its validation figure is the best of many and therefore optimistic; the test figure is not.

| setting | value |
| --- | --- |
{settings}

`config.yaml` is the whole configuration.

## Accuracy by class

| class | accuracy | 95% interval | test {data.noun} |
| --- | --- | --- | --- |
{classes}

## Use

The input is {values}, the output is probabilities of the classes in `labels.json`.
{files}
The network knows no other classes: it assigns one of them to anything else too.
"""

AXES = {
    "image": "height×width×channels",
    "signal": "steps×channels",
    "text": "words×vocabulary",
    "video": "frames×height×width×channels",
}
VALUES = {
    "image": "pixels as they are in the data ({}; scaling is part of the model)",
    "signal": "values as they are in the data, a waveform -1 to 1",
    "text": "numbers of words in `labels.json`'s vocabulary",
    "video": "pixels as they are in the data ({}; scaling is part of the model)",
}


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
            axes=AXES[data.kind],
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
            files=example.use if (example := example_of(data)) else "",
            values=VALUES[data.kind].format("0 to 1" if data.scale == 1 else f"0 to {1 / data.scale:g}"),
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

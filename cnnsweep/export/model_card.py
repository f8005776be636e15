"""The model card and the five lines of use that go with an exported network."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsweep.data.loading import Dataset
from cnnsweep.statistics import wilson


@dataclass(frozen=True)
class Facts:
    """What the card tells."""

    name: str
    sweep: str
    trial: str
    run: str
    config: Mapping[str, Any]
    values: Mapping[str, Any]
    data: Dataset
    epochs: int
    trials: Mapping[str, int]
    """How many, by status."""
    search: str
    objective: str
    objective_value: float
    accuracies: tuple[float, ...]
    """On the test set, by seed."""
    losses: tuple[float, ...]
    interval: tuple[float, float]
    right: tuple[int, ...]
    """Test images classified correctly by the first seed's model, by class."""
    images: tuple[int, ...]
    parameters: int
    mmacs: float | None


def spread(accuracies: Sequence[float]) -> str:
    """
    >>> spread([0.9, 0.92])
    '0.9100 ± 0.0141 (0.9000 to 0.9200)'
    >>> spread([0.9])
    '0.9000'
    """
    if len(accuracies) == 1:
        return f"{accuracies[0]:.4f}"
    mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
    return f"{mean:.4f} ± {deviation:.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})"


def text(facts: Facts) -> str:
    """The card, in Markdown."""
    data, (low, high) = facts.data, facts.interval
    size = "×".join(map(str, data.input_shape))
    count = sum(facts.trials.values())
    tried = ", ".join(f"{n:,} {status}" for status, n in facts.trials.items())
    adds = f"{facts.mmacs:,.2f} million" if facts.mmacs is not None else "unknown"
    trained = len(data.x_train) + len(data.x_val)
    by = f" by {facts.search} search" if facts.search else ""
    told = f"{facts.objective} {facts.objective_value:.4f}, MLflow run `{facts.run}`"
    pixels = "0 to 1" if data.scale == 1 else f"0 to {1 / data.scale:g}"
    settings = "\n".join(f"| `{key}` | {value} |" for key, value in facts.values.items())
    classes = "\n".join(_by_class(facts))
    return f"""# {facts.name}

A convolutional network that tells {data.classes} classes apart in images of {size} (height×width×channels).

| | |
| --- | --- |
| test accuracy | **{facts.accuracies[0]:.4f}** (95% interval {low:.4f} to {high:.4f}, {sum(facts.images):,} images) |
| over {len(facts.accuracies)} seeds | {spread(facts.accuracies)}; this is the first seed's, whatever the others gave |
| parameters | {facts.parameters:,} |
| multiply-adds of one image | {adds} |

## Data

{data.name}, from {data.source}; digest `{data.digest}`. Trained on {trained:,} images, the search's training and
validation images together; tested on {sum(facts.images):,} images that took no part in the search.

## How it was chosen

The sweep `{facts.sweep}` tried {count:,} configurations{by} ({tried}) and
compared them by {facts.objective} on {len(data.x_val):,} validation images. This is trial {facts.trial}
({told}), trained again for the {facts.epochs} epochs at which
the trial was best. Its validation figure is the best of many and therefore flatters it; the test figure does not.

| setting | value |
| --- | --- |
{settings}

`config.yaml` is the whole configuration.

## Accuracy by class

| class | accuracy | 95% interval | test images |
| --- | --- | --- | --- |
{classes}

## Use

Pixels go in as they are in the data ({pixels}), probabilities of the
classes in `labels.json` come out; scaling is part of the model. `example.py` shows it in five lines, and

    python -m cnnsweep predict FOLDER IMAGE.png

prints the classes. It knows nothing but these classes: any other image gets one of them as well.
"""


def example(facts: Facts) -> str:
    """Five lines that load the model and classify `image.png`."""
    height, width, channels = facts.data.input_shape
    mode, more = ("L", "[None, ..., None]") if channels == 1 else ("RGB", "[None]")
    factor = 1 / (255 * facts.data.scale)
    scaled = "" if abs(factor - 1) < 1e-9 else f" * {factor:.10g}"
    return f"""import json, keras, numpy as np
from PIL import Image
model, labels = keras.models.load_model("model.keras"), json.load(open("labels.json", encoding="utf-8"))["classes"]
image = np.asarray(Image.open("image.png").convert("{mode}").resize(({width}, {height})), "float32"){more}{scaled}
print(labels[int(model.predict(image, verbose=0).argmax())])
"""


def _by_class(facts: Facts) -> list[str]:
    lines = []
    for name, right, images in zip(facts.data.class_names, facts.right, facts.images, strict=True):
        if not images:
            lines.append(f"| {name} | – | – | 0 |")
            continue
        low, high = wilson(right / images, images)
        lines.append(f"| {name} | {right / images:.3f} | {low:.3f} to {high:.3f} | {images:,} |")
    return lines

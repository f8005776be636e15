"""The model card of an exported network, and an example of its use."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.audio_decoding import AudioDecoding
from cnnsweep.export.examples import example_of
from cnnsweep.formatting import counted, escaped, listed, markdown_table, score, shape
from cnnsweep.statistics import wilson
from cnnsweep.tracking.frames import Results
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.training.evaluate import Refit

TEXT = """# {stored.config.name}

{title} that {does} {data.noun} {size}.

| | |
| --- | --- |
| test {metric} | **{value}** ({interval}{images:,} {data.noun}) |
| over {seeds} | {spread}; the model is the first seed's, not the best |
| parameters | {parameters:,} |
| multiply-adds of one input | {adds} |

## Data

{name}, from {source}; digest `{data.digest}`. Trained on {trained:,} {data.noun}, {together};
tested on {images:,} that took no part in the search.

## Selection

The sweep `{stored.sweep}` tried {count}{by} ({tried}) and
compared them by {objectives} on {validation}. This is trial {row[name]}
({objective} {objective_value}, MLflow run `{stored.run}`), trained again for {epochs}, at
which the trial was best. Its validation figure is the best of many and therefore optimistic; the test figure is not.

{settings}

`config.yaml` is the whole configuration.

## {by_what}

{breakdown}

## Use

The input is {values}{shape};
the output is {output}.
{call}{files}
{warning}
"""
CALL = """
    import mlflow.pyfunc, numpy as np
    network = mlflow.pyfunc.load_model("mlflow_model")  # or keras.models.load_model("model.keras")
    network.predict(np.zeros((1, {sizes}), "float32"))
"""
TEXT_CALL = """
    import mlflow.pyfunc
    network = mlflow.pyfunc.load_model("mlflow_model")
    network.predict(["A text."])
"""

OWN = """
It has layers of its own ({own}): import the module that registers them before you load it. `python -m cnnsweep predict`
and `mlflow models serve` import no such module.
"""

AXES = {
    "image": "height×width×channels",
    "signal": "steps×channels",
    "video": "frames×height×width×channels",
}
VALUES = {
    "image": "pixels as they are in the data ({}; scaling is part of the model)",
    "signal": "values as they are in the data",
    "text": "texts for MLflow, and for Keras the numbers of their words in the vocabulary of `labels.json`",
    "video": "pixels as they are in the data ({}; scaling is part of the model)",
    "multi_input": "a mapping of arrays by the names above, values as they are in the data",
}


class Words(NamedTuple):
    """The sentences of a task."""

    does: str
    by_what: str
    output: str
    warning: str = ""
    prints: str = "the class"


WORDS: Mapping[Task, Words] = {
    "classification": Words(
        "distinguishes {count} classes in",
        "Accuracy by class",
        "probabilities of the classes in `labels.json`",
        "The network knows no other classes: it assigns one of them to any other input too.",
    ),
    "multi_label": Words(
        "finds which of {count} labels belong to",
        "Labels, at a threshold of 0.5",
        "a probability for each of the labels in `labels.json`, each by itself",
        "The network knows no other labels.",
        "the labels",
    ),
    "regression": Words(
        "estimates {names} from",
        "Errors",
        "the values of the targets in `labels.json`, in the units of the training data",
        "Outside the range of the training data the values mean nothing.",
        "the values",
    ),
    "segmentation": Words(
        "assigns one of {count} classes to each pixel of",
        "Overlap by class",
        "probabilities of the classes in `labels.json` for each pixel (height, width, classes)",
        "The network knows no other classes.",
        "the share of each class in the image; `predict --masks FOLDER` writes the masks",
    ),
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
    own: Sequence[str] = ()
    """Its layers of the user's own."""

    @property
    def metric(self) -> str:
        """The metric that stands for the network, without `test_`."""
        return self.results.objective.tested([*self.measured[0]["metrics"]]).removeprefix("test_")

    @property
    def values(self) -> list[float]:
        """The metric on the test set, by seed."""
        return [each["metrics"][f"test_{self.metric}"] for each in self.measured]

    @property
    def images(self) -> int:
        """Of the test set."""
        return self.measured[0]["images"]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the first seed's accuracy; None for a metric that is no share of images."""
        is_share = self.metric == "accuracy" and self.data.task == "classification"
        return wilson(self.values[0], self.images) if is_share else None

    def interval_text(self, form: str) -> str:
        """The interval by a form such as "95%: {} to {}"; empty where there is none."""
        return form.format(*map(score, self.interval)) if self.interval else ""

    def text(self) -> str:
        """The card, in Markdown."""
        data, row, results, words = self.data, self.row, self.results, WORDS[self.data.task]
        statuses, search = results.trials["status"].value_counts(), results.parent("params", "search")
        folds = max(data.folds) if data.folds else 0
        return TEXT.format(
            stored=self.stored,
            row=row,
            data=data,
            name=escaped(data.name),
            source=escaped(data.source),
            objective=results.objective.metric,
            objectives=" and ".join(o.metric for o in results.objective.all),
            objective_value=score(float(row[results.best_column])),
            title=(kind := self.stored.config.model.title)[0].upper() + kind[1:],
            does=words.does.format(count=data.classes, names=escaped(listed(data.class_names))),
            metric=self.metric.replace("_", " "),
            value=score(self.values[0]),
            interval=self.interval_text("95% interval {} to {}, "),
            size=_size(data),
            seeds=counted(len(self.measured), "seed"),
            epochs=counted(int(row["best_epoch"]), "epoch"),
            spread=spread(self.values),
            images=self.images,
            parameters=self.measured[0]["parameters"],
            trained=len(data.x_train) + (0 if data.folds else len(data.x_val)),
            together=f"those of all {folds} folds" if folds else f"the search's training and validation {data.noun}",
            validation=f"each of {folds} folds in turn" if folds else f"{len(data.x_val):,} validation {data.noun}",
            count=counted(len(results.trials), "configuration"),
            tried=", ".join(f"{count:,} {status}" for status, count in statuses.items()),
            adds="unknown" if pd.isna(row["mmacs"]) else f"{row['mmacs']:,.2f} million",
            by=f" by {search} search" if search else "",
            files=self._files(words.prints),
            **_input(data),
            settings=markdown_table(["setting", "value"], [(f"`{k}`", str(v)) for k, v in self.stored.values.items()]),
            by_what=words.by_what,
            breakdown=markdown_table(**self.measured[0]["breakdown"]),
            output=words.output,
            warning=words.warning,
        )

    def _files(self, prints: str) -> str:
        """The use with files."""
        example = example_of(self.data)
        if self.own:
            return OWN.format(own=listed(self.own))
        return example.use(prints) if example else ""


def _size(data: Dataset) -> str:
    """The size of an input."""
    if data.kind == "text":
        length, words = data.input_shape
        return f"of {length} words, of a vocabulary of {words:,}"
    if data.kind == "multi_input":
        return f"of the shapes {data.input_shape}"
    return f"of the shape {shape(data.input_shape)} ({AXES[data.kind]})"


def _input(data: Dataset) -> dict[str, str]:
    """The model's input, its shape, and a call with it; those of several inputs are given by name."""
    values = VALUES[data.kind].format("0 to 1" if data.scale == 1 else f"0 to {1 / data.scale:g}")
    if data.kind == "multi_input":
        return {"values": values, "shape": "", "call": ""}
    if isinstance(data.decoding, AudioDecoding):
        values = "waveforms, -1 to 1"
    dtype, call = ("int32", TEXT_CALL) if data.kind == "text" else ("float32", CALL)
    sizes = ", ".join(map(str, data.x_train.shape[1:]))
    return {
        "values": values,
        "shape": f", {dtype} of the shape ({data.noun}, {sizes})",
        "call": call.format(sizes=sizes),
    }


def spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and range of several values.

    >>> spread([0.9, 0.92]), spread([0.9])
    ('0.9100 ± 0.0141 (0.9000 to 0.9200)', '0.9000')
    """
    if len(values) == 1:
        return score(values[0])
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"{score(mean)} ± {score(deviation)} ({score(min(values))} to {score(max(values))})"

"""Texts with a class each, from any source, as the inputs of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from cnnsweep.config.schema import DataConfig
from cnnsweep.config.validation import Float, Int
from cnnsweep.data.arrays import Arrays, refuse
from cnnsweep.data.duplicates import fingerprint
from cnnsweep.data.vocabulary import Corpus
from cnnsweep.errors import nearest


class TextConfig(DataConfig):
    """Keys of every source of texts; `test` is the share of a test set that is not there."""

    test: Float = Field(gt=0, lt=1)
    words: Int | None = Field(ge=1)
    length: Int | None = Field(ge=1)


class TextFilesConfig(TextConfig):
    """Keys of texts in files."""

    encoding: str
    skip_bad: bool


@dataclass(frozen=True)
class LabelledText:
    """A text, its class and its place in a file, for messages."""

    text: str
    label: str
    place: str


def text_arrays(
    splits: Mapping[str, Sequence[LabelledText]], config: TextConfig, source: str, files: Mapping[str, str]
) -> Arrays:
    """Put the texts of each split together; `files` are the splits' places.

    Raises UserError where there are fewer than two classes, and for labels that no training text has.
    """
    names = _class_names({row.label for row in splits["train"]})
    if len(names) < 2:
        refuse([f"{files['train']}: {len(names)} class{f' ({names[0]})' if names else 'es'}, at least 2 are needed"])
    unknown = [row for rows in splits.values() for row in rows if row.label not in names]
    if unknown:
        refuse(
            [f"{row.place}: no training text is of class '{row.label}'{nearest(row.label, names)}" for row in unknown]
        )
    numbers = {name: number for number, name in enumerate(names)}
    encoding = config.encoding if isinstance(config, TextFilesConfig) else "utf-8"
    corpus = Corpus.of([row.text for rows in splits.values() for row in rows], config.words, config.length, encoding)
    prints = np.array([fingerprint(np.array(words)) for words in corpus.texts], np.uint64)
    x, y, first = {}, {}, 0
    for split, rows in splits.items():
        x[split] = corpus.places(first, len(rows))
        y[split] = np.array([numbers[row.label] for row in rows], np.int32)
        first += len(rows)
    return Arrays.of_splits(
        x,
        y,
        class_names=names,
        source=source,
        scale=1.0,
        name=Path(source).stem,
        files={f"{a}_{split}": place for split, place in files.items() for a in "xy"},
        kind="text",
        corpus=corpus,
        names={split: [row.place for row in rows] for split, rows in splits.items()},
        prints={split: prints[places[:, 0]] for split, places in x.items()},
    )


def skipped(faults: Sequence[str], noun: str) -> str:
    """A remark on what was skipped, for the source's name."""
    return f" ({len(faults):,} unusable {noun} skipped)" if faults else ""


def _class_names(labels: set[str]) -> tuple[str, ...]:
    """Numbers in their order, other names, and 01 before 1, by alphabet."""
    return tuple(sorted(sorted(labels), key=int if all(label.isdecimal() for label in labels) else str))

"""Film reviews of one sentence, made by a small grammar: praise or criticism, often said by negation.

A word alone does not tell which: "never dull" is praise, "dull" is not.
"""

from __future__ import annotations

import random
from dataclasses import replace

from cnnsweep.config.components import configured_by
from cnnsweep.data.arrays import Arrays
from cnnsweep.data.texts import LabelledText, TextConfig, text_arrays

TEXTS, TEST_TEXTS = 2400, 600
GOOD = ("brilliant", "moving", "funny", "clever", "gripping", "warm", "fresh", "elegant", "tender", "witty")
BAD = ("dull", "clumsy", "boring", "flat", "tired", "shallow", "noisy", "lifeless", "predictable", "tedious")
NOUNS = ("plot", "film", "story", "acting", "script", "music", "ending", "camera work", "dialogue", "first hour")
OPENINGS = ("", "", "to be honest, ", "i must say that ", "for me ", "in the end ", "as so often ")
DEGREES = ("", "", "very ", "quite ", "really ", "rather ")
NEGATIONS = ("not", "never", "hardly")


class MadeTextsConfig(TextConfig):
    """No key of its own."""


@configured_by(MadeTextsConfig)
def load(config: MadeTextsConfig) -> Arrays:
    """The same texts each time, no two alike: 2,400 for training and 600 for the test, half of them praise."""
    rng = random.Random(0)
    found: dict[str, LabelledText] = {}
    while len(found) < TEXTS + TEST_TEXTS:
        review = _review(rng, praise=len(found) % 2 == 0)
        found.setdefault(review.text, review)
    texts, source = list(found.values()), "a grammar in cnnsweep"
    arrays = text_arrays({"train": texts[:TEXTS], "test": texts[TEXTS:]}, config, source, {})
    return replace(arrays, name=None)


def _review(rng: random.Random, praise: bool) -> LabelledText:
    clauses = " and ".join(_clause(rng, praise) for _ in range(rng.randint(1, 2)))
    return LabelledText(f"{rng.choice(OPENINGS)}{clauses}.", "praise" if praise else "criticism", "made")


def _clause(rng: random.Random, praise: bool) -> str:
    negated = rng.random() < 0.5
    word = rng.choice(GOOD if praise != negated else BAD)
    negation = f"{rng.choice(NEGATIONS)} " if negated else ""
    return f"the {rng.choice(NOUNS)} was {negation}{rng.choice(DEGREES)}{word}"

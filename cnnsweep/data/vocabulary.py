"""The vocabulary of texts, taken from the training part alone once the data are split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnsweep.data.storage import Array
from cnnsweep.data.text_decoding import SPECIAL, UNKNOWN, TextDecoding, padded, split_words

COVERED = 0.99
"""The share of the training texts that are not cut, where the length is not set."""
LONGEST = 512
"""Words of a text at most, where the length is not set."""


@dataclass(frozen=True)
class Corpus:
    """Texts, split into words, of all splits of a data set: a text is the number of its place here."""

    texts: Sequence[Sequence[str]]
    words: int | None
    """The vocabulary has so many words at most, the most frequent ones; None: all."""
    length: int | None
    """Words of a text; None: enough for `COVERED` of the training texts."""
    encoding: str
    """Of files."""

    @staticmethod
    def of(texts: Sequence[str], words: int | None, length: int | None, encoding: str) -> Corpus:
        """Split texts into words."""
        return Corpus([split_words(text) for text in texts], words, length, encoding)

    def places(self, first: int, count: int) -> Array:
        """`count` texts from `first` on, as a data source returns them: int32 (texts, 1)."""
        return np.arange(first, first + count, dtype=np.int32)[:, None]

    def fit(self, train: Array) -> TextDecoding:
        """The vocabulary of the training texts, by frequency, then by alphabet, and their length."""
        texts = [self.texts[place] for place in train[:, 0]]
        found = sorted(Counter(word for text in texts for word in text).items(), key=lambda item: (-item[1], item[0]))
        kept = found if self.words is None else found[: self.words]
        lengths = sorted(map(len, texts))
        covering = min(LONGEST, lengths[math.ceil(COVERED * len(lengths)) - 1])
        words = (*SPECIAL, *(word for word, _ in kept))
        return TextDecoding(words, self.length or max(1, covering), self.encoding)

    def convert(self, places: Array, decoding: TextDecoding) -> Array:
        """The numbers of the words of texts: int32 (texts, length)."""
        return np.stack([_numbers(self.texts[place], decoding.numbers, decoding.length) for place in places[:, 0]])


def _numbers(words: Sequence[str], numbers: Mapping[str, int], length: int) -> Array:
    return padded([numbers.get(word, UNKNOWN) for word in words[:length]], length)

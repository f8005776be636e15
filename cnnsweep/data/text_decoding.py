"""Texts as numbers of words, for training and for an exported model alike: needs NumPy alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

PADDING, UNKNOWN = 0, 1
SPECIAL = ("", "[unknown]")
"""The first two words: the padding before a short text, and any word that the vocabulary does not have."""


def split_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks.

    >>> split_words("It's GOOD, really!")
    ["it's", 'good', ',', 'really', '!']
    """
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]", text.lower())


@dataclass(frozen=True)
class TextDecoding:
    """A vocabulary and a length: how a text becomes numbers."""

    words: Sequence[str] = field(repr=False)
    """From number 0 on; the first two are `SPECIAL`."""
    length: int
    """Longer texts are cut at their end, shorter ones padded at their start."""

    @staticmethod
    def of(stored: Mapping[str, Any]) -> TextDecoding:
        """The decoding that is stored as plain values. Raises KeyError or TypeError for others."""
        return TextDecoding(tuple(map(str, stored["words"])), int(stored["length"]))

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def decode(self, text: str) -> np.ndarray:
        """The numbers of a text's words: int32 (length,)."""
        found = [self.numbers.get(word, UNKNOWN) for word in split_words(text)]
        return padded(found, self.length)

    def read(self, numbers: Sequence[int]) -> list[str]:
        """The words of a text that was decoded, without padding."""
        return [self.words[number] for number in numbers if number != PADDING]


def padded(numbers: Sequence[int], length: int) -> np.ndarray:
    """Numbers cut at their end or padded at their start: int32 (length,).

    >>> padded([5, 6, 7], 2).tolist(), padded([5], 3).tolist()
    ([5, 6], [0, 0, 5])
    """
    found = np.zeros(length, np.int32)
    if kept := list(numbers[:length]):
        found[-len(kept) :] = kept
    return found

"""Texts as numbers of words, for training and for an exported model alike: needs NumPy alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

PADDING, UNKNOWN = 0, 1
SPECIAL = ("", "[unknown]")
"""The first two words: the padding before a short text, and any word that the vocabulary does not have."""


def split_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks, in Unicode's composed form; accents and vowel signs belong to their word.

    >>> split_words("It's GOOD, really!"), split_words("हिन्दी")
    (["it's", 'good', ',', 'really', '!'], ['हिन्दी'])
    """
    return _word().findall(unicodedata.normalize("NFC", text.lower().replace("\xad", "")))


def fault_of(text: str) -> str | None:
    """Why a text has nothing to learn from; None where it has a word or a punctuation mark."""
    return None if _word().search(text) else "has no words" if text.strip() else "is empty"


@cache
def _word() -> re.Pattern[str]:
    r"""What a word or a punctuation mark is.

    Combining marks, which `\w` does not match, count within words, and so do the joiners of Persian and Hindi.
    """
    blocks = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # nothing before, between and behind has such marks
    marks = "".join(letter for block in blocks for letter in map(chr, block) if unicodedata.category(letter)[0] == "M")
    word = rf"[^\W_]+(?:(?=[^\0-\u02ff])[\u200c\u200d{marks}]+[^\W_]*)*"  # looked up beyond Latin letters alone: faster
    unseen = "\xad\u200b\u200e\u200f\u2060\ufeff"  # hyphens and spaces without a width, marks of direction and of UTF-8
    return re.compile(rf"{word}(?:['’]{word})*|[^\w\s{unseen}]")


@dataclass(frozen=True)
class TextDecoding:
    """A vocabulary and a length: how a text becomes numbers."""

    words: Sequence[str] = field(repr=False)
    """From number 0 on; the first two are `SPECIAL`."""
    length: int
    """Longer texts are cut at their end, shorter ones padded at their start."""
    encoding: str = "utf-8"
    """Of files."""

    @staticmethod
    def of(stored: Mapping[str, Any]) -> TextDecoding:
        """The decoding that is stored as plain values. Raises KeyError or TypeError for others."""
        words, length = tuple(map(str, stored["words"])), int(stored["length"])
        return TextDecoding(words, length, str(stored.get("encoding", TextDecoding.encoding)))

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

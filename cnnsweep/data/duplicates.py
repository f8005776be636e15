"""Images of the same content in two splits: found by fingerprints, named, refused or removed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnsweep.errors import UserError

Prints = Mapping[str, NDArray[np.uint64]]
ORDER = ("train", "val", "test")
"""Of two splits with the same image the first loses it."""
NOUNS = {"train": "training", "val": "validation", "test": "test"}
NAMED = 3


def fingerprint(image: NDArray[np.generic]) -> int:
    """64 bits of an image's content."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest(), "big")


def fingerprints(images: NDArray[np.generic]) -> NDArray[np.uint64]:
    """The fingerprint of each image, uint64."""
    return np.array([fingerprint(image) for image in images], np.uint64)


def find_shared(prints: Prints) -> dict[tuple[str, str], NDArray[np.intp]]:
    """For two splits with images in common the places of these in the first."""
    found = {}
    for first, second in (("val", "test"), ("train", "test"), ("train", "val")):
        if first not in prints or second not in prints:
            continue
        places = np.flatnonzero(np.isin(prints[first], prints[second]))
        if len(places):
            found[first, second] = places
    return found


def describe_shared(prints: Prints, names: Mapping[str, Sequence[str]], noun: str = "image") -> list[str]:
    """A line for each pair of splits with images in common, and the names of the first of these."""
    return [_line(prints, names, pair, places, noun) for pair, places in find_shared(prints).items()]


def _line(
    prints: Prints, names: Mapping[str, Sequence[str]], pair: tuple[str, str], places: NDArray[np.intp], noun: str
) -> str:
    first, second = pair
    examples = []
    for place in places[:NAMED]:
        other = int(np.flatnonzero(prints[second] == prints[first][place])[0])
        examples.append(f"{_name(names, first, int(place))} = {_name(names, second, other)}")
    more = " …" if len(places) > NAMED else ""
    count = f"{len(places):,} {NOUNS[first]} {noun}{'s are' if len(places) > 1 else ' is'}"
    return f"{count} in the {NOUNS[second]} data too ({', '.join(examples)}{more})"


def _name(names: Mapping[str, Sequence[str]], split: str, place: int) -> str:
    return names[split][place] if names.get(split) else f"{split}[{place}]"


def kept(
    prints: Prints, names: Mapping[str, Sequence[str]], setting: str, noun: str = "image"
) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Which images of each split are used by `data.duplicates`, and notes for a person; `noun` is what they are called.

    Raises `UserError` where images in two splits are to be refused, and where a split would lose all its images.
    """
    masks = {split: np.ones(len(found), bool) for split, found in prints.items()}
    lines = describe_shared(prints, names, noun)
    if not lines:
        return masks, []
    if setting == "refuse":
        listed = "".join(f"\n  {line}" for line in lines)
        raise UserError(f"data.duplicates=refuse: the splits have {noun}s in common:{listed}\n"
                        "  data.duplicates=remove leaves them out of the first")  # fmt: skip
    if setting == "report":
        return masks, [f"{line}: data.duplicates=remove leaves these out" for line in lines]
    for (first, _), places in find_shared(prints).items():
        masks[first][places] = False
    for split, mask in masks.items():
        if not mask.any():
            raise UserError(f"data.duplicates=remove: no {NOUNS[split]} {noun} is left, all are in another split too")
    return masks, [f"{line}: these are removed" for line in lines]


def kept_once(
    prints: NDArray[np.uint64], groups: NDArray[np.generic] | None, setting: str, noun: str = "image"
) -> tuple[NDArray[np.bool_], list[str]]:
    """The same for images that are to be divided into folds: copies of one, unless a group keeps them together.

    Raises UserError where there are some, and they are to be refused.
    """
    _, first, which = np.unique(prints, return_index=True, return_inverse=True)
    original, place = first[which], np.arange(len(prints))
    copies = original != place if groups is None else groups[original] != groups
    mask, count = np.ones(len(prints), bool), int(copies.sum())
    if not count:
        return mask, []
    some = (
        f"{count:,} training {noun}{'s are copies' if count > 1 else ' is a copy'} of others, which may be in two folds"
    )
    if setting == "refuse":
        raise UserError(f"data.duplicates=refuse: {some}; data.duplicates=remove leaves the copies out")
    if setting == "report":
        return mask, [f"{some}: data.duplicates=remove leaves these out"]
    return ~copies, [f"{some}: these are removed"]


def describe_contradictions(
    prints: Prints, classes: Mapping[str, NDArray[np.integer]], names: Mapping[str, Sequence[str]], noun: str = "image"
) -> list[str]:
    """A line where images of the same content, in any split, are of different classes, and the names of the first."""
    places = [(split, place) for split, found in prints.items() for place in range(len(found))]
    contents, which = np.unique(np.concatenate([*prints.values()]), return_inverse=True)
    of = np.concatenate([classes[split] for split in prints])
    lowest, highest = np.full(len(contents), of.max()), np.zeros(len(contents), of.dtype)
    np.minimum.at(lowest, which, of)
    np.maximum.at(highest, which, of)
    several = np.flatnonzero(lowest < highest)
    if not len(several):
        return []
    examples = []
    for content in several[:NAMED]:
        pair = [np.flatnonzero((which == content) & (of == end[content]))[0] for end in (lowest, highest)]
        examples.append(" = ".join(_name(names, *places[index]) for index in pair))
    more = " …" if len(several) > NAMED else ""
    count = f"{len(several):,} {noun}{'s have' if len(several) > 1 else ' has'}"
    return [f"{count} copies of another class ({', '.join(examples)}{more}), which no network can tell apart"]

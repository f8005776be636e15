"""Groups of images that stay in one split: those of a patient, a speaker or a video."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnsweep.errors import UserError

Groups = Mapping[str, NDArray[np.generic]]
NAMED = 5


def find_groups(pattern: str | None, names: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.generic]]:
    """The group of each image by split: what the pattern's parentheses match in its name, or else all it matches.

    Raises `UserError` for a pattern that is none, and for names that it does not match.
    """
    if pattern is None:
        return {}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.group: '{pattern}' is no regular expression: {error}") from error
    found, strange = {}, []
    for split, each in names.items():
        matches = [compiled.search(name) for name in each]
        strange += [name for name, match in zip(each, matches, strict=True) if match is None]
        found[split] = np.array(["\0".join(m.groups(default="") or (m[0],)) for m in matches if m], dtype=str)
    if strange:
        some = ", ".join(strange[:NAMED]) + (" …" if len(strange) > NAMED else "")
        raise UserError(f"data.group: '{pattern}' is not found in {len(strange):,} names: {some}")
    return found


def expect_apart(groups: Groups) -> None:
    """Raise `UserError` where a group is in two splits that the data has itself."""
    splits = [*groups]
    for index, first in enumerate(splits):
        for second in splits[index + 1 :]:
            if len(shared := np.intersect1d(groups[first], groups[second])):
                some = ", ".join(map(str, shared[:NAMED])) + (" …" if len(shared) > NAMED else "")
                raise UserError(f"data.group: {len(shared):,} groups are in {first} and in {second}: {some}")


def choose_groups(
    labels: NDArray[np.int32],
    names: Sequence[str],
    groups: NDArray[np.generic],
    share: float,
    seed: int,
    purpose: str,
) -> NDArray[np.bool_]:
    """A mask over images, true for whole groups with about this share of the images, the classes in proportion.

    Raises `UserError` where a split would be empty, or a class, which has its name in `names`, not in the rest.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count = len(np.unique(groups))
    parts = min(max(2, round(1 / share)), count)
    if count < 2:
        images = f"all {len(labels):,} images that could be held out"
        raise UserError(f"data.group: {images} are of one group ({groups[0]}): none remains for {purpose}")
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has few images
        divided = [held_out for _, held_out in splitter.split(labels, labels, groups)]
    possible = [held_out for held_out in divided if 0 < len(held_out) < len(labels)]
    if not possible:
        raise UserError(f"data.group: {count} groups cannot be divided, one of them holds nearly all images")
    for held_out in possible:
        mask = np.zeros(len(labels), bool)
        mask[held_out] = True
        lost = np.setdiff1d(labels, labels[~mask])
        if not len(lost):
            return mask
    raise UserError(f"data.group: all images of class {names[lost[0]]} are of groups that are held out for {purpose}")


def assign_folds(
    labels: NDArray[np.int32], names: Sequence[str], folds: int, seed: int, groups: NDArray[np.generic] | None
) -> NDArray[np.int32]:
    """The fold of each image, from 1: the classes in proportion, and groups whole where there are any.

    Raises `UserError` where a fold would be empty or have no image of a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    key = f"data.folds={folds}"
    if len(labels) < folds:
        raise UserError(f"{key}: {len(labels)} images for training are not enough: a fold would have none")
    for label, count in enumerate(np.bincount(labels)):
        if 0 < count < folds:
            images = f"{count} image{'s' if count > 1 else ''}"
            raise UserError(f"{key}: class {names[label]} has {images} for training, so that a fold would have none")
    if groups is not None and len(np.unique(groups)) < folds:
        raise UserError(f"{key}: {len(np.unique(groups))} groups are not enough: a fold would have no image")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed % 2**32)
    found = np.zeros(len(labels), np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has few images
        for number, (_, held_out) in enumerate(splitter.split(labels, labels, groups), start=1):
            found[held_out] = number
    for number in range(1, folds + 1):
        if not np.any(found == number):
            raise UserError(f"{key}: fold {number} has no image: groups are of too different sizes; take fewer folds")
        lost = np.setdiff1d(labels, labels[found == number])
        if len(lost):
            raise UserError(f"{key}: fold {number} has no image of class {names[lost[0]]}; take fewer folds")
    return found

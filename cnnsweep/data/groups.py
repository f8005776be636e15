"""Groups of images that stay in one split: those of a patient, a speaker or a video."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnsweep.data.labels import Labels
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
    labels: Labels, groups: NDArray[np.generic], share: float, seed: int, purpose: str
) -> NDArray[np.bool_]:
    """A mask over images, true for whole groups with about this share of the images, the classes in proportion.

    Raises `UserError` where a split would be empty, or a class not in the rest.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count, images = len(np.unique(groups)), len(groups)
    parts = min(max(2, round(1 / share)), count)
    if count < 2:
        whole = f"all {images:,} images that could be held out"
        raise UserError(f"data.group: {whole} are of one group ({groups[0]}): none remains for {purpose}")
    strata = labels.strata
    if np.bincount(strata).max() < parts:  # which the splitter refuses
        strata = np.zeros_like(strata)
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has few images
        divided = [held_out for _, held_out in splitter.split(strata, strata, groups)]
    possible = [held_out for held_out in divided if 0 < len(held_out) < images]
    if not possible:
        raise UserError(f"data.group: {count} groups cannot be divided, one of them holds nearly all images")
    for held_out in possible:
        mask = np.zeros(images, bool)
        mask[held_out] = True
        if not (lost := labels.lost(~mask)):
            return mask
    raise UserError(f"data.group: all images of class {lost} are of groups that are held out for {purpose}")


def assign_folds(labels: Labels, folds: int, seed: int, groups: NDArray[np.generic] | None) -> NDArray[np.int32]:
    """The fold of each image, from 1: the classes in proportion, and groups whole where there are any.

    Raises `UserError` where a fold would be empty or have no image of a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    key = f"data.folds={folds}"
    if len(labels.y) < folds:
        raise UserError(f"{key}: {len(labels.y)} images for training are not enough: a fold would have none")
    for label, count in enumerate(labels.counts):
        if 0 < count < folds:
            images = f"{count} image{'s' if count > 1 else ''}"
            raise UserError(
                f"{key}: class {labels.names[label]} has {images} for training, so that a fold would have none"
            )
    if groups is not None and len(np.unique(groups)) < folds:
        raise UserError(f"{key}: {len(np.unique(groups))} groups are not enough: a fold would have no image")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(folds, shuffle=True, random_state=seed % 2**32)
    strata = labels.strata
    found = np.zeros(len(strata), np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has few images
        for number, (_, held_out) in enumerate(splitter.split(strata, strata, groups), start=1):
            found[held_out] = number
    for number in range(1, folds + 1):
        if not np.any(found == number):
            raise UserError(f"{key}: fold {number} has no image: groups are of too different sizes; take fewer folds")
        if lost := labels.lost(found == number):
            raise UserError(f"{key}: fold {number} has no image of class {lost}; take fewer folds")
    return found

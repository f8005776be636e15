"""Images and labels: loaded once by the driver, checked, split, and mapped into memory by every worker.

A loader is any function from the composed `data` config to `Arrays`, named by `_target_`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnsweep.data.arrays import Array, Arrays, Dataset, refuse
from cnnsweep.data.checks import count_classes, find_faults, find_scale
from cnnsweep.data.mapped import is_whole_file, take
from cnnsweep.data.split import choose, shares
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError, nearest

__all__ = ["Arrays", "Dataset", "load", "open_saved", "save"]

LIMIT, VALIDATION, TEST = 1, 2, 3
"""Random streams: which images are used at all, which are for validation, and which for the one test."""


def load(config: Mapping[str, Any], seed: int) -> Dataset:
    """Load, check, limit and split the data that the composed `data` config names.

    The validation set is a stratified share of the training set, chosen by `seed`, where the data has none of its own;
    so is the test set of data that comes without one.
    Raises one UserError that lists every fault with its file.
    """
    _check_options(config, seed)
    loader = _resolve(config)
    try:
        arrays = loader(config)
    except OSError as error:
        raise UserError(f"data cannot be read: {error}") from error
    except UserError:
        raise
    except Exception as error:  # a loader of the user's own: --debug shows its traceback
        raise UserError(f"data._target_ '{config['_target_']}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(arrays, Arrays):
        raise UserError(f"data._target_ '{config['_target_']}' returned {type(arrays).__name__}, expected Arrays")
    if faults := find_faults(arrays):
        refuse(faults)
    return _build(arrays, config, seed)


def _check_options(config: Mapping[str, Any], seed: int) -> None:
    limit = config["limit"]
    _share(config["validation"], "validation")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError(f"data.limit is {limit!r}, expected a number of images or null")
    if seed < 0:
        raise UserError(f"seed is {seed}, expected 0 or more")


def _resolve(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that `_target_` names, "package.module.function"."""
    target = str(config["_target_"])
    module_name, _, name = target.rpartition(".")
    if not module_name or target.startswith("."):
        raise UserError(f"data._target_ '{target}' is no path to a function, expected package.module.function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"data._target_ '{target}': cannot import '{module_name}': {error}") from error
    loader = getattr(module, name, None)
    if loader is None:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"data._target_ '{target}': '{module_name}' has no '{name}'{nearest(name, public)}")
    if not callable(loader):
        raise UserError(f"data._target_ '{target}' is a {type(loader).__name__}, expected a function")
    return loader


def _build(arrays: Arrays, config: Mapping[str, Any], seed: int) -> Dataset:
    names = arrays.class_names or tuple(str(label) for label in range(count_classes(arrays)))
    y, rows = _labels(arrays.y_train), np.arange(len(arrays.y_train))
    if config["limit"] is not None and config["limit"] < len(y):
        rows = rows[_limited(arrays, y, config["limit"], seed)]
    parts = {}
    for split, key, stream in (("test", "test", TEST), ("val", "validation", VALIDATION)):
        if split not in arrays.splits:
            held = _held_out(arrays, y[rows], names, _share(config.get(key), key), seed, stream)
            parts[split], rows = rows[held], rows[~held]
    splits = {}
    for split in ("train", "val", "test"):
        whole, chosen = split in arrays.splits and split != "train", parts.get(split, rows)
        x_all, y_all = (getattr(arrays, f"{a}_{split if whole else 'train'}") for a in "xy")
        splits[f"x_{split}"] = _images(x_all if whole else take(x_all, chosen))
        splits[f"y_{split}"] = _labels(y_all if whole else y_all[chosen])
    return Dataset(
        name=arrays.name or _name(str(config["_target_"])),
        **splits,
        class_names=tuple(names),
        source=arrays.source,
        digest=_digest(splits) if arrays.digest is None else _short_digest(arrays.digest, rows, parts),
        scale=find_scale(arrays),
    )


def _share(share: Any, key: str) -> float:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise UserError(f"data.{key} is {share!r}, expected a share of the training set between 0 and 1")
    return float(share)


def _limited(arrays: Arrays, y: Array, limit: int, seed: int) -> Array:
    taken = shares(np.bincount(y), limit)
    if taken.sum() > limit:
        needed = f"at least {taken.sum()} images are needed"
        refuse([f"{arrays.where('y_train')}: data.limit={limit} leaves a class out, {needed}"])
    return choose(y, taken, seed, LIMIT)


def _held_out(arrays: Arrays, y: Array, names: tuple[str, ...], share: float, seed: int, stream: int) -> Array:
    counts = np.bincount(y)
    if single := [names[label] for label in np.flatnonzero(counts < 2)]:
        some = ", ".join(single[:5]) + (" …" if len(single) > 5 else "")
        what = "validation" if stream == VALIDATION else "testing"
        refuse([f"{arrays.where('y_train')}: one image only for class {some}: none is left for {what}"])
    taken = np.minimum(shares(counts, round(len(y) * share)), counts - 1)
    return choose(y, taken, seed, stream)


def _images(x: Array) -> Array:
    if is_whole_file(x) and x.ndim == 4 and x.dtype in (np.uint8, np.float32):
        return x
    x = x if x.ndim == 4 else x[..., np.newaxis]
    return np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else np.uint8)


def _labels(y: Array) -> Array:
    return np.ascontiguousarray(y.reshape(-1), np.int32)


def _name(target: str) -> str:
    """
    >>> _name("cnnsweep.data.digits.load"), _name("mine.data.galaxies")
    ('digits', 'galaxies')
    """
    module, _, function = target.rpartition(".")
    return module.rpartition(".")[2] if function == "load" else function


def _short_digest(content: str, train: Array, parts: Mapping[str, Array]) -> str:
    found = hashlib.sha256(content.encode())
    for split, rows in {"train": train, **parts}.items():
        found.update(f"{split} {len(rows)}".encode() + np.ascontiguousarray(rows, "<i8").data)
    return found.hexdigest()[:16]


def _digest(splits: Mapping[str, Array]) -> str:
    content = hashlib.sha256()
    for key, array in splits.items():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        content.update(f"{key} {little.dtype.str} {array.shape}".encode())
        content.update(little.data)
    return content.hexdigest()[:16]

"""Loading of data: once, by the driver, checked and split; `open_saved` maps it into the memory of every worker.

A loader is any function from the composed `data` config to `Arrays`, named by `_target_`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from cnnsweep.config.components import locate
from cnnsweep.config.inputs import NOUNS
from cnnsweep.config.schema import DataConfig
from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Array, Arrays, Dataset, find_faults, find_missing, find_scale, refuse
from cnnsweep.data.duplicates import describe_contradictions, fingerprints, kept, kept_once
from cnnsweep.data.groups import assign_folds, choose_groups, expect_apart
from cnnsweep.data.inputs import TYPES, layout_note
from cnnsweep.data.labels import Labels, doubtful, missing_class, output_names, typed
from cnnsweep.data.storage import is_whole_file, open_saved, save, take
from cnnsweep.errors import UserError, nearest
from cnnsweep.formatting import counted

__all__ = ["Arrays", "Dataset", "load", "open_saved", "refuse_other", "save"]

ALL = ("train", "val", "test")
LIMIT, VALIDATION, TEST = 1, 2, 3
"""Random streams: for choosing the images that are used, those for validation, and those for the test."""


def load(config: DataConfig, seed: int, task: Task = "classification") -> Dataset:
    """Load, check, limit and split the data that the composed `data` config names.

    Data without a validation set of its own gets a stratified share of the training set, chosen by `seed`; so does
    data without a test set. Raises one UserError that lists every fault with its file.
    """
    loader = locate("data._target_", config.target)
    try:
        arrays = loader(config.argument())
    except OSError as error:
        raise UserError(f"data cannot be read: {error}") from error
    except UserError:
        raise
    except Exception as error:  # a loader of the user's own: --debug shows its traceback
        raise UserError(f"data._target_ '{config.target}' failed: {type(error).__name__}: {error}") from error
    if isinstance(arrays, Dataset):  # it is checked and split
        return arrays
    if not isinstance(arrays, Arrays):
        raise UserError(f"data._target_ '{config.target}' returned {type(arrays).__name__}, expected Arrays")
    arrays = _as_arrays(arrays, config.target)
    if faults := find_faults(arrays, task):
        refuse(faults)
    return _split(arrays, config, seed, task)


def _as_arrays(arrays: Arrays, target: str) -> Arrays:
    """The same where inputs, labels or names of a loader of the user's own are lists, tensors or columns of pandas."""
    if arrays.kind not in NOUNS:
        known = f"{', '.join(NOUNS)}{nearest(str(arrays.kind), NOUNS)}"
        raise UserError(f"data._target_ '{target}': kind is '{arrays.kind}' ({known})")
    fields = vars(arrays) | {"class_names": tuple(map(str, arrays.class_names))}
    for key in (f"{a}_{split}" for a in "xy" for split in ALL):
        value = fields[key]
        if np.ma.is_masked(value):
            raise UserError(f"{arrays.place(key)}: has masked values, expected numbers")
        if value is not None and type(value) not in (np.ndarray, np.memmap):
            try:
                fields[key] = np.asarray(value)
            except Exception as error:  # lists of different lengths, tensors of a GPU
                raise UserError(f"{arrays.place(key)}: is no array ({error})") from error
    return Arrays(**fields)


def refuse_other(data: Dataset, stored: Mapping[str, object], owner: str, changes: Sequence[str] = ()) -> None:
    """Raise UserError where these are not the data whose `Dataset.facts` are stored with the runs of `owner`.

    The same images in other splits are other data too: what was trained on would be tested on. `changes` are those of
    the config since then, for the message.
    """
    if data.digest == stored["digest"]:
        return
    words = {"train": "training", "validation": "validation", "test": "test"}
    words = {name: f"{word} {data.noun}" for name, word in words.items()}
    facts = {name: (str(stored[name]), str(value)) for name, value in data.facts().items() if name in stored}
    changed = [f"{words.get(n, n)} {was} → {now}" for n, (was, now) in facts.items() if was != now and n != "source"]
    difference = ", ".join([*changed, *changes])
    raise UserError(
        f"the data have changed since {owner} ({difference}; {data.source}): results cannot be compared, and what "
        "was trained on could be tested on. Put the old files and settings back, or start a new sweep"
    )


def _split(arrays: Arrays, config: DataConfig, seed: int, task: Task) -> Dataset:
    names = output_names(arrays, task)
    labels = Labels(typed(arrays.y_train, task, len(names)), task, names)
    rows = _choose_rows(arrays, config, seed, labels)
    masks, notes = _without_shared(arrays, config, rows, task)
    rows = {split: found[masks[split]] for split, found in rows.items()}
    folds = None
    if config.folds is not None:
        folds = assign_folds(labels.at(rows["train"]), config.folds, seed, _of(arrays.groups, rows["train"]))
        rows["val"] = rows["train"][folds == 1]
    splits = {}
    for split in ALL:
        own = split in arrays.splits
        x, y = (getattr(arrays, f"{a}_{split if own else 'train'}") for a in "xy")
        splits[f"x_{split}"] = _inputs(arrays.kind, take(x, rows[split]))
        splits[f"y_{split}"] = typed(y[rows[split]], task, len(names))
    if text := missing_class(splits["y_train"], arrays, task):
        refuse([f"{arrays.place('y_train')}: after the split {text} is left for training; another seed may leave some"])
    decoding = arrays.decoding
    if arrays.corpus is not None:
        decoding = arrays.corpus.fit(splits["x_train"])
        for split in ALL:
            splits[f"x_{split}"] = arrays.corpus.convert(splits[f"x_{split}"], decoding)
    return Dataset(
        name=arrays.name or _name(config.target),
        **splits,
        class_names=names,
        source=arrays.source,
        digest=_digest(splits, folds) if arrays.digest is None else _short_digest(arrays, rows, folds),
        scale=find_scale(arrays, splits["x_train"]),
        task=task,
        folds=None if folds is None else tuple(folds.tolist()),
        decoding=decoding,
        kind=arrays.kind,
        notes=(*_notes(arrays, splits, names, task), *notes),
    )


def _notes(arrays: Arrays, splits: Mapping[str, Array], names: tuple[str, ...], task: Task) -> tuple[str, ...]:
    missing = find_missing(arrays, {split: splits[f"y_{split}"] for split in ALL[1:]}, task)
    layout = () if arrays.decoding else layout_note(arrays.kind, arrays.x_train.shape)
    return (*arrays.notes, *layout, *missing, *doubtful(() if task == "regression" else names))


def _choose_rows(arrays: Arrays, config: DataConfig, seed: int, labels: Labels) -> dict[str, Array]:
    """The rows of each split: in its own arrays, or, where it has none, in those of the training set."""
    expect_apart(arrays.groups)
    groups, rows = arrays.groups.get("train"), np.arange(len(labels.y))
    if config.group is not None and groups is None:
        noun = NOUNS[arrays.kind]
        raise UserError(f"data.group: the {noun} of {arrays.source} have no names in which '{config.group}' could be")
    if config.limit is not None and config.limit < len(rows):
        rows = rows[_limited(arrays, labels.strata, config.limit, seed)]
    found = {split: np.arange(len(getattr(arrays, f"y_{split}"))) for split in arrays.splits}
    if config.folds is not None and "val" in arrays.splits:
        raise UserError(f"data.folds={config.folds}: {arrays.source} has validation data of its own; data.folds=null")
    for split, key, stream in (("test", "test", TEST), ("val", "validation", VALIDATION)):
        if split not in arrays.splits and not (split == "val" and config.folds):
            share = _share(config, key)
            if groups is None:
                chosen = _split_off(arrays, labels.at(rows), share, seed, stream)
            else:
                chosen = choose_groups(labels.at(rows), groups[rows], share, seed + stream, key)
            found[split], rows = rows[chosen], rows[~chosen]
    return {**found, "train": rows}


def _without_shared(
    arrays: Arrays, config: DataConfig, rows: dict[str, Array], task: Task
) -> tuple[Mapping[str, Array], Sequence[str]]:
    """Which rows are used by `data.duplicates`, and notes; images that would have to be read are not compared."""
    sources = {split: split if split in arrays.splits else "train" for split in rows}
    x = {split: getattr(arrays, f"x_{split}") for split in arrays.splits}
    known = {s: arrays.prints[s] if s in arrays.prints else fingerprints(_inputs(arrays.kind, x[s])) for s in x
             if s in arrays.prints or not is_whole_file(x[s])}  # fmt: skip
    if {*sources.values()} - {*known}:
        return {split: np.ones(len(found), bool) for split, found in rows.items()}, ()
    prints = {split: known[source][rows[split]] for split, source in sources.items()}
    names = {
        split: [arrays.names[source][row] for row in rows[split]]
        for split, source in sources.items()
        if source in arrays.names
    }
    masks, notes = kept(prints, names, config.duplicates, arrays.kind)
    if task == "classification":
        classes = {split: getattr(arrays, f"y_{source}").reshape(-1)[rows[split]] for split, source in sources.items()}
        notes = [*notes, *describe_contradictions(prints, classes, names, arrays.kind)]
    if config.folds is not None:
        once, more = kept_once(prints["train"], _of(arrays.groups, rows["train"]), config.duplicates, arrays.kind)
        return {**masks, "train": masks["train"] & once}, [*notes, *more]
    return masks, notes


def _of(groups: Mapping[str, Array], rows: Array) -> Array | None:
    return groups["train"][rows] if "train" in groups else None


def _share(config: DataConfig, key: str) -> float:
    share = config.plain().get(key)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise UserError(f"data.{key} is {share!r}, expected a share of the training set between 0 and 1")
    return float(share)


def _limited(arrays: Arrays, y: Array, limit: int, seed: int) -> Array:
    taken = shares(np.bincount(y), limit)
    if taken.sum() > limit:
        noun = NOUNS[arrays.kind]
        needed = f"at least {taken.sum()} {noun} are needed"
        refuse([f"{arrays.place('y_train')}: data.limit={limit} leaves a class without {noun}, {needed}"])
    return choose(y, taken, seed, LIMIT)


def _split_off(arrays: Arrays, labels: Labels, share: float, seed: int, stream: int) -> Array:
    strata = labels.strata
    counts = np.bincount(strata)
    purpose, place = "validation" if stream == VALIDATION else "testing", arrays.place("y_train")
    if labels.task == "classification" and (single := [labels.names[i] for i in np.flatnonzero(counts < 2)]):
        some = ", ".join(single[:5]) + (" …" if len(single) > 5 else "")
        refuse([f"{place}: one {arrays.kind} only for class {some}: none remains for {purpose}"])
    if not (several := counts > 1).any():
        refuse([f"{place}: {counted(len(strata), arrays.kind)} cannot be divided: none remains for {purpose}"])
    taken = np.zeros_like(counts)
    taken[several] = np.minimum(shares(counts[several], round(len(strata) * share)), counts[several] - 1)
    return choose(strata, taken, seed, stream)


def shares(counts: Array, total: int) -> Array:
    """The images to take of each class for `total` in proportion: its exact share, rounded up or down.

    The largest remainders are rounded up, but every class gets at least one, so that the sum may exceed `total`.
    `counts` are all above 0, `total` is at most their sum.

    >>> shares(np.array([50, 30, 20]), 11).tolist()
    [6, 3, 2]
    >>> shares(np.array([98, 1, 1]), 10).tolist()
    [9, 1, 1]
    """
    exact = counts.astype(np.int64) * int(total)
    taken, rest = np.divmod(exact, counts.sum(dtype=np.int64))
    wanted = max(int(total - taken.sum()), int((taken == 0).sum()))
    first = np.lexsort((-rest, taken > 0))[:wanted]
    taken[first] += 1
    return taken


def choose(labels: Array, taken: Array, seed: int, stream: int) -> Array:
    """A mask over `labels` (integers from 0), true for `taken[c]` randomly chosen images of each class c.

    `stream` keeps the choices made with one seed independent of each other.
    """
    # The raw output of a bit generator is the only random stream that NumPy promises never to change.
    keys = np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(len(labels))
    order = np.argsort(keys, kind="stable")
    mask = np.zeros(len(labels), bool)
    for label, count in enumerate(taken):
        mask[order[labels[order] == label][:count]] = True
    return mask


def _inputs(kind: str, x: Array) -> Array:
    if kind != "image":
        wanted = TYPES.get(kind, x.dtype)
        return x if is_whole_file(x) and x.dtype == wanted else np.ascontiguousarray(x, wanted)
    if is_whole_file(x) and x.ndim == 4 and x.dtype in (np.uint8, np.float32):
        return x  # still a map
    x = x if x.ndim == 4 else x[..., np.newaxis]
    return np.ascontiguousarray(x, np.float32 if x.dtype.kind == "f" else np.uint8)


def _name(target: str) -> str:
    """
    >>> _name("cnnsweep.data.digits.load"), _name("mine.data.galaxies")
    ('digits', 'galaxies')
    """
    module, _, function = target.rpartition(".")
    return module.rpartition(".")[2] if function == "load" else function


def _short_digest(arrays: Arrays, rows: Mapping[str, Array], folds: Array | None) -> str:
    """A digest of the content, and of the rows of all splits that are not whole."""
    found = hashlib.sha256(str(arrays.digest).encode())
    found.update(b"" if folds is None else folds.tobytes())
    for split in ("train", "test", "val"):
        whole = split != "train" and split in arrays.splits
        if not whole or len(rows[split]) < len(getattr(arrays, f"y_{split}")):
            found.update(f"{split} {len(rows[split])}".encode() + np.ascontiguousarray(rows[split], "<i8").data)
    return found.hexdigest()[:16]


def _digest(splits: Mapping[str, Array], folds: Array | None) -> str:
    content = hashlib.sha256(b"" if folds is None else folds.tobytes())
    for key, array in splits.items():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        content.update(f"{key} {little.dtype.descr if little.dtype.names else little.dtype.str} {array.shape}".encode())
        content.update(little.data)
    return content.hexdigest()[:16]

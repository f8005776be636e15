"""Stratified, seeded choice of images, the same on every platform and with every version of NumPy."""

from __future__ import annotations

import numpy as np

from cnnsweep.data.arrays import Array


def shares(counts: Array, total: int) -> Array:
    """How many of each class to take for `total` in proportion: each class's exact share, rounded up or down.

    The largest remainders are rounded up, but every class is given at least one, for which the sum may exceed
    `total`. `counts` are all above 0, `total` is at most their sum.

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

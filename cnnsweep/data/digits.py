"""The handwritten digits that ship with scikit-learn: 1,797 images, 8×8 grey, no download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnsweep.data.arrays import Arrays
from cnnsweep.data.split import choose, shares

TEST_SHARE, TEST_SEED = 0.2, 0


def load(config: Mapping[str, Any]) -> Arrays:  # noqa: ARG001 - every loader takes the config
    """One fifth, stratified, is the test set: the same images whatever the sweep's seed. Pixels are 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int32)
    test = choose(y, shares(np.bincount(y), round(len(y) * TEST_SHARE)), TEST_SEED, stream=0)
    return Arrays(
        x_train=x[~test],
        y_train=y[~test],
        x_test=x[test],
        y_test=y[test],
        class_names=tuple("0123456789"),
        source="scikit-learn's load_digits",
        scale=1 / 16,
        name="digits",
    )

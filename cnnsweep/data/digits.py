"""The handwritten digits of scikit-learn: 1,797 images, 8×8 grey, no download."""

from __future__ import annotations

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Arrays
from cnnsweep.data.loading import choose, shares

TEST_SHARE, TEST_SEED = 0.2, 0


@configured_by(DataConfig)
def load(config: DataConfig) -> Arrays:  # noqa: ARG001 - every loader takes the config
    """One fifth, stratified, is the test set: the same images for every seed of a sweep. Pixels are 0..16."""
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

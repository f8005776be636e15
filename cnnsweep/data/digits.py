"""The handwritten digits of scikit-learn: 1,797 images, 8×8 grey, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays
from cnnsweep.data.loading import choose, shares

TEST_SHARE, TEST_SEED = 0.2, 0


@configured_by(DataConfig)
def load(config: DataConfig) -> Arrays:  # noqa: ARG001 - every loader takes the config
    """One fifth, stratified, is the test set: the same images for every seed of a sweep. Pixels are 0..16."""
    x, y = read()
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


def read() -> tuple[Array, Array]:
    """Return the images, uint8 (1797, 8, 8) from 0 to 16, and their digits, int32.

    They are read from scikit-learn's file: importing scikit-learn takes two seconds.
    """
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    rows = np.loadtxt(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1].astype(np.int32)

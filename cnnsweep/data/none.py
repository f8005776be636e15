"""No data set: the job reads its own."""

from __future__ import annotations

import numpy as np

from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Dataset


def load(_: DataConfig) -> Dataset:
    """Return a data set without images."""
    x, y = np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int32)
    return Dataset("none", x, y, x, y, x, y, class_names=(), source="the job itself", digest="none", scale=1.0)

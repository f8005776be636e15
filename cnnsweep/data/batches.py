"""Batches that are read from a mapped file as they are needed, for images that do not fit into memory."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from cnnsweep.data.arrays import Array


class Batches(keras.utils.PyDataset):
    """The rows of `x` and `y` in the given order, `size` at a time."""

    def __init__(self, x: Array, y: Array, size: int, order: Array, **settings: Any) -> None:
        super().__init__(**settings)
        self._x, self._y, self._size, self._order = x, y, size, order

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self._size)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        rows = self._order[index * self._size : (index + 1) * self._size]
        return np.asarray(self._x[rows]), np.asarray(self._y[rows])

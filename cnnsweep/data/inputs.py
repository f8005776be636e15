"""Checks of inputs that are no images: signals, texts as numbers of words, and videos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsweep.config.inputs import NOUNS

Array = NDArray[Any]
SHAPES = {"signal": "(signals, steps, channels)", "text": "(texts, words)",
          "video": "(videos, frames, height, width, channels)"}  # fmt: skip
ALLOWED = {"signal": "buif", "text": "ui", "video": "u"}
"""The kinds of NumPy type that x may have."""
TYPES = {"signal": np.float32, "text": np.int32, "video": np.uint8}
"""The type in which x is kept."""


def input_faults(kind: str, x: Array) -> Iterator[str]:
    """Every fault of an array of signals, texts or videos."""
    form = SHAPES[kind]
    if x.ndim != form.count(",") + 1:
        yield f"shape {x.shape}, expected {form}"
    elif x.size == 0:
        yield f"shape {x.shape} holds no {NOUNS[kind]}"
    elif x.dtype.kind not in ALLOWED[kind]:
        yield f"dtype {x.dtype}, expected {'float32' if kind == 'signal' else 'whole numbers'}"
    elif kind == "signal" and not np.isfinite(x.sum(dtype=np.float64)):
        bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
        if len(bad):
            yield f"NaN or infinity in {len(bad):,} of {len(x):,} signals, first in signal {bad[0]}"

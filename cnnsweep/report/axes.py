"""Positions of a searched key's values on an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from cnnsweep.formatting import brief
from cnnsweep.search_space.space import Parameter

MAX_CHOICES = 12
"""Whole numbers with more distinct values than this are a range rather than choices."""
ABSENT = "–"


@dataclass(frozen=True)
class Axis:
    """A key's values as positions: numbers as they are or by their logarithm, choices side by side.

    Absent values (of a layer that the network does not have) are apart: at -1 of choices, or below the range.
    """

    key: str
    at: np.ndarray
    """The position of each row."""
    ticks: list[float]
    labels: list[str]
    low: float
    high: float
    continuous: bool

    @property
    def title(self) -> str:
        return short(self.key)


def axis(key: str, column: pd.Series, parameter: Parameter | None = None) -> Axis:
    """Lay out a column, by its parameter in the search space where that is known."""
    present = column.dropna()
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    few = pd.api.types.is_integer_dtype(column.dtype) and present.nunique() <= MAX_CHOICES
    if len(present) and numeric and not few and (parameter is None or parameter.choices is None):
        return _range(key, column.to_numpy(float, na_value=np.nan), parameter)
    values = sorted(present.unique().tolist(), key=lambda value: (isinstance(value, str), value))
    at = pd.Categorical(column, categories=values).codes.astype(float)
    labels = [str(v).lower() if isinstance(v, bool) else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
    ticks = [float(i) for i in range(len(values))]
    if column.isna().any():
        labels, ticks = [ABSENT, *labels], [-1.0, *ticks]
    return Axis(key, at, ticks, labels, min(ticks, default=0) - 0.4, max(ticks, default=0) + 0.4, False)


def short(key: str) -> str:
    """A key's name for a title.

    >>> short("model.filters.2"), short("training.learning_rate"), short("job.config.model.C")
    ('filters 2', 'learning rate', 'model C')
    """
    for group in ("model.hp.", "model.", "training.", "data.", "job.config.", "job.groups.", "job."):
        key = key.removeprefix(group)
    return key.replace(".", " ").replace("_", " ")


def round_ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers within a range.

    >>> round_ticks(0, 0.5, log=False), round_ticks(15, 3000, log=True)
    ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [30.0, 100.0, 300.0, 1000.0, 3000.0])
    """
    ratio = high / low if log else 0
    steps = (1, 2, 5) if ratio < 10 else (1, 3) if ratio < 1000 else (1,)
    locator = LogLocator(subs=steps) if log else MaxNLocator(5)
    margin = 1e-6 * (high - low)
    ticks = [round(float(t), 12) for t in locator.tick_values(low, high) if low - margin <= t <= high + margin]
    return ticks if len(ticks) > 1 else [low, high]


def _range(key: str, values: np.ndarray, parameter: Parameter | None) -> Axis:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    log = parameter.log if parameter else low > 0 and high / low >= 20
    if parameter:
        low, high = parameter.low, parameter.high
    ticks = round_ticks(low, high, log)
    labels = [brief(t) for t in ticks]
    if log:
        values, low, high = np.log10(values), np.log10(low), np.log10(high)
        ticks = [float(np.log10(t)) for t in ticks]
    span = (high - low) or 1
    if np.isnan(values).any():
        low -= 0.15 * span
        values = np.where(np.isnan(values), low, values)
        ticks, labels = [low, *ticks], [ABSENT, *labels]
    return Axis(key, values, ticks, labels, low - 0.03 * span, high + 0.03 * span, True)

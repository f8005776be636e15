"""Where a searched key's values stand on an axis: numbers as they are or by their logarithm, choices side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnsweep.search_space.space import Parameter

MOST_TICKS = 6
MANY = 12
"""With more distinct values than this, whole numbers are a range rather than choices."""


@dataclass(frozen=True)
class Axis:
    """Positions of one column. A value that is absent stands apart, at -1 of choices or below the range."""

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
    """Lay out a column, by what the space says of it where that is known."""
    present = column.dropna()
    whole = pd.api.types.is_integer_dtype(column.dtype)
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    chosen = parameter is not None and parameter.choices is not None
    if len(present) and numeric and not chosen and not (whole and present.nunique() <= MANY):
        return _range(key, column, parameter)
    values = sorted(present.unique().tolist(), key=lambda v: (isinstance(v, str), v))
    place = {value: float(i) for i, value in enumerate(values)}
    labels, ticks = [_label(v) for v in values], [float(i) for i in range(len(values))]
    if column.isna().any():
        labels, ticks = ["–", *labels], [-1.0, *ticks]
    at = np.array([-1.0 if pd.isna(v) else place[v] for v in column])
    return Axis(key, at, ticks, labels, min(ticks, default=0) - 0.4, max(ticks, default=0) + 0.4, False)


def short(key: str) -> str:
    """
    >>> short("model.filters.2"), short("training.learning_rate")
    ('filters 2', 'learning rate')
    """
    return (
        key.removeprefix("model.").removeprefix("training.").removeprefix("data.").replace(".", " ").replace("_", " ")
    )


def brief(value: float) -> str:
    """
    >>> [brief(v) for v in (0.0003, 0.05, 30000.0, 1500000.0, 12.5, 0.0, 1e12)]
    ['3e-4', '0.05', '30k', '1.5M', '12.5', '0', '1e12']
    """
    if abs(value) >= 1e12:
        mantissa, _, exponent = f"{value:.1e}".partition("e+")
        return f"{float(mantissa):g}e{int(exponent)}"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    if 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}"


def _range(key: str, column: pd.Series, parameter: Parameter | None) -> Axis:
    values = column.astype(float).to_numpy()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    log = parameter.log if parameter else low > 0 and high / low >= 20
    if parameter:
        low, high = parameter.low, parameter.high
    if log:
        with np.errstate(invalid="ignore"):
            values = np.log10(values)
        low, high = math.log10(low), math.log10(high)
    ticks = _decades(low, high) if log else list(np.linspace(low, high, 5))
    labels = [brief(10**t if log else t) for t in ticks]
    if np.isnan(values).any():
        below = low - 0.15 * ((high - low) or 1)
        values = np.where(np.isnan(values), below, values)
        ticks, labels, low = [below, *ticks], ["–", *labels], below
    margin = 0.03 * ((high - low) or 1)
    return Axis(key, values, ticks, labels, low - margin, high + margin, True)


def _decades(low: float, high: float) -> list[float]:
    steps = (1, 3) if high - low < 3 else (1,)
    found = [d + math.log10(s) for d in range(math.floor(low), math.ceil(high) + 1) for s in steps]
    inside = [t for t in found if low - 1e-9 <= t <= high + 1e-9]
    return inside[:: math.ceil(len(inside) / MOST_TICKS)] if len(inside) > 1 else [low, high]


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""What a sweep optimises: a metric and the direction in which it is better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Objective:
    metric: str
    direction: Literal["max", "min"]

    @classmethod
    def of(cls, metric: str) -> Objective:
        """Losses and costs are minimised, the rest is maximised.

        >>> Objective.of("val_loss").direction
        'min'
        """
        return cls(metric, "min" if metric.endswith("loss") else "max")

    def better(self, value: float, than: float | None) -> bool:
        """True where `value` beats `than`; anything beats None and NaN, NaN beats nothing."""
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than if self.direction == "max" else value < than

    def best(self, values: Iterable[float]) -> int | None:
        """The index of the best value, the first of equals; None where there is none."""
        found: int | None = None
        best: float | None = None
        for index, value in enumerate(values):
            if self.better(value, best):
                found, best = index, value
        return found

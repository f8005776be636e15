"""What a sweep optimises: a metric, or several and costs, each with the direction in which it is better."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnsweep.errors import UserError, unknown

Direction = Literal["max", "min"]
METRICS = ("val_accuracy", "val_loss", "accuracy", "loss")
COSTS = ("parameters", "mmacs")
"""Known of a network before it is trained; one may be an objective beside a metric."""


@dataclass(frozen=True)
class Objective:
    metric: str
    direction: Direction
    also: tuple[Objective, ...] = ()
    """Further objectives: then this one, the first that training measures, says which epoch of a trial counts."""

    @classmethod
    def of(cls, names: str | Sequence[str]) -> Objective:
        """Losses and costs are minimised, the rest is maximised.

        >>> Objective.of("val_loss").direction
        'min'
        >>> [o.metric for o in Objective.of(["parameters", "val_accuracy"]).all]
        ['val_accuracy', 'parameters']
        """
        if isinstance(names, str):
            names = json.loads(names) if names.startswith("[") else [names]
        first = next(name for name in names if name not in COSTS)
        return cls(first, direction(first), tuple(cls(n, direction(n)) for n in names if n != first))

    @property
    def sign(self) -> float:
        """Multiplied by it, smaller values are better."""
        return -1.0 if self.direction == "max" else 1.0

    @property
    def all(self) -> tuple[Objective, ...]:
        return (self, *self.also)

    def point(self, values: Mapping[str, Any]) -> tuple[float, ...] | None:
        """A trial's values of all objectives, the smaller the better; None where one is missing or not finite."""
        found = [o.sign * float(values.get(o.metric, math.nan)) for o in self.all]
        return tuple(found) if all(math.isfinite(value) for value in found) else None

    def better(self, value: float, than: float | None) -> bool:
        """True where `value` beats `than`; anything beats None and NaN, NaN beats nothing."""
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than if self.direction == "max" else value < than

    def best(self, values: Iterable[float]) -> int | None:
        """The index of the best value, the first of equals; None where there is none."""
        known = {index: value for index, value in enumerate(values) if not math.isnan(value)}
        return (max if self.direction == "max" else min)(known, key=known.__getitem__, default=None)


def direction(name: str) -> Direction:
    return "min" if name.endswith("loss") or name in COSTS else "max"


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the Pareto front: no other point is as good in everything and better in something.

    >>> front([(1, 5), (2, 2), (3, 3), (2, 2)])
    [0, 1, 3]
    """
    found: list[tuple[float, ...]] = []
    for point in sorted(set(points)):  # a point that dominates another comes before it
        if not any(all(a <= b for a, b in zip(better, point, strict=True)) for better in found):
            found.append(point)
    best = set(found)
    return [index for index, point in enumerate(points) if point in best]


def read(value: Any) -> str | list[str]:
    """Check a config's `objective`: a name, {name: direction}, or a list of these. Raises `UserError`."""
    names: list[str] = []
    for entry in value if isinstance(value, list) else [value]:
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [(entry, None)]
        for name, wanted in pairs or [(entry, None)]:
            if name not in METRICS + COSTS:
                raise unknown("objective", name, METRICS + COSTS)
            if wanted not in (None, "max", "min"):
                raise unknown(f"direction of objective {name}", wanted, ("max", "min"))
            if wanted not in (None, direction(name)):
                larger = "larger" if direction(name) == "max" else "smaller"
                raise UserError(f"objective: {name}: {wanted} contradicts it: {name} is better the {larger} it is")
            if name in names:
                raise UserError(f"objective: {name} stands there twice")
            names.append(name)
    if not any(name in METRICS for name in names):
        given = ", ".join(names) or "an empty list"
        raise UserError(f"objective: {given} is known without training; add one of {', '.join(METRICS)}")
    return names if len(names) > 1 else names[0]

"""Statistics: rankings, and the interval of a measured share."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Name = TypeVar("Name", int, str)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share measured on `count` independent cases (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)  # rounding would lead out of it


@dataclass
class Ranking(Generic[Name]):
    """Names by value, smaller is better, equal values by name; kept in order, so that no look-up passes over all."""

    _places: dict[Name, tuple[float, Name]] = field(default_factory=dict)
    _order: list[tuple[float, Name]] = field(default_factory=list)

    def __contains__(self, name: Name) -> bool:
        return name in self._places

    def put(self, name: Name, value: float | None) -> None:
        """Set a name's value; None removes the name."""
        place = None if value is None else (value, name)
        before = self._places.get(name)
        if before == place:
            return
        if before is not None:
            del self._order[bisect_left(self._order, before)]
            del self._places[name]
        if place is not None:
            self._places[name] = place
            insort(self._order, place)

    def place(self, name: Name) -> int:
        """The number of names ranked before this one."""
        return bisect_left(self._order, self._places[name])

    def first(self, count: int | None = None) -> list[Name]:
        """The best names, all of them by default."""
        return [name for _, name in self._order[:count]]

    def first_of(self, names: Iterable[Name], count: int) -> list[Name]:
        """The best of some names; names without a value are ignored."""
        return [name for _, name in heapq.nsmallest(count, (self._places[n] for n in names if n in self))]

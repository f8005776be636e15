"""Trials in order of their values, kept in order as values come in: placing one takes no look at the others."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

Place = tuple[float, int]


@dataclass
class Ranking:
    """Numbers by what they came to, the smaller the better; the first number of equals."""

    _places: dict[int, Place] = field(default_factory=dict)
    _order: list[Place] = field(default_factory=list)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def put(self, number: int, value: float | None) -> None:
        """Give a number its place; None takes it out."""
        place = None if value is None else (value, number)
        before = self._places.get(number)
        if before == place:
            return
        if before is not None:
            del self._order[bisect_left(self._order, before)]
            del self._places[number]
        if place is not None:
            self._places[number] = place
            insort(self._order, place)

    def first(self, count: int | None = None) -> list[int]:
        """The best numbers, all where None."""
        return [number for _, number in self._order[:count]]

    def first_of(self, numbers: Iterable[int], count: int) -> list[int]:
        """The best of some numbers; those without a place are left out."""
        return [number for _, number in heapq.nsmallest(count, (self._places[n] for n in numbers if n in self))]

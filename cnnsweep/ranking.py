"""Trials in order of their values, kept in order as values come in: placing one takes no look at the others."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Name = TypeVar("Name", int, str)


@dataclass
class Ranking(Generic[Name]):
    """Names by what they came to, the smaller the better; the first name of equals."""

    _places: dict[Name, tuple[float, Name]] = field(default_factory=dict)
    _order: list[Any] = field(default_factory=list)

    def __contains__(self, name: Name) -> bool:
        return name in self._places

    def put(self, name: Name, value: float | None) -> None:
        """Give a name its place; None takes it out."""
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
        """How many stand before a name."""
        return bisect_left(self._order, self._places[name])

    def first(self, count: int | None = None) -> list[Name]:
        """The best names, all where None."""
        return [name for _, name in self._order[:count]]

    def first_of(self, names: Iterable[Name], count: int) -> list[Name]:
        """The best of some names; those without a place are left out."""
        return [name for _, name in heapq.nsmallest(count, (self._places[n] for n in names if n in self))]

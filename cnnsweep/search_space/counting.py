"""Valid configurations counted, listed and drawn, exactly, in spaces far too large to enumerate.

Dynamic programming from the last stage to the first: for every shape that a stage can meet, a table of the costs that
the rest of the stack can have, each with the number of ways to it. Equal costs are merged, and those above a limit are
removed as early as possible, since costs only grow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnsweep.geometry.settings import Cost, Shape
from cnnsweep.search_space.space import Values
from cnnsweep.search_space.stages import Option, Stage, Track, Uncountable, tracks, walk

if TYPE_CHECKING:
    from cnnsweep.search_space.problem import Problem

UNITS = {"parameters": 1, "mmacs": 1e6, "activation_mb": 1e6}
"""The sizes of a network that may be limited, in the order of a `Cost`, and what one of each is in its integers."""
MAX_ROWS, MAX_WALKS = 8_000_000, 200_000
"""Of all tables together: their rows, and options whose costs they are made of (some seconds)."""
NO_LIMIT = 2**62
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


@dataclass(frozen=True)
class CostTable:
    """The different costs of some layers, and in how many ways each can be reached."""

    costs: np.ndarray
    """(rows, columns) int64, no two rows alike."""
    ways: np.ndarray
    """(rows,) int64; float64 where the space is larger than that."""

    def within(self, room: np.ndarray) -> np.ndarray:
        """Which rows cost at most `room`, column by column: (rows,) bool."""
        fits = np.ones(len(self.ways), bool)
        for column in range(self.costs.shape[1]):
            fits &= self.costs[:, column] <= room[column]
        return fits

    def count(self, room: np.ndarray) -> int | float:
        """The number of ways that cost at most `room`."""
        found: int | float = (self.ways[self.within(room)] if self.costs.shape[1] else self.ways).sum().item()
        return found


def merged(costs: np.ndarray, ways: np.ndarray, room: np.ndarray) -> CostTable:
    """Remove rows that cost more than `room`, and add up the ways of equal rows."""
    fits = CostTable(costs, ways).within(room)
    costs, ways = costs[fits], ways[fits]
    if not len(ways):
        return CostTable(costs, ways)
    keys = (costs.astype(np.uint64) * _MIXERS[: costs.shape[1]]).sum(1, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    keys, costs, ways = keys[order], costs[order], ways[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(keys)]))
    if (costs[first][group] != costs).any():  # two costs share a key, which one in 10^9 tables of a million does
        rows, inverse = np.unique(costs, axis=0, return_inverse=True)
        total = np.zeros(len(rows), ways.dtype)
        np.add.at(total, inverse, ways)
        return CostTable(rows, total)
    return CostTable(costs[first], np.add.reduceat(ways, first))


class ValidConfigurations:
    """The valid configurations of a problem. Raises `Uncountable` where they cannot be counted exactly."""

    def __init__(self, problem: Problem, also: str | None = None) -> None:
        """`also` names a cost to follow besides those that are limited, for `extreme`."""
        self.problem = problem
        found = tracks(problem)
        self.columns = [name for name in UNITS if name in problem.limits or name == also]
        self.places = [list(UNITS).index(name) for name in self.columns]
        """The place of each column in a `Cost`."""
        self.room = np.array([_largest_within(name, problem.limits.get(name)) for name in self.columns], np.int64)
        self.dtype = np.int64 if problem.space.size < NO_LIMIT else np.float64
        # The first block has too many costs for a table; it is walked through, and so is the stem.
        self._tabled = max((len(track.stages) for track in found), default=0) - 2
        self._tables: dict[tuple[Any, ...], CostTable] = {}
        self._rows = self._walks = 0
        totals = [t.weight * self._count(t.stages, problem.input_shape, self.room) for t in found]
        self.tracks = [track for track, total in zip(found, totals, strict=True) if total]
        """Those with valid configurations."""
        self.totals = [total for total in totals if total]
        """The number of valid configurations in each, a continuous range counted as one; exact where it is an int."""
        self.total = sum(self.totals)

    @cached_property
    def _shares(self) -> list[float]:
        """How likely each track is."""
        pairs = zip(self.tracks, self.totals, strict=True)
        return [total * self.problem.space.preference(track.values) for track, total in pairs]

    def draw(self, rng: np.random.Generator) -> Values | None:
        """Draw a valid configuration as `Space.draw` would, did it leave out the others; None where there is none."""
        if not self.total:
            return None
        track = self.tracks[_pick(rng, self._shares)]
        values, room = dict(track.values), self.room
        shape: Shape = self.problem.input_shape
        for index in range(len(track.stages)):
            branches = list(self._branches(track.stages[index:], shape, room))
            option, shape, room, _ = branches[_pick(rng, [ways for *_, ways in branches])]
            values |= option.values
        return self.problem.space.ordered(values | {p.name: p.at(rng.random()) for p in track.rest})

    def members(self) -> Iterator[tuple[Track, Values]]:
        """Every valid path, as the values that it fixes; `track.rest` is free."""
        for track in self.tracks:
            for values in self._paths(track.stages, self.problem.input_shape, self.room):
                yield track, track.values | values

    def extreme(self, column: str, largest: bool) -> Values:
        """The valid configuration with the least or most of a cost; a free parameter has its middle value."""
        place = self.columns.index(column)
        best: tuple[int, Track, np.ndarray] | None = None
        for track in self.tracks:
            for left, _, table in self._ends(track.stages, self.problem.input_shape, self.room):
                costs = table.costs[table.within(left)]
                if len(costs):
                    column_costs = costs[:, place]
                    cost = self.room - left + costs[column_costs.argmax() if largest else column_costs.argmin()]
                    rank = int(cost[place]) * (1 if largest else -1)
                    if best is None or rank > best[0]:
                        best = rank, track, cost
        assert best is not None, "there are no valid configurations"
        _, track, cost = best
        values = track.values | {p.name: p.at(0.5) for p in track.rest}
        return self.problem.space.ordered(values | self._path(track.stages, self.problem.input_shape, cost))

    def _path(self, stages: Sequence[Stage], shape: Shape, target: np.ndarray) -> Values:
        """The values of a path that costs exactly so much, of which there is one."""
        if not stages:
            return {}
        for option, after, left, _ in self._branches(stages, shape, target):
            if any((table.costs == rest).all(1).any() for rest, _, table in self._ends(stages[1:], after, left)):
                return option.values | self._path(stages[1:], after, left)
        raise AssertionError("no path costs this")

    def _paths(self, stages: Sequence[Stage], shape: Shape, room: np.ndarray) -> Iterator[Values]:
        if not stages:
            yield {}
            return
        for option, after, left, _ in self._branches(stages, shape, room):
            for values in self._paths(stages[1:], after, left):
                yield option.values | values

    def _branches(
        self, stages: Sequence[Stage], shape: Shape, room: np.ndarray
    ) -> Iterator[tuple[Option, Shape, np.ndarray, int | float]]:
        """Each option of the first stage that leads to valid paths: (option, shape after it, room left, paths)."""
        known: dict[tuple[Shape, Cost], tuple[np.ndarray, int | float]] = {}
        for option in stages[0].options:
            found = walk(option.layers, shape)
            if found is None:
                continue
            if found not in known:
                left = room - self._cost(found[1])
                known[found] = left, self._count(stages[1:], found[0], left)
            left, ways = known[found]
            if ways:
                yield option, found[0], left, ways

    def _count(self, stages: Sequence[Stage], shape: Shape, room: np.ndarray) -> int | float:
        """Paths through the stages within the room."""
        return sum(ways * table.count(left) for left, ways, table in self._ends(stages, shape, room))

    def _ends(
        self, stages: Sequence[Stage], shape: Shape, room: np.ndarray, ways: int = 1
    ) -> Iterator[tuple[np.ndarray, int, CostTable]]:
        """Walk through the stages before those that have tables: (room left, ways there, table of the others)."""
        if len(stages) <= self._tabled or not stages:
            yield room, ways, self._table(stages, shape)
            return
        for (after, cost), count in stages[0].groups(shape).items():
            left = room - self._cost(cost)
            if (left >= 0).all():
                yield from self._ends(stages[1:], after, left, ways * count)

    def _table(self, stages: Sequence[Stage], shape: Shape) -> CostTable:
        """The costs that these stages can have from this shape on."""
        key = (shape, *(stage.kernel for stage in stages))
        if key not in self._tables:
            self._tables[key] = self._make_table(stages, shape)
            self._rows += len(self._tables[key].ways)
            if self._rows > MAX_ROWS:
                raise Uncountable
        return self._tables[key]

    def _make_table(self, stages: Sequence[Stage], shape: Shape) -> CostTable:
        if not stages:
            return CostTable(np.zeros((1, len(self.columns)), np.int64), np.ones(1, self.dtype))
        costs = [np.zeros((0, len(self.columns)), np.int64)]
        ways = [np.zeros(0, self.dtype)]
        size = 0
        self._walks += len(stages[0].options)
        if self._walks > MAX_WALKS:
            raise Uncountable
        for (after, cost), count in stages[0].groups(shape).items():
            rest = self._table(stages[1:], after)
            costs.append(rest.costs + self._cost(cost))
            ways.append(rest.ways * count)
            size += len(rest.ways)
            if size > 2 * MAX_ROWS:
                raise Uncountable
        return merged(np.concatenate(costs), np.concatenate(ways), self.room)

    def _cost(self, cost: Cost) -> np.ndarray:
        return np.array([cost[place] for place in self.places], np.int64)


def list_valid(problem: Problem, at_most: int) -> list[Values] | None:
    """Every valid configuration in the order of `Space.enumerate`; None where they are more than that or endless."""
    space = problem.space
    if space.continuous:
        return None
    if space.size <= at_most:
        return [values for values in space.enumerate() if problem.validate(values).fault is None]
    try:
        found = ValidConfigurations(problem)
    except Uncountable:
        return None
    if found.total > at_most:
        return None
    places = [(p.name, {value: i for i, value in enumerate(p.grid or ())}) for p in space.parameters]
    every = []
    for track, values in found.members():
        names = [p.name for p in track.rest]
        for free in itertools.product(*(p.grid or () for p in track.rest)):
            every.append(space.ordered(values | dict(zip(names, free, strict=True))))
    return sorted(every, key=lambda values: [at[values[name]] if name in values else 0 for name, at in places])


def _largest_within(name: str, limit: float | None) -> int:
    """The largest cost within a limit."""
    if limit is None:
        return NO_LIMIT
    cost = min(int(limit * UNITS[name]) + 2, NO_LIMIT)
    while cost / UNITS[name] > limit:
        cost -= 1
    return cost


def _pick(rng: np.random.Generator, weights: Sequence[int | float]) -> int:
    total = np.cumsum(np.array(weights, np.float64))
    return int(min(np.searchsorted(total, rng.random() * total[-1], side="right"), len(weights) - 1))

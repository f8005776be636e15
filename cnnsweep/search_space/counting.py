"""Valid configurations counted, listed and drawn uniformly, exactly, in spaces far too large to enumerate.

Dynamic programming from the last stage to the first: for every shape that a stage can meet, the costs that the rest of
the stack can come to, each with the number of ways to it (`Profile`). Equal costs are merged, and those above a limit
are dropped as soon as they are, since costs only grow.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cnnsweep.geometry.network import Shape
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values
from cnnsweep.search_space.stages import Cost, Option, Stage, Track, kernel, tracks, walk

COLUMNS = {"parameters": (0, 1.0), "mmacs": (1, 1e-6), "activation_mb": (2, 1e-6)}
"""For each limit the place in a cost, and the unit in which the limit is given."""
MOST_ROWS = 8_000_000
_MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class TooLarge(Exception):  # noqa: N818
    """The costs do not merge well enough to be held in memory."""


@dataclass(frozen=True)
class Profile:
    """What the rest of a stack can cost, and in how many ways."""

    costs: np.ndarray
    """(rows, columns) int64, no two rows alike."""
    ways: np.ndarray
    """(rows,) int64; float64 where the space is larger than that."""

    def within(self, room: np.ndarray) -> np.ndarray:
        """Which rows cost at most `room`, column by column."""
        fits = np.ones(len(self.ways), bool)
        for column in range(self.costs.shape[1]):
            fits &= self.costs[:, column] <= room[column]
        return fits

    def count(self, room: np.ndarray) -> Any:
        """How many ways cost at most `room`."""
        if (room < 0).any():
            return 0
        return self.ways[self.within(room)].sum().item() if self.costs.shape[1] else self.ways.sum().item()


def merged(costs: np.ndarray, ways: np.ndarray, room: np.ndarray) -> Profile:
    """Drop what costs more than `room`, and add up the ways of equal rows."""
    every = Profile(costs, ways)
    fits = every.within(room)
    costs, ways = costs[fits], ways[fits]
    if not len(ways):
        return Profile(costs, ways)
    keys = (costs.astype(np.uint64) * _MIXERS[: costs.shape[1]]).sum(1, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    keys, costs, ways = keys[order], costs[order], ways[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    again = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(keys)]))
    if (costs[first][again] != costs).any():  # two costs share a key, which one in 10^9 tables of a million does
        rows, inverse = np.unique(costs, axis=0, return_inverse=True)
        total = np.zeros(len(rows), ways.dtype)
        np.add.at(total, inverse, ways)
        return Profile(rows, total)
    return Profile(costs[first], np.add.reduceat(ways, first))


class Lattice:
    """The valid configurations of a problem. Raises `TooLarge` where they cannot be counted exactly."""

    def __init__(self, problem: Problem, found: Sequence[Track], also: Sequence[str] = ()) -> None:
        """`also` names costs to follow besides those that are limited, for `extreme`."""
        self.problem = problem
        self.tracks = found
        limits = {name: limit for name, limit in problem.config["limits"].items() if limit is not None}
        self.columns = [name for name in COLUMNS if name in limits or name in also]
        self._places = [COLUMNS[name][0] for name in self.columns]
        most = [self._whole(name, limits.get(name)) for name in self.columns]
        self.room = np.array(most, np.int64)
        self._type = np.int64 if problem.space.size < 2**62 else np.float64
        self._profiles: dict[tuple[Any, ...], Profile] = {}
        self._rows = 0

    @staticmethod
    def _whole(name: str, limit: float | None) -> int:
        """The largest cost within a limit."""
        if limit is None:
            return 2**62
        unit = COLUMNS[name][1]
        cost = min(int(limit / unit) + 2, 2**62)
        while cost * unit > limit if unit == 1.0 else cost / 1e6 > limit:
            cost -= 1
        return cost

    @cached_property
    def totals(self) -> list[Any]:
        """Valid configurations of each track."""
        return [t.weight * self._count(t.stages, self.problem.input_shape, self.room) for t in self.tracks]

    @cached_property
    def valid(self) -> Any:
        """How many configurations are valid, a continuous range counted as one value."""
        return sum(self.totals)

    def draw(self, rng: np.random.Generator) -> Values | None:
        """Draw uniformly from the valid configurations; None where there is none."""
        if not self.valid:
            return None
        track = self.tracks[_pick(rng, self.totals)]
        chosen = dict(track.values)
        shape: Shape = self.problem.input_shape
        room = self.room
        for index in range(len(track.stages)):
            branches = list(self._branches(track.stages[index:], shape, room))
            option, shape, room, _ = branches[_pick(rng, [b[3] for b in branches])]
            chosen |= dict(option.values)
        chosen |= {p.name: p.at(rng.random()) for p in track.rest}
        return self._ordered(chosen)

    def members(self) -> Iterator[tuple[Track, Values]]:
        """Every valid path, as the values that it fixes; `track.rest` is free."""
        for track, total in zip(self.tracks, self.totals, strict=True):
            if total:
                yield from self._members(track, dict(track.values), 0, self.problem.input_shape, self.room)

    def complete(self, track: Track, values: Values, rng: np.random.Generator) -> Values:
        """Draw what a member leaves free."""
        return self._ordered({**values, **{p.name: p.at(rng.random()) for p in track.rest}})

    def extreme(self, column: str, largest: bool) -> Values:
        """The valid configuration with the least or most of a cost; what is free is set to its middle."""
        place = self.columns.index(column)
        found: list[tuple[int, Track, np.ndarray]] = []
        for track, total in zip(self.tracks, self.totals, strict=True):
            if total:
                cost = self._extreme(track.stages, self.problem.input_shape, self.room, place, largest)
                assert cost is not None
                found.append((int(cost[place]), track, cost))
        _, track, cost = (max if largest else min)(found, key=lambda f: f[0])
        values = dict(track.values) | {p.name: p.at(0.5) for p in track.rest}
        return self._ordered(values | self._trace(track.stages, self.problem.input_shape, cost))

    def _extreme(
        self, stages: Sequence[Stage], shape: Shape, room: np.ndarray, place: int, largest: bool
    ) -> np.ndarray | None:
        if len(stages) < len(self._longest) - 1:
            profile = self.profile(stages, shape)
            costs = profile.costs[profile.within(room)]
            order = costs[:, place].argmax if largest else costs[:, place].argmin
            return costs[order()] if len(costs) else None
        best = None
        for after, cost in _groups(stages[0], shape):
            spent = self._cost(cost)
            rest = self._extreme(stages[1:], after, room - spent, place, largest) if (spent <= room).all() else None
            if rest is not None and (
                best is None or (rest + spent)[place] * _sign(largest) > best[place] * _sign(largest)
            ):
                best = rest + spent
        return best

    def _trace(self, stages: Sequence[Stage], shape: Shape, target: np.ndarray) -> Values:
        """The options of a path that costs exactly so much, of which there is one."""
        for option, after, left, _ in self._branches(stages, shape, target):
            if len(stages) == 1:
                if not left.any():
                    return dict(option.values)
            elif self._reaches(stages[1:], after, left):
                return dict(option.values) | self._trace(stages[1:], after, left)
        raise AssertionError("no path costs this")

    def _reaches(self, stages: Sequence[Stage], shape: Shape, target: np.ndarray) -> bool:
        if len(stages) < len(self._longest) - 1:
            return bool((self.profile(stages, shape).costs == target).all(1).any())
        return any(
            self._reaches(stages[1:], after, target - self._cost(cost)) for after, cost in _groups(stages[0], shape)
        )

    def _members(
        self, track: Track, values: Values, index: int, shape: Shape, room: np.ndarray
    ) -> Iterator[tuple[Track, Values]]:
        if index == len(track.stages):
            yield track, values
            return
        for option, after, left, _ in self._branches(track.stages[index:], shape, room):
            yield from self._members(track, {**values, **dict(option.values)}, index + 1, after, left)

    def _branches(
        self, stages: Sequence[Stage], shape: Shape, room: np.ndarray
    ) -> Iterator[tuple[Option, Shape, np.ndarray, Any]]:
        """Each option that leads to something valid: (option, shape after it, room left, ways on)."""
        known: dict[Any, Any] = {}
        for option in stages[0]:
            found = walk(option.layers, shape)
            if found is None:
                continue
            if found not in known:
                left = room - self._cost(found[1])
                known[found] = left, self._count(stages[1:], found[0], left)
            left, ways = known[found]
            if ways:
                yield option, found[0], left, ways

    def _count(self, stages: Sequence[Stage], shape: Shape, room: np.ndarray) -> Any:
        """Ways through the stages within the room. The first block is not made a profile of: its costs are many."""
        if len(stages) < len(self._longest) - 1:
            return self.profile(stages, shape).count(room)
        ways = 0
        for (after, cost), count in _groups(stages[0], shape).items():
            left = room - self._cost(cost)
            if (left >= 0).all():
                ways += count * self._count(stages[1:], after, left)
        return ways

    @cached_property
    def _longest(self) -> Sequence[Stage]:
        return max((t.stages for t in self.tracks), key=len)

    def profile(self, stages: Sequence[Stage], shape: Shape) -> Profile:
        """What these stages can cost from this shape on."""
        key = (shape, *(_kernel_of(stage) for stage in stages))
        found = self._profiles.get(key)
        if found is None:
            found = self._profiles[key] = self._make(stages, shape)
            self._rows += len(found.ways)
            if self._rows > MOST_ROWS:
                raise TooLarge
        return found

    def _make(self, stages: Sequence[Stage], shape: Shape) -> Profile:
        if not stages:
            return Profile(np.zeros((1, len(self.columns)), np.int64), np.ones(1, self._type))
        costs = [np.zeros((0, len(self.columns)), np.int64)]
        ways = [np.zeros(0, self._type)]
        size = 0
        for (after, cost), count in _groups(stages[0], shape).items():
            rest = self.profile(stages[1:], after)
            costs.append(rest.costs + self._cost(cost))
            ways.append(rest.ways * count)
            size += len(rest.ways)
            if size > 2 * MOST_ROWS:
                raise TooLarge
        return merged(np.concatenate(costs), np.concatenate(ways), self.room)

    def _cost(self, cost: Cost) -> np.ndarray:
        return np.array([cost[place] for place in self._places], np.int64)

    def _ordered(self, values: Mapping[str, Any]) -> Values:
        return {p.name: values[p.name] for p in self.problem.space.parameters if p.name in values}


def lattice(problem: Problem, also: Sequence[str] = ()) -> Lattice | None:
    """The lattice of a problem, or None where its model family tells too little, or its space is too varied."""
    found = tracks(problem)
    return None if found is None else Lattice(problem, found, also)


def listed(problem: Problem, most: int) -> list[Values] | None:
    """Every valid configuration in the order of `Space.enumerate`; None where they are more than `most` or endless."""
    space = problem.space
    if space.continuous:
        return None
    if space.size <= most:
        return [values for values in space.enumerate() if problem.judge(values).fault is None]
    try:
        found = lattice(problem)
        if found is None or found.valid > most:
            return None
    except TooLarge:
        return None
    places = [(p.name, {value: i for i, value in enumerate(p.grid or ())}) for p in space.parameters]
    every = [found._ordered(values | dict(free)) for track, values in found.members() for free in _free(track)]
    return sorted(every, key=lambda values: [at[values[name]] if name in values else 0 for name, at in places])


def _free(track: Track) -> Iterator[list[tuple[str, Any]]]:
    for combination in itertools.product(*(p.grid or () for p in track.rest)):
        yield [(p.name, value) for p, value in zip(track.rest, combination, strict=True)]


_kernels: dict[int, tuple[Stage, frozenset[Any]]] = {}


def _kernel_of(stage: Stage) -> frozenset[Any]:
    """What of a stage decides the costs, the same for stages that only differ in, say, their activation."""
    kept = _kernels.get(id(stage))
    if kept is None or kept[0] is not stage:
        kept = stage, frozenset(Counter(kernel(o.layers) for o in stage).items())
        _kernels[id(stage)] = kept
    return kept[1]


def _groups(stage: Stage, shape: Shape) -> Counter[tuple[Shape, Cost]]:
    """Options that lead to the same shape at the same cost, and how many they are."""
    return Counter(found for option in stage if (found := walk(option.layers, shape)) is not None)


def _sign(largest: bool) -> int:
    return 1 if largest else -1


def _pick(rng: np.random.Generator, weights: Sequence[Any]) -> int:
    total = np.cumsum(np.array(weights, np.float64))
    return int(min(np.searchsorted(total, rng.random() * total[-1], side="right"), len(weights) - 1))

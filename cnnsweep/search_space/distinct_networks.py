"""How many different networks a space holds, exactly, without building them.

A network's signature (`Network.signature`) is a word whose letters are the normal forms of its layers, and a space's
configurations are the paths of an automaton that spells them. Two paths can spell one word, so the automaton is made
deterministic by the subset construction, and its words are counted instead of its paths. Costs are carried along:
spellings of one word may differ in them, and the word counts where any of its spellings is within the limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from cnnsweep.geometry.canonical import Part, add_normal_form, is_open
from cnnsweep.geometry.network import Shape
from cnnsweep.search_space.counting import MOST_ROWS, Lattice, Profile, TooLarge, merged
from cnnsweep.search_space.stages import Content, Track, step

MOST_STATES = 150_000
_LAZY = 5
"""So many letters from the start, about a block, costs are not gathered into profiles but counted through."""
Vector = tuple[int, ...]
Parts = tuple[Part, ...]
Stage = frozenset[tuple[Content, ...]]
Node = tuple[tuple[Content, ...], tuple[Stage, ...], Shape, Parts, Parts]
"""Layers left of the stage begun, stages after it, the shape now, letters that come next whatever follows, and
averages that a later one may take back."""
State = frozenset[tuple[Node, Vector]]
"""Where the spellings of a word so far have come to, and by how much each costs more than the cheapest."""


def distinct(lattice: Lattice) -> Any:
    """How many (signature, other searched keys) there are among the valid configurations; continuous keys as one.

    Raises `TooLarge` where the automaton is too large.
    """
    words = _Words(lattice)
    usable = [t for t, total in zip(lattice.tracks, lattice.totals, strict=True) if total]
    total = 0
    for _, tracks in groupby(sorted(usable, key=lambda t: repr(t.group)), key=lambda t: t.group):
        alike = list(tracks)
        others = math.prod(len(p.grid) for p in alike[0].rest if p.grid and not p.name.startswith("model."))
        total += others * words.count(_starts(alike, lattice.problem.input_shape))
    return total


def networks(lattice: Lattice) -> Any:
    """How many signatures there are among the valid configurations, whatever they are trained with."""
    usable = [t for t, total in zip(lattice.tracks, lattice.totals, strict=True) if total]
    return _Words(lattice).count(_starts(usable, lattice.problem.input_shape))


def _starts(tracks: Iterable[Track], shape: Shape) -> list[Node]:
    """The first node of each track; those that differ in their heads only become one."""
    heads: dict[tuple[Stage, ...], set[tuple[Content, ...]]] = {}
    for track in tracks:
        stages = [frozenset(option.layers for option in stage) for stage in track.stages]
        heads.setdefault(tuple(stages[:-1]), set()).update(stages[-1])
    return [((), (*before, frozenset(head)), shape, (), ()) for before, head in heads.items()]


class _Words:
    """Counts words from any set of nodes."""

    def __init__(self, lattice: Lattice) -> None:
        limits = lattice.problem.config["limits"]
        kept = [i for i, name in enumerate(lattice.columns) if limits[name] is not None]
        self._places = [lattice._places[i] for i in kept]
        self._room = lattice.room[kept]
        self._type = lattice._type
        self._moves: dict[Node, _Moves] = {}
        self._profiles: dict[State, dict[State | frozenset[Vector], Profile]] = {}
        self._rows = 0

    def count(self, starts: Sequence[Node]) -> Any:
        nothing = (0,) * len(self._places)
        return self._count(frozenset((node, nothing) for node in starts), self._room, 0)

    def _count(self, state: State, room: np.ndarray, letters: int) -> Any:
        if letters >= _LAZY:
            return sum(_count_any(ways, profile, room) for ways, profile in self._profile(state).items())
        ends, moves = self._step(state)
        total: Any = int(any((np.array(end) <= room).all() for end in ends))
        for after, spent in moves:
            left = room - np.array(spent, np.int64)
            if (left >= 0).all():
                total += self._count(after, left, letters + 1)
        return total

    def _profile(self, state: State) -> dict[Any, Profile]:
        """The costs of all words from here on, by how much more their other spellings cost."""
        found = self._profiles.get(state)
        if found is None:
            gathered: dict[Any, list[tuple[np.ndarray, np.ndarray]]] = {}
            ends, moves = self._step(state)
            if ends:
                offsets, least = _relative(_cheapest(ends))
                row = np.array([least], np.int64).reshape(1, len(self._places))
                gathered.setdefault(offsets, []).append((row, np.ones(1, self._type)))
            for after, spent in moves:
                for offsets, profile in self._profile(after).items():
                    costs = profile.costs + np.array(spent, np.int64)
                    gathered.setdefault(offsets, []).append((costs, profile.ways))
            found = self._profiles[state] = {k: self._merge(v) for k, v in gathered.items()}
            self._rows += sum(len(p.ways) for p in found.values())
            if self._rows > MOST_ROWS or len(self._profiles) > MOST_STATES:
                raise TooLarge
        return found

    def _merge(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> Profile:
        return merged(np.concatenate([c for c, _ in parts]), np.concatenate([w for _, w in parts]), self._room)

    def _step(self, state: State) -> tuple[list[Vector], list[tuple[State, Vector]]]:
        """What words may end here (at which costs), and the state after each letter with the least it costs."""
        ends: list[Vector] = []
        reached: dict[Part, set[tuple[Node, Vector]]] = {}
        for node, offset in state:
            stops, moves = self._of(node)
            ends += [_add(offset, cost) for cost in stops]
            for letter, after, cost in moves:
                reached.setdefault(letter, set()).add((after, _add(offset, cost)))
        return ends, [_normal(nodes) for nodes in reached.values()]

    def _of(self, node: Node) -> _Moves:
        if node not in self._moves:
            stops: list[Vector] = []
            moves: list[tuple[Part, Node, Vector]] = []
            for letter, after, cost in _walk(node, (0,) * len(self._places), self._places):
                if after is None:
                    stops.append(cost)
                else:
                    moves.append((letter, after, cost))
            self._moves[node] = stops, moves
            if len(self._moves) > MOST_STATES:
                raise TooLarge
        return self._moves[node]


_Moves = tuple[list[Vector], list[tuple[Part, Node, Vector]]]


def _walk(node: Node, spent: Vector, places: Sequence[int]) -> Iterator[tuple[Part, Node | None, Vector]]:
    """Follow the layers from a node to those that spell a letter; the word's end comes with None."""
    layers, stages, shape, sure, pending = node
    if sure:
        yield sure[0], (layers, stages, shape, sure[1:], pending), spent
    elif not layers and not stages:
        if pending:  # nothing can take it back any more
            yield pending[0], ((), (), shape, pending[1:], ()), spent
        else:
            yield ("end",), None, spent
    elif not layers:
        for option in stages[0]:
            yield from _walk((option, stages[1:], shape, (), pending), spent, places)
    elif (found := _spell(layers[0], shape, pending)) is not None:
        sure, waiting, after, cost = found
        total = tuple(s + cost[p] for s, p in zip(spent, places, strict=True))
        yield from _walk((layers[1:], stages, after, sure, waiting), total, places)


@lru_cache(maxsize=500_000)
def _spell(layer: Content, shape: Shape, pending: Parts) -> tuple[Parts, Parts, Shape, Any] | None:
    """What a layer adds to the word for good, what waits behind that, the shape after it and its cost."""
    found = step(layer, shape)
    if found is None:
        return None
    parts = list(pending)
    add_normal_form(parts, layer[0], dict(layer[1]), shape, found[0])
    fixed = len(parts)
    while fixed and is_open(parts[fixed - 1]):
        fixed -= 1
    return tuple(parts[:fixed]), tuple(parts[fixed:]), *found


def _normal(nodes: set[tuple[Node, Vector]]) -> tuple[State, Vector]:
    least = tuple(map(min, zip(*(cost for _, cost in nodes), strict=True)))
    return frozenset((node, _minus(cost, least)) for node, cost in nodes), least


def _cheapest(costs: Iterable[Vector]) -> set[Vector]:
    """Those that no other undercuts in every column."""
    every = set(costs)
    return {c for c in every if not any(o != c and all(a <= b for a, b in zip(o, c, strict=True)) for o in every)}


def _relative(costs: set[Vector]) -> tuple[frozenset[Vector], Vector]:
    least = tuple(map(min, zip(*costs, strict=True)))
    return frozenset(_minus(cost, least) for cost in costs), least


def _count_any(offsets: Iterable[Vector], profile: Profile, room: np.ndarray) -> Any:
    fits = np.zeros(len(profile.ways), bool)
    for offset in offsets:
        left = room - np.array(offset, np.int64)
        if (left >= 0).all():
            fits |= profile.within(left)
    return profile.ways[fits].sum().item()


def _add(a: Vector, b: Vector) -> Vector:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _minus(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))

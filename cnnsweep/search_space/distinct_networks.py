"""The number of different networks in a space, exactly, without building them.

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

import numpy as np

from cnnsweep.geometry.canonical import add_normal_form, is_open
from cnnsweep.geometry.settings import Cost, Part, Shape
from cnnsweep.search_space.counting import MAX_ROWS, CostTable, ValidConfigurations, merged
from cnnsweep.search_space.stages import Content, Track, Uncountable, step

MAX_STATES = 150_000
_WALKED = 5
"""So many letters from the start, about a block, words are walked through; after that there are tables of costs."""
Vector = tuple[int, ...]
"""Costs that are limited."""
Parts = tuple[Part, ...]
Options = frozenset[tuple[Content, ...]]
"""The different layers of one stage's options."""
Node = tuple[tuple[Content, ...], tuple[Options, ...], Shape, Parts, Parts]
"""Other layers of the stage begun, stages after it, the shape now, letters that come next in any case, and
averages that a later one may remove."""
State = frozenset[tuple[Node, Vector]]
"""The nodes that the spellings of a word so far have reached, and how much more each costs than the cheapest."""
Offsets = frozenset[Vector]
"""The costs of the spellings of a word above the least in each column."""
Move = tuple[Part, Node | None, Vector]
"""From a node: the next letter, the node after it (None where the word ends) and the cost."""


def count_distinct(valid: ValidConfigurations) -> int | float:
    """The number of pairs (signature, other searched keys) among the valid configurations; continuous keys as one.

    Raises `Uncountable` where the automaton is too large.
    """
    words = _Words(valid)
    total: int | float = 0
    for _, tracks in groupby(sorted(valid.tracks, key=lambda t: repr(t.group)), key=lambda t: t.group):
        alike = list(tracks)
        others = math.prod(len(p.grid) for p in alike[0].rest if p.grid and not p.name.startswith("model."))
        total += others * words.count(_starts(alike, valid.problem.input_shape))
    return total


def count_networks(valid: ValidConfigurations) -> int | float:
    """The number of signatures among the valid configurations, for any training."""
    return _Words(valid).count(_starts(valid.tracks, valid.problem.input_shape))


def _starts(tracks: Iterable[Track], shape: Shape) -> list[Node]:
    """The first node of each track; those that differ in their heads only become one."""
    heads: dict[tuple[Options, ...], set[tuple[Content, ...]]] = {}
    for track in tracks:
        *before, head = (frozenset(option.layers for option in stage.options) for stage in track.stages)
        heads.setdefault(tuple(before), set()).update(head)
    return [((), (*before, frozenset(head)), shape, (), ()) for before, head in heads.items()]


class _Words:
    """Counts words from any set of nodes."""

    def __init__(self, valid: ValidConfigurations) -> None:
        limited = [i for i, name in enumerate(valid.columns) if name in valid.problem.limits]
        self._places = [valid.places[i] for i in limited]
        self._room = valid.room[limited]
        self._dtype = valid.dtype
        self._moves: dict[Node, list[Move]] = {}
        self._tables: dict[State, dict[Offsets, CostTable]] = {}
        self._rows = 0

    def count(self, starts: Sequence[Node]) -> int | float:
        nothing = (0,) * len(self._places)
        return self._count(frozenset((node, nothing) for node in starts), self._room, 0)

    def _count(self, state: State, room: np.ndarray, letters: int) -> int | float:
        if letters >= _WALKED:
            return sum(_count_any(offsets, table, room) for offsets, table in self._table(state).items())
        ends, moves = self._step(state)
        total: int | float = int(any((np.array(end) <= room).all() for end in ends))
        for after, spent in moves:
            left = room - np.array(spent, np.int64)
            if (left >= 0).all():
                total += self._count(after, left, letters + 1)
        return total

    def _table(self, state: State) -> dict[Offsets, CostTable]:
        """The least costs of all words from here on, by how much more their other spellings cost."""
        if state not in self._tables:
            gathered: dict[Offsets, list[tuple[np.ndarray, np.ndarray]]] = {}
            ends, moves = self._step(state)
            if ends:
                offsets, least = _relative(_cheapest(ends))
                row = np.array([least], np.int64).reshape(1, len(self._places))
                gathered.setdefault(offsets, []).append((row, np.ones(1, self._dtype)))
            for after, spent in moves:
                for offsets, table in self._table(after).items():
                    costs = table.costs + np.array(spent, np.int64)
                    gathered.setdefault(offsets, []).append((costs, table.ways))
            self._tables[state] = {offsets: self._merge(parts) for offsets, parts in gathered.items()}
            self._rows += sum(len(table.ways) for table in self._tables[state].values())
            if self._rows > MAX_ROWS or len(self._tables) > MAX_STATES:
                raise Uncountable
        return self._tables[state]

    def _merge(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> CostTable:
        costs, ways = zip(*parts, strict=True)
        return merged(np.concatenate(costs), np.concatenate(ways), self._room)

    def _step(self, state: State) -> tuple[list[Vector], list[tuple[State, Vector]]]:
        """The costs at which words may end here, and the state after each letter with the least it costs."""
        ends: list[Vector] = []
        reached: dict[Part, set[tuple[Node, Vector]]] = {}
        for node, offset in state:
            if node not in self._moves:
                self._moves[node] = list(_walk(node, (0,) * len(self._places), self._places))
                if len(self._moves) > MAX_STATES:
                    raise Uncountable
            for letter, after, cost in self._moves[node]:
                if after is None:
                    ends.append(_add(offset, cost))
                else:
                    reached.setdefault(letter, set()).add((after, _add(offset, cost)))
        return ends, [_normal(nodes) for nodes in reached.values()]


def _walk(node: Node, spent: Vector, places: Sequence[int]) -> Iterator[Move]:
    """Follow the layers from a node to those that spell a letter; the word's end comes with None."""
    layers, stages, shape, sure, pending = node
    if sure:
        yield sure[0], (layers, stages, shape, sure[1:], pending), spent
    elif not layers and not stages:
        if pending:  # nothing can remove it any more
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
def _spell(layer: Content, shape: Shape, pending: Parts) -> tuple[Parts, Parts, Shape, Cost] | None:
    """The letters that are sure after a layer, those that may be removed yet, the shape after it and its cost."""
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
    least = _least(cost for _, cost in nodes)
    return frozenset((node, _minus(cost, least)) for node, cost in nodes), least


def _cheapest(costs: Iterable[Vector]) -> set[Vector]:
    """Those for which no other costs as little or less in every column."""
    every = set(costs)
    return {c for c in every if not any(o != c and all(a <= b for a, b in zip(o, c, strict=True)) for o in every)}


def _relative(costs: set[Vector]) -> tuple[Offsets, Vector]:
    least = _least(costs)
    return frozenset(_minus(cost, least) for cost in costs), least


def _count_any(offsets: Offsets, table: CostTable, room: np.ndarray) -> int | float:
    fits = np.zeros(len(table.ways), bool)
    for offset in offsets:
        fits |= table.within(room - np.array(offset, np.int64))
    found: int | float = table.ways[fits].sum().item()
    return found


def _least(costs: Iterable[Vector]) -> Vector:
    return tuple(map(min, zip(*costs, strict=True)))


def _add(a: Vector, b: Vector) -> Vector:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _minus(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))

"""The interface of samplers: observations to learn from, and configurations: as points, and those not proposed yet."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from cnnsweep.search_space.counting import ValidConfigurations, list_valid
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Space, Values
from cnnsweep.search_space.stages import Uncountable

ENUMERABLE = 20_000
"""A space of at most so many configurations is listed once drawing at random finds nothing new."""
AGAIN = 30
"""Further candidates that are looked at, where the first takes longer than the time left."""
TRIES, TRIES_IF_LISTABLE, TRIES_IN_TIME = 2_000, 100, 30
RARE = 200
"""Where none of so many drawn at random is valid, none is looked for in that way."""


@dataclass(frozen=True)
class Observation:
    """A configuration and its scores."""

    values: Mapping[str, Any]
    """Keys of the space; a trial of another sweep may lack some."""
    scores: tuple[float, ...]
    """One for each objective, smaller is better."""


@dataclass(frozen=True)
class History:
    """All that is known when a configuration is asked for."""

    space: Space
    seen: Sequence[Observation]
    """In the order in which they were started."""
    pending: Sequence[Mapping[str, Any]]
    """Configurations that were proposed and have no score yet."""
    max_trials: int | None
    seed: int
    allows: Callable[[Values], bool]
    """True for a configuration that is valid and new."""


class Sampler(ABC):
    """A model-based algorithm. It keeps nothing that the history does not say."""

    slow: ClassVar[bool] = False
    """True where a proposal takes more than 100 ms after 200 trials (experiments/benchmarks/ask.py)."""

    @abstractmethod
    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        """Configurations, the best first; the oracle takes the first that is valid and new."""


@dataclass
class Curves:
    """The objective's values of each configuration, by epoch, smaller is better."""

    by_id: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, id_: str, epoch: int, value: float) -> None:
        self.by_id.setdefault(id_, {})[epoch] = value

    def best(self, id_: str, until: float = np.inf) -> float | None:
        """The best value up to an epoch; None where there is none."""
        return min((value for epoch, value in self.by_id.get(id_, {}).items() if epoch <= until), default=None)

    def table(self, ids: Sequence[str], until: Sequence[float]) -> np.ndarray:
        """The best value of each up to each of these epochs, (ids, epochs); infinity where there is none."""
        curves = [self.by_id.get(id_, {}) for id_ in ids]
        row = np.repeat(np.arange(len(ids)), [len(curve) for curve in curves])
        epoch = np.array([epoch for curve in curves for epoch in curve])
        value = np.array([value for curve in curves for value in curve.values()])
        found = np.full((len(ids), len(until)), np.inf)
        for column, last in enumerate(until):
            np.minimum.at(found[:, column], row[epoch <= last], value[epoch <= last])
        return found

    def best_epoch(self, id_: str) -> int:
        epochs = self.by_id[id_]
        return min(epochs, key=lambda epoch: epochs[epoch])

    def until(self, epochs: Mapping[str, int]) -> Curves:
        """The curves as they were when these configurations had so many epochs."""
        cut = {
            id_: {epoch: value for epoch, value in self.by_id.get(id_, {}).items() if epoch <= last}
            for id_, last in epochs.items()
        }
        return Curves({**self.by_id, **cut})

    def reached(self, id_: str) -> int:
        return max(self.by_id.get(id_, {}), default=0)

    def level(self, ids: Sequence[str], rungs: Sequence[int], enough: int) -> dict[str, float]:
        """Values at the highest rung that `enough` configurations have reached (as in BOHB, Falkner et al. 2018).

        A configuration that was trained for fewer epochs is assumed to improve by the median improvement of the others.
        """
        known = [id_ for id_ in ids if self.reached(id_) >= min(rungs)]
        counts = {rung: sum(self.reached(id_) >= rung for id_ in known) for rung in rungs}
        rung = max((r for r in rungs if counts[r] >= enough), default=min(rungs))
        there = {
            id_: value for id_ in known if self.reached(id_) >= rung and (value := self.best(id_, rung)) is not None
        }
        found = dict(there)
        for id_ in (id_ for id_ in known if id_ not in there):
            below = max(r for r in rungs if r <= self.reached(id_))
            gains = [there[other] - (self.best(other, below) or 0.0) for other in there]
            if (value := self.best(id_, below)) is not None:
                found[id_] = value + float(np.median(gains) if gains else 0.0)
        return found


class Cube:
    """Configurations as points of the unit cube.

    A number is its quantile, a word has a dimension for each choice; true and false share one dimension.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._widths = [
            len(p.choices or ()) if p.categorical and len(p.choices or ()) > 2 else 1 for p in space.parameters
        ]
        self.dimensions = max(2, sum(self._widths))
        """At least two, as CMA-ES requires."""

    def encode(self, values: Mapping[str, Any]) -> np.ndarray:
        """A point; an inactive key is in the middle."""
        point: list[float] = []
        for p, width in zip(self._space.parameters, self._widths, strict=True):
            if p.name not in values:
                point += [0.5] * width
            elif p.categorical and width > 1:
                point += [0.8 if values[p.name] == choice else 0.2 for choice in p.choices or ()]
            elif p.categorical:
                point.append(((p.choices or ()).index(values[p.name]) + 0.5) / len(p.choices or ()))
            else:
                point.append(p.quantile(values[p.name]))
        return np.array(point + [0.5] * (self.dimensions - len(point)))

    def decode(self, point: np.ndarray) -> Values:
        found: Values = {}
        start = 0
        for p, width in zip(self._space.parameters, self._widths, strict=True):
            part = np.clip(point[start : start + width], 0.0, 1.0)
            found[p.name] = (p.choices or ())[int(part.argmax())] if width > 1 else p.at(float(part[0]))
            start += width
        return _active(self._space, found)


def neighbour(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
    """Change one or two keys: a number by a normal step, a word to any other; keys that become active are drawn."""
    changed = dict(values)
    for name in rng.choice(list(values), size=min(len(values), int(rng.integers(1, 3))), replace=False):
        p = space.by_name[str(name)]
        step = rng.normal(0, 0.2)
        near = rng.random() if p.categorical else float(np.clip(p.quantile(values[p.name]) + step, 0, 1 - 1e-9))
        changed[p.name] = p.at(near)
    drawn = {p.name: p.at(rng.random()) for p in space.parameters}
    return _active(space, {**drawn, **changed})


def at_quantiles(space: Space, quantiles: np.ndarray) -> Values:
    """The configuration at these quantiles, one for each parameter."""
    return _active(space, {p.name: p.at(float(u)) for p, u in zip(space.parameters, quantiles, strict=True)})


def _active(space: Space, values: Mapping[str, Any]) -> Values:
    return {p.name: values[p.name] for p in space.active(values)}


class Untried:
    """The valid configurations of a problem that have not been proposed yet."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._proposed: set[Hashable] = set()
        self._left: list[tuple[Values, Hashable]] | None = None
        self._listable = True
        self.fits: Callable[[Values], bool] = lambda _: True
        """Whether a configuration can be trained in the time left. Such are preferred where they are easily found."""

    def __contains__(self, values: Values) -> bool:
        validity = self._problem.validate(values)
        return validity.fault is None and validity.signature not in self._proposed

    def all_valid(self) -> Untried:
        """The same where none has been proposed; what was counted of the space is shared."""
        found = copy(self)
        found._proposed, found._left, found.fits = set(), None, lambda _: True
        return found

    def remove(self, values: Values) -> None:
        """Record a configuration as proposed."""
        self._proposed.add(self._problem.validate(values).signature)

    def first_of(self, candidates: Iterator[Values], rng: np.random.Generator) -> Values | None:
        """The first candidate that is valid and new.

        Where it does not fit into the time left: a later one that does, or one drawn at random, or the first after all.
        """
        new = (values for values in candidates if values in self)
        if (first := next(new, None)) is None or self.fits(first):
            return first
        found = next((values for values in itertools.islice(new, AGAIN) if self.fits(values)), None) or self.draw(rng)
        return found if found is not None and self.fits(found) else first

    def draw(self, rng: np.random.Generator, evenly: bool = False) -> Values | None:
        """Draw a configuration that is valid and new; None where none is left.

        Rejection keeps the distribution of `Space.draw`, or of `Space.draw_evenly`. Where little is valid or left, the
        configurations are listed.
        """
        space = self._problem.space
        tries = TRIES_IF_LISTABLE if not space.continuous and space.size <= ENUMERABLE else TRIES
        one = space.draw_evenly if evenly else space.draw
        if not self._rare and (found := self._first_in_time(one(rng) for _ in range(tries))) is not None:
            return found
        if self._left is None and self._listable:
            valid = list_valid(self._problem, ENUMERABLE)
            self._listable = valid is not None
            self._left = [(values, self._problem.validate(values).signature) for values in valid or []]
        if not self._listable:  # too rare to be found by chance and too many to list
            rare = self._valid.draw if self._valid else space.draw
            return self._first_in_time(rare(rng) for _ in range(TRIES))
        self._left = [(values, signature) for values, signature in self._left or [] if signature not in self._proposed]
        return self._first_in_time(dict(self._left[place][0]) for place in rng.permutation(len(self._left)))

    def _first_in_time(self, candidates: Iterator[Values | None]) -> Values | None:
        """The first that is new and can be trained in the time left, or the first new one after all."""
        found: Values | None = None
        too_long = 0
        for values in candidates:
            if values is None or values not in self:
                continue
            if self.fits(values):
                return values
            found, too_long = found or values, too_long + 1
            if too_long == TRIES_IN_TIME:
                break
        return found

    @cached_property
    def _rare(self) -> bool:
        """Whether hardly any configuration is valid. Drawn with a seed of its own, so that it is the same on resume."""
        rng, problem = np.random.default_rng(0), self._problem
        return all(problem.validate(problem.space.draw(rng)).fault is not None for _ in range(RARE))

    @cached_property
    def _valid(self) -> ValidConfigurations | None:
        try:
            return ValidConfigurations(self._problem)
        except Uncountable:
            return None

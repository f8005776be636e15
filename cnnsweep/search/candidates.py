"""The configurations among which a model chooses its proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnsweep.search.curve_model import encode
from cnnsweep.search.observations import Untried, neighbour
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values

DRAWN, DRAWN_TO_BUILD = 32, 8
"""Candidates drawn for each proposal, half of them evenly over all configurations; the second where each network is
built to be measured.
"""
KEPT = 4
"""The number of proposals that choose among them."""


@dataclass(frozen=True)
class Candidate:
    """A valid configuration with what is computed of it once."""

    values: Values
    point: list[float]
    """Encoded as `curve_model.encode` says."""
    cost: float
    """Of its first epoch, in seconds of the arithmetic."""


class Candidates:
    """Drawing and measuring a configuration takes longer than predicting it: each is kept for several proposals.

    Which they are depends on the seed and a proposal's number alone, so that a sweep that is resumed has the same.
    """

    def __init__(self, problem: Problem, seed: int, cost: Callable[[Values], float]) -> None:
        self._problem, self._seed, self._cost = problem, seed, cost
        self._valid = Untried(problem)  # none of which is ever taken
        self._drawn: dict[int, list[Candidate]] = {}

    def of(self, number: int) -> list[Candidate]:
        """Those for the proposal of this number, 0 and more, tried ones among them."""
        numbers = range(number - KEPT + 1, number + 1)
        self._drawn = {n: self._drawn[n] if n in self._drawn else self._draw(n) for n in numbers}
        return [candidate for drawn in self._drawn.values() for candidate in drawn]

    def changed(self, values: Mapping[str, object], rng: np.random.Generator) -> Values:
        """The configuration with one or two of its keys changed, which may not be valid.

        It may be of another sweep: keys and values that are not of this one's space are left out.
        """
        known = self._problem.space.by_name
        kept = {name: value for name, value in values.items() if name in known and known[name].allows(value)}
        return neighbour(self._problem.space, kept, rng) if kept else {}

    def measured(self, values: Values) -> Candidate:
        return Candidate(values, encode(self._problem, values), self._cost(values))

    def _draw(self, number: int) -> list[Candidate]:
        rng = np.random.default_rng([self._seed, number + KEPT, 1])
        count = DRAWN if self._problem.sizes is None else DRAWN_TO_BUILD
        draws = [self._valid.draw(rng, evenly=turn % 2 > 0) for turn in range(count)]
        return [self.measured(values) for values in draws if values is not None]

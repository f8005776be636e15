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
"""They are among the candidates of so many proposals."""


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

    Which they are depends on the seed and on how many configurations were proposed before, so that a sweep that is
    resumed has the same; it draws those of the last few numbers again.
    """

    def __init__(self, problem: Problem, seed: int, cost: Callable[[Values], float]) -> None:
        self._problem, self._seed, self._cost = problem, seed, cost
        self._count = DRAWN if problem.sizes is None else DRAWN_TO_BUILD
        self._valid: Untried | None = None
        """Of which none is ever taken."""
        self._drawn: dict[int, list[Candidate]] = {}

    def of(self, number: int, untried: Untried, rng: np.random.Generator) -> list[Candidate]:
        """Untried ones for the proposal after `number` configurations.

        Where most of them were tried, others are drawn for this proposal alone.
        """
        self._valid = self._valid or untried.all_valid()
        numbers = range(number - KEPT + 1, number + 1)
        self._drawn = {n: self._drawn[n] if n in self._drawn else self._draw(self._valid, n) for n in numbers}
        found = [candidate for drawn in self._drawn.values() for candidate in drawn if candidate.values in untried]
        while len(found) < self._count and (values := untried.draw(rng)) is not None:
            found.append(self.measured(values))
        return found

    def changed(self, values: Mapping[str, object], rng: np.random.Generator) -> Values:
        """The configuration with one or two of its keys changed, which may not be valid.

        It may be of another sweep: keys and values that are not in this one's space are ignored.
        """
        known = self._problem.space.by_name
        kept = {name: value for name, value in values.items() if name in known and known[name].allows(value)}
        return neighbour(self._problem.space, kept, rng) if kept else {}

    def measured(self, values: Values) -> Candidate:
        return Candidate(values, encode(self._problem, values), self._cost(values))

    def _draw(self, valid: Untried, number: int) -> list[Candidate]:
        rng = np.random.default_rng([self._seed, number + KEPT, 1])
        draws = [valid.draw(rng, evenly=turn % 2 > 0) for turn in range(self._count)]
        return [self.measured(values) for values in draws if values is not None]

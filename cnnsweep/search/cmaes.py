"""CMA-ES (Hansen 2016) with the package `cmaes`, which Optuna uses too, on keys that need not be numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.config.validation import Int
from cnnsweep.errors import UserError
from cnnsweep.search.observations import Cube, History, Sampler
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.space import Values

ASKS = 60
SIGMA = 0.3


class CmaesConfig(SearchConfig):
    startup: Int | None = Field(ge=1)
    population: Int | None = Field(ge=2)


class Cmaes(Sampler):
    """The distribution is computed again from all configurations seen, one population after the other.

    So it also learns from those of `start_with`, `learn_from` and the random ones at the start. A word has a dimension
    for each choice, of which the largest counts; Optuna's sampler would draw words at random.
    """

    def __init__(self, population: int | None = None) -> None:
        try:
            import cmaes
        except ImportError as error:
            raise UserError("search=cmaes needs the package cmaes: pip install cmaes") from error
        self._cmaes, self._population = cmaes, population

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        cube = Cube(history.space)
        size = self._population or min(4 + int(3 * np.log(cube.dimensions)), max(4, (history.max_trials or 60) // 6))
        mean, bounds = np.full(cube.dimensions, 0.5), np.tile([0.0, 1.0], (cube.dimensions, 1))
        search = self._cmaes.CMA(mean, SIGMA, bounds, population_size=size, seed=int(rng.integers(2**31)))
        points = [(cube.encode(seen.values), seen.scores[0]) for seen in history.seen]
        for start in range(0, len(points) - size + 1, size):
            search.tell(points[start : start + size])
        for _ in range(ASKS):
            yield cube.decode(search.ask())


@configured_by(CmaesConfig)
class CmaesOracle(Oracle):
    """Moves and shapes a normal distribution towards good configurations."""

    sampler_type = Cmaes

    def __init__(self, task: Task, *, startup: int | None = None, population: int | None = None) -> None:
        super().__init__(task, sampler=Cmaes(population), startup=startup)

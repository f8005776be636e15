"""Optuna's NSGA-II (Deb et al. 2002): generations of configurations, crossed and selected by domination."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import optuna

from cnnsweep.search import optuna_samplers as optuna_study
from cnnsweep.search.observations import History
from cnnsweep.search.sampled import SampledOracle
from cnnsweep.search_space.space import Values

ASKS = 30
GENERATION = "NSGAIISampler:generation"


class Nsga2:
    """Of each `population` trials that were started in a row one generation is made."""

    def __init__(self, seed: int, population: int | None = None) -> None:  # noqa: ARG002
        self.population = population

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        # Optuna's 50 would leave a sweep of 60 trials at random search.
        size = self.population or min(50, max(6, (history.most or 60) // 7))
        sampler = optuna.samplers.NSGAIISampler(population_size=size, seed=int(rng.integers(2**31)))
        study = optuna_study.rebuild(history, sampler, (GENERATION, size))
        for _ in range(ASKS):
            yield optuna_study.ask(study, history.space)


class Nsga2Oracle(SampledOracle):
    """Evolves a population of configurations towards a Pareto front."""

    sampler_name = "nsga2"
    several = True

"""Optuna's tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import optuna

from cnnsweep.search import optuna_samplers as optuna_study
from cnnsweep.search.observations import History
from cnnsweep.search.sampled import SampledOracle
from cnnsweep.search_space.space import Values

ASKS = 30


class Tpe:
    """Keys that occur together are modelled together; configurations still running count as bad ones."""

    def __init__(self, seed: int) -> None:
        pass

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=int(rng.integers(2**31)), n_startup_trials=1, multivariate=True, group=True, constant_liar=True
            )
        study = optuna_study.rebuild(history, sampler)
        for _ in range(ASKS):  # an ask that was refused stays in the study as one that is still running
            yield optuna_study.ask(study, history.space)


class TpeOracle(SampledOracle):
    """Learns from finished trials which values good configurations have in common."""

    sampler_name = "tpe"
    several = True

"""Quasi-random search: a scrambled Sobol sequence over the keys, which leaves fewer gaps than chance does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from scipy.stats import qmc

from cnnsweep.search.observations import History
from cnnsweep.search.sampled import SampledOracle
from cnnsweep.search_space.space import Values

BLOCK = 256
MOST_DIMENSIONS = 21_201
"""Of SciPy's Sobol sequence."""


class Qmc:
    """Each key is a dimension of its own, whether it is active or not."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._points: np.ndarray | None = None

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:  # noqa: ARG002
        space = history.space
        start = 0
        while space.parameters:
            for point in self._until(len(space.parameters), start + BLOCK)[start:]:
                drawn = {p.name: p.at(float(u)) for p, u in zip(space.parameters, point, strict=True)}
                yield {p.name: drawn[p.name] for p in space.active(drawn)}
            start += BLOCK
            if start >= 8 * BLOCK + 4 * (len(history.seen) + len(history.pending)):
                return

    def _until(self, dimensions: int, count: int) -> np.ndarray:
        if self._points is None or len(self._points) < count:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about the balance of a part of the sequence
                self._points = qmc.Sobol(dimensions, rng=np.random.default_rng([self._seed, 3])).random(count)
        return self._points


class QmcOracle(SampledOracle):
    """Fills the space evenly, whatever comes of it."""

    sampler_name = "qmc"
    several = True
    learns = False

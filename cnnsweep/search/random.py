"""Random search (Bergstra and Bengio 2012), and quasi-random search by a scrambled Sobol sequence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from cnnsweep.search.observations import History, Sampler, at_quantiles
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.space import Values

BLOCK = 256


class Qmc(Sampler):
    """Each key is a dimension of its own, active or not."""

    def __init__(self) -> None:
        self._points = np.empty((0, 0))

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:  # noqa: ARG002
        start, most = 0, 8 * BLOCK + 4 * (len(history.seen) + len(history.pending))
        while history.space.parameters and start < most:
            for point in self._until(start + BLOCK, history)[start:]:
                yield at_quantiles(history.space, point)
            start += BLOCK

    def _until(self, count: int, history: History) -> np.ndarray:
        from scipy.stats import qmc

        if len(self._points) < count:
            rng = np.random.default_rng([history.seed, 3])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about the balance of a part of the sequence
                self._points = qmc.Sobol(len(history.space.parameters), rng=rng).random(count)
        return self._points


class QmcOracle(Oracle):
    """Fills the space evenly, with fewer gaps than chance leaves."""

    several = True
    sampler_type = Qmc

    def __init__(self, task: Task) -> None:
        super().__init__(task, sampler=Qmc(), startup=0)


class RandomOracle(Oracle):
    """Each key uniformly from its values, as every search draws before it has observations."""

    several = True

"""Bayesian optimisation with a Gaussian process and two acquisitions: expected improvement, lower confidence bound.

The process is our own because Optuna's needs PyTorch.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.config.validation import Float, Int
from cnnsweep.search.observations import History, Observation, Sampler, neighbour
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.space import Space, Values

CANDIDATES = 500
NEIGHBOURS = 60
BEST = 4
STEPS = 10
CLIMBS = 3
"""The number of times that the neighbours of the most promising candidates are added."""
MOST = 150
"""Observations fitted: the latest, and the best."""
SCALE, SPREAD = 1.0, 0.8
"""Mean and standard deviation of the prior of a length scale's logarithm, where a key's range is 0 to 1."""


Acquisition = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""Of predicted means, standard deviations and the least value seen: the larger, the more promising."""


class GpConfig(SearchConfig):
    startup: Int | None = Field(ge=1)


class BayesianConfig(SearchConfig):
    initial_points: Int | None = Field(ge=1)
    alpha: Float = Field(gt=0)
    beta: Float = Field(ge=0)


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, least: float) -> np.ndarray:
    """Jones et al. 1998."""
    from scipy.stats import norm

    z = (least - mean) / np.maximum(deviation, 1e-9)
    return deviation * (z * norm.cdf(z) + norm.pdf(z))


def lower_confidence_bound(mean: np.ndarray, deviation: np.ndarray, least: float, beta: float) -> np.ndarray:  # noqa: ARG001
    """Srinivas et al. 2010; larger `beta` explores more."""
    return beta * deviation - mean


class GaussianProcess(Sampler):
    """Maximises an acquisition from drawn configurations and from neighbours of the best, by repeated small changes.

    An absent key is a value of its own, "not there". Configurations still running are assumed to be somewhat worse
    than predicted, so that several proposals at once spread out.
    """

    slow = True

    def __init__(self, acquisition: Acquisition = expected_improvement, alpha: float = 1e-6) -> None:
        import scipy.linalg  # noqa: F401  before the controller is made, which finds the libraries that are loaded
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self._acquisition, self._alpha, self._threads = acquisition, alpha, ThreadpoolController()

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        space = history.space
        ranked = sorted(history.seen, key=lambda o: o.scores[0])
        seen = history.seen if len(history.seen) <= MOST else [*ranked[: MOST // 4], *history.seen[-3 * MOST // 4 :]]
        more = [space.draw(rng) for _ in range(CANDIDATES)]
        for one in ranked[:BEST]:
            known = {k: v for k, v in one.values.items() if k in space.by_name and space.by_name[k].allows(v)}
            more += [neighbour(space, known, rng) for _ in range(NEIGHBOURS if known else 0)]
        y = _standardised([o.scores[0] for o in seen])
        candidates: list[Values] = []
        gain = np.empty(0)
        with self._threads.limit(limits=1):  # the cores are the workers'
            model = self._fit(history, seen, y, int(rng.integers(2**31)))
            for climb in range(1 + CLIMBS):
                candidates += more
                if more:
                    mean, deviation = model.predict(_matrix(space, more), return_std=True)
                    gain = np.append(gain, self._acquisition(mean, deviation, float(y.min())))
                if climb < CLIMBS:
                    ranking = (candidates[index] for index in np.argsort(-gain, kind="stable"))
                    top = itertools.islice(filter(history.allows, ranking), BEST)
                    more = [neighbour(space, one, rng) for one in top for _ in range(NEIGHBOURS)]
        for index in np.argsort(-gain, kind="stable"):
            yield candidates[index]

    def _fit(self, history: History, seen: Sequence[Observation], y: np.ndarray, seed: int) -> Any:
        """A fitted `GaussianProcessRegressor` of scikit-learn."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel

        x = _matrix(history.space, [o.values for o in seen])
        kernel = Matern(np.full(x.shape[1], 1.0), (0.1, 30.0), nu=2.5) + WhiteKernel(0.05, (1e-3, 1.0))
        model = GaussianProcessRegressor(kernel, alpha=self._alpha, optimizer=_most_probable, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
            if history.pending:
                more = _matrix(history.space, history.pending)
                mean, deviation = model.predict(more, return_std=True)
                model.set_params(kernel=model.kernel_, optimizer=None)
                model.fit(np.vstack([x, more]), np.concatenate([y, mean + 0.5 * deviation]))
        return model


@configured_by(GpConfig)
class GpOracle(Oracle):
    """Tries where the expected improvement is largest."""

    sampler_type = GaussianProcess

    def __init__(self, task: Task, *, startup: int | None = None) -> None:
        super().__init__(task, sampler=GaussianProcess(), startup=startup)


@configured_by(BayesianConfig)
class BayesianOracle(Oracle):
    """Tries where the lower confidence bound is least."""

    def __init__(self, task: Task, *, initial_points: int | None, alpha: float, beta: float) -> None:
        sampler = GaussianProcess(partial(lower_confidence_bound, beta=beta), alpha)
        super().__init__(task, sampler=sampler, startup=initial_points)

    @property
    def startup(self) -> int:
        most = 3 * max(1, len(self.problem.space.parameters))
        third = most if self.max_trials is None else max(2, self.max_trials // 3)
        return self._startup or min(most, third)


def _standardised(scores: Sequence[float]) -> np.ndarray:
    """With very bad values cut: a network that did not learn at all says little about good ones."""
    y = np.array(scores) - np.median(scores)
    y /= np.median(np.abs(y)) or np.abs(y).max() or 1.0  # in any unit
    low, middle = np.quantile(y, [0.1, 0.5])
    y = np.minimum(y, middle + 2 * max(middle - low, 1e-9))
    return (y - y.mean()) / max(y.std(), 1e-9)


def _most_probable(likelihood: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """The kernel's most probable logarithms: one length scale a column, then the noise.

    With few trials the likelihood alone fits noise with twenty length scales; the prior prevents it.
    """
    from scipy.optimize import minimize

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood(theta)
        off = (theta[:-1] - SCALE) / SPREAD
        return value + 0.5 * (off**2).sum(), slope + np.append(off / SPREAD, 0.0)

    begin = np.append(np.full(len(start) - 1, SCALE), start[-1])
    # Fitting to the end takes many times as long and proposes nothing better.
    found = minimize(loss, begin, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": STEPS})
    return found.x, found.fun


def _matrix(space: Space, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([_encode(space, values) for values in configurations])


def _encode(space: Space, values: Mapping[str, Any]) -> list[float]:
    vector: list[float] = []
    for p in space.parameters:
        there = p.name in values
        if p.categorical:
            vector += [float(there and values[p.name] == choice) for choice in p.choices or ()]
        else:
            vector.append(p.quantile(values[p.name]) if there else 0.5)
            if p.when:
                vector.append(0.0 if there else 0.5)
    return vector or [0.0]

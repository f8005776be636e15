"""Bayesian optimisation with a Gaussian process of our own: Optuna's wants PyTorch, 200 MB for one class."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from cnnsweep.search.encoding import neighbour
from cnnsweep.search.observations import History
from cnnsweep.search.sampled import SampledOracle
from cnnsweep.search_space.space import Space, Values, is_word

CANDIDATES = 500
NEIGHBOURS = 60
BEST = 4
STEPS = 10
CLIMBS = 3
"""How often the neighbours of the most promising candidates are looked at as well."""
MOST = 150
"""Observations fitted: the latest, and the best."""
SCALE, SPREAD = 1.0, 0.8
"""Mean and standard deviation of the prior of a length scale's logarithm, where a key's range is 0 to 1."""


class Gp:
    """Expected improvement (Jones et al. 1998), climbed from drawn configurations and from neighbours of the best.

    An absent key is a value of its own, "not there". Configurations still running are taken to come out somewhat worse
    than predicted, so that several asks at once spread out.
    """

    def __init__(self, seed: int) -> None:  # noqa: ARG002
        self._threads = ThreadpoolController()

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        space = history.space
        ranked = sorted(history.seen, key=lambda o: o.scores[0])
        seen = history.seen if len(history.seen) <= MOST else [*ranked[: MOST // 4], *history.seen[-3 * MOST // 4 :]]
        more = [space.draw(rng) for _ in range(CANDIDATES)]
        for one in ranked[:BEST]:
            known = {k: v for k, v in one.values.items() if k in space.by_name and space.by_name[k].allows(v)}
            more += [neighbour(space, known, rng) for _ in range(NEIGHBOURS if known else 0)]
        y = _levelled([o.scores[0] for o in seen])
        candidates: list[Values] = []
        gain = np.empty(0)
        with self._threads.limit(limits=1):  # the cores are the workers'
            model = _fit(space, [o.values for o in seen], y, history.pending, int(rng.integers(2**31)))
            for climb in range(1 + CLIMBS):
                candidates += more
                gain = np.append(gain, _expected_gain(model, _matrix(space, more), float(y.min())))
                if climb < CLIMBS:
                    ways = (candidates[index] for index in np.argsort(-gain, kind="stable"))
                    top = itertools.islice(filter(history.allows, ways), BEST)
                    more = [neighbour(space, one, rng) for one in top for _ in range(NEIGHBOURS)]
        for index in np.argsort(-gain, kind="stable"):
            yield candidates[index]


class GpOracle(SampledOracle):
    """Models the objective by a Gaussian process and tries where it may be best."""

    sampler_name = "gp"


def _expected_gain(model: GaussianProcessRegressor, points: np.ndarray, least: float) -> np.ndarray:
    if not len(points):
        return np.empty(0)
    mean, deviation = model.predict(points, return_std=True)
    z = (least - mean) / np.maximum(deviation, 1e-9)
    return deviation * (z * norm.cdf(z) + norm.pdf(z))


def _levelled(scores: Sequence[float]) -> np.ndarray:
    """Standardised, with very bad values cut: that a network did not learn at all says little about good ones."""
    y = np.array(scores)
    low, middle = np.quantile(y, [0.1, 0.5])
    y = np.minimum(y, middle + 2 * max(middle - low, 1e-9))
    return (y - y.mean()) / max(y.std(), 1e-9)


def _fit(
    space: Space,
    configurations: Sequence[Mapping[str, Any]],
    y: np.ndarray,
    pending: Sequence[Mapping[str, Any]],
    seed: int,
) -> GaussianProcessRegressor:
    x = _matrix(space, configurations)
    kernel = Matern(np.full(x.shape[1], 1.0), (0.1, 30.0), nu=2.5) + WhiteKernel(0.05, (1e-3, 1.0))
    model = GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=_few_steps, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
        if pending:
            more = _matrix(space, pending)
            mean, deviation = model.predict(more, return_std=True)
            model.set_params(kernel=model.kernel_, optimizer=None)
            model.fit(np.vstack([x, more]), np.concatenate([y, mean + 0.5 * deviation]))
    return model


def _few_steps(likelihood: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """The kernel's most probable logarithms: one length scale a column, then the noise.

    With few trials the likelihood alone fits noise with twenty length scales; the prior holds them back.
    """

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
        if is_word(p):
            vector += [float(there and values[p.name] == choice) for choice in p.choices or ()]
        else:
            vector.append(p.quantile(values[p.name]) if there else 0.5)
            if p.when:
                vector.append(0.0 if there else 0.5)
    return vector or [0.0]

"""Bayesian optimisation with a Gaussian process of our own: Optuna's wants PyTorch, 200 MB for one class."""

from __future__ import annotations

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
from cnnsweep.search.history import History
from cnnsweep.search.sampled import SampledOracle
from cnnsweep.space import Space, Values, is_word

CANDIDATES = 500
NEIGHBOURS = 60
BEST = 4
STEPS = 10
MOST = 150
"""Observations fitted: the latest, and the best."""


class Gp:
    """Expected improvement (Jones et al. 1998) over configurations drawn from the space and neighbours of the best.

    An absent key is a value of its own, "not there". Configurations still running are taken to come out somewhat worse
    than predicted, so that several asks at once spread out.
    """

    def __init__(self, seed: int) -> None:  # noqa: ARG002
        self._threads = ThreadpoolController()

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        space = history.space
        ranked = sorted(history.seen, key=lambda o: o.scores[0])
        seen = history.seen if len(history.seen) <= MOST else [*ranked[: MOST // 4], *history.seen[-3 * MOST // 4 :]]
        candidates = [space.draw(rng) for _ in range(CANDIDATES)]
        for one in ranked[:BEST]:
            known = {k: v for k, v in one.values.items() if k in space.by_name and space.by_name[k].allows(v)}
            candidates += [neighbour(space, known, rng) for _ in range(NEIGHBOURS if known else 0)]
        y = _levelled([o.scores[0] for o in seen])
        with self._threads.limit(limits=1):  # the cores are the workers'
            model = _fit(space, [o.values for o in seen], y, history.pending, int(rng.integers(2**31)))
            mean, deviation = model.predict(_matrix(space, candidates), return_std=True)
        z = (y.min() - mean) / np.maximum(deviation, 1e-9)
        gain = deviation * (z * norm.cdf(z) + norm.pdf(z))
        for index in np.argsort(-gain, kind="stable"):
            yield candidates[index]


class GpOracle(SampledOracle):
    """Models the objective by a Gaussian process and tries where it may be best."""

    sampler_name = "gp"


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


def _few_steps(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    # Fitting to the end takes many times as long and proposes nothing better.
    found = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": STEPS})
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

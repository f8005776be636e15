"""Bayesian optimisation with KerasTuner's Gaussian process, its proposals taken from valid, new configurations."""

from __future__ import annotations

import warnings
from typing import Any

import keras_tuner
import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import Matern
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from cnnsweep.search.encoding import neighbour
from cnnsweep.search.oracle import Proposing
from cnnsweep.search_space.space import Space, Values, is_word

CANDIDATES = 600
NEIGHBOURS = 40


class BayesianOracle(Proposing, keras_tuner.oracles.BayesianOptimizationOracle):
    """Lower confidence bound (Srinivas et al. 2010) over random candidates and the neighbours of the best.

    KerasTuner optimises the bound over a continuous cube and rounds, which proposes points twice, points that cannot
    be built, and takes a second; judging a few hundred real configurations does neither.
    """

    slow = True

    def __init__(self, *args: Any, initial_points: int | None, alpha: float, beta: float, **settings: Any) -> None:
        super().__init__(*args, alpha=alpha, beta=beta, **settings)
        self._threads = ThreadpoolController()
        most = 3 * max(1, len(self.problem.space.parameters))
        third = most if self.most is None else max(2, self.most // 3)
        self.num_initial_points = initial_points or min(most, third)

    def _make_gpr(self) -> Any:
        """A length scale for each dimension: keys that do not matter are found out, where one scale blurs them all."""
        dimensions = sum(len(p.choices or ()) if is_word(p) else 1 for p in self.problem.space.parameters)
        kernel = Matern(np.ones(max(1, dimensions)), (0.05, 20.0), nu=2.5)
        return super()._make_gpr().set_params(kernel=kernel, optimizer=_few_steps, n_restarts_optimizer=0)

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002
        values = self.propose()
        return {"status": "RUNNING", "values": values} if values is not None else {"status": "STOPPED"}

    def draw(self) -> Values | None:
        done = [t for id_, t in self.trials.items() if t.status == "COMPLETED" and id_ not in self._out]
        if len(self.trials) < self.num_initial_points or len(done) < 2:
            return self.fresh(self.rng())
        return self._promising(self.rng(), done)

    def _promising(self, rng: np.random.Generator, done: list[Any]) -> Values | None:
        candidates = self._candidates(rng, done)
        with self._threads.limit(limits=1):  # the cores are the workers'
            mean, deviation = self._fit(done).predict(self._matrix(candidates), return_std=True)
        for index in np.argsort(mean - self.beta * deviation, kind="stable"):  # judging all of them would take longer
            if self.is_fresh(candidates[index]):
                return candidates[index]
        return self.fresh(rng)

    def _fit(self, done: list[Any]) -> Any:
        sign = -1 if self.objective.direction == "max" else 1
        x, y = self._matrix([t.hyperparameters.values for t in done]), np.array([sign * t.score for t in done])
        gpr = self._make_gpr().set_params(random_state=int(self.rng().integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            gpr.fit(x, y)
            # Running and failed trials count as pessimistic guesses, so that several asks at once spread out.
            known = {t.trial_id for t in done}
            others = [t for id_, t in self.trials.items() if id_ not in known]
            if others:
                ox = self._matrix([t.hyperparameters.values for t in others])
                mean, deviation = gpr.predict(ox, return_std=True)
                gpr.set_params(kernel=gpr.kernel_, optimizer=None)
                gpr.fit(np.vstack([x, ox]), np.concatenate([y, mean + deviation]))
        return gpr

    def _candidates(self, rng: np.random.Generator, done: list[Any]) -> list[Values]:
        drawn = [self.problem.space.draw(rng) for _ in range(CANDIDATES)]
        best = sorted(done, key=lambda t: t.score, reverse=self.objective.direction == "max")[:3]
        for t in best:
            drawn += [neighbour(self.problem.space, t.hyperparameters.values, rng) for _ in range(NEIGHBOURS)]
        return drawn

    def _matrix(self, configurations: list[Values]) -> np.ndarray:
        return np.array([encode(self.problem.space, values) for values in configurations])


def _few_steps(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    # Fitting to the end takes many times as long and proposes nothing better.
    found = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 20})
    return found.x, found.fun


def encode(space: Space, values: Values) -> list[float]:
    """Numbers as their quantile, words one-hot; an inactive key is in the middle, whatever it would have been."""
    vector: list[float] = []
    for p in space.parameters:
        if is_word(p):
            vector += [float(p.name in values and values[p.name] == choice) for choice in p.choices or ()]
        else:
            vector.append(p.quantile(values[p.name]) if p.name in values else 0.5)
    return vector

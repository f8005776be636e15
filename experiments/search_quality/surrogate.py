"""A stand-in for training: the learning curve of any configuration of the space, learned from the table.

The mean of a Gaussian process (smooth) and of extremely randomised trees (interactions), each on the logarithm of the
error, so that it favours neither the searches that model with the one nor those that model with the other.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from problem import EPOCHS, TABLE, problem
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.ensemble import ExtraTreesRegressor

from cnnsweep.search_space.space import Space

TREES = 60
CANDIDATES, CLIMBED, STEPS, NEIGHBOURS = 10_000, 8, 40, 40
COMPONENTS = 3
ALIKE, LIFTED = 6, 0.015
"""Pairs of seeds, the nearest in accuracy, from which a configuration's noise is taken; the most that it adds."""


@dataclass(frozen=True)
class Table:
    """The trained configurations, with their curves as (configurations, epochs) arrays."""

    values: list[dict[str, Any]]
    accuracy: np.ndarray
    seconds: np.ndarray
    noise: np.ndarray
    """The logarithm of the error of a configuration with two seeds, subtracted, divided by √2: (pairs, epochs)."""
    level: np.ndarray
    """The mean logarithm of each pair's error after the last epoch, with its sign changed: the larger, the better."""

    def part(self, rows: Sequence[int]) -> Table:
        """Some of its configurations."""
        values = [self.values[i] for i in rows]
        return replace(self, values=values, accuracy=self.accuracy[list(rows)], seconds=self.seconds[list(rows)])


def path_of(name: str = TABLE) -> Path:
    return Path(__file__).with_name(f"{name}.jsonl.gz")


def read_table(path: Path | None = None) -> Table:
    with gzip.open(path or path_of(), "rt") as file:
        rows = [json.loads(line) for line in file]
    first, again = [row for row in rows if not row["again"]], [row for row in rows if row["again"]]
    keys = problem().space.by_name
    values = [{k: keys[k].typed(row["values"][k]) for k in keys if k in row["values"]} for row in first]
    accuracy, place = _array(first, "accuracy"), {row["number"]: i for i, row in enumerate(first)}
    again = [row for row in again if row["number"] in place]  # while the table is being made one may be missing
    twice = np.array([place[row["number"]] for row in again])
    assert all(row["values"] == first[i]["values"] for row, i in zip(again, twice, strict=True))
    one, other = _log_error(accuracy[twice]), _log_error(_array(again, "accuracy"))
    seconds = _array(first, "seconds")
    seconds[:, 0] += [row["start"] for row in first]
    return Table(values, accuracy, seconds, (other - one) / math.sqrt(2), (one + other)[:, -1] / 2)


def _array(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], float)


def describe(values: Mapping[str, Any]) -> list[float]:
    """The configuration and what the network's arithmetic tells of it, each about 0 to 1."""
    space, network = problem().space, problem().validate(values).network
    vector: list[float] = []
    for p in space.parameters:
        if p.choices is not None and isinstance(p.choices[0], (str, bool)):
            vector += [float(values.get(p.name) == choice) for choice in p.choices[1:]]
        elif p.name.rpartition(".")[2].isdigit():  # a block that is not there has no filters and no stride
            vector.append((1 + p.quantile(values[p.name])) / 2 if p.name in values else 0.0)
        else:
            vector.append(p.quantile(values[p.name]) if p.name in values else 0.5)
    last = [row.output_shape for row in network.layers if len(row.output_shape) > 1][-1]
    costs = (network.parameters, network.mult_adds, network.activation_mb, math.prod(last), last[0])
    scales = ((3, 5.5), (4.5, 6.5), (-2.5, 0), (1, 4.5), (0, 1.5))
    return vector + [(math.log10(c) - low) / (high - low) for c, (low, high) in zip(costs, scales, strict=True)]


class Process:
    """A Gaussian process of several outputs with a length scale for each dimension."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._mean = x, y.mean(0)
        self.theta = self._fitted(y - self._mean)
        kernel = self._kernel(x, x, self.theta) + np.exp(self.theta[-1]) * np.eye(len(x))
        self._alpha = cho_solve(cho_factor(kernel, lower=True), y - self._mean)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._mean + self._kernel(x, self._x, self.theta) @ self._alpha

    def nearest(self, point: np.ndarray) -> int:
        """The number of the observation with which a point is correlated most."""
        return int(self._kernel(point[None], self._x, self.theta).argmax())

    @staticmethod
    def _kernel(a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> np.ndarray:
        scaled = np.exp(-theta[:-1])
        a, b = a * scaled, b * scaled
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
        d = np.sqrt(np.maximum(5 * squared, 1e-12))
        return (1 + d + d**2 / 3) * np.exp(-d)

    def _fitted(self, y: np.ndarray) -> np.ndarray:
        """Log length scales and log noise of the greatest likelihood; all outputs share them."""
        n, outputs = y.shape

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            scaled = self._x * np.exp(-theta[:-1])
            squared = (scaled**2).sum(1)[:, None] + (scaled**2).sum(1) - 2 * scaled @ scaled.T
            d = np.sqrt(np.maximum(5 * squared, 1e-12))
            kernel = (1 + d + d**2 / 3) * np.exp(-d) + np.exp(theta[-1]) * np.eye(n)
            factor = cho_factor(kernel, lower=True)
            inverse = cho_solve(factor, np.eye(n))
            alpha = inverse @ y
            variance = (y * alpha).sum(0) / n
            value = outputs * np.log(np.diag(factor[0])).sum() + 0.5 * n * np.log(variance).sum()
            outer = 0.5 * (outputs * inverse - (alpha / variance) @ alpha.T)
            weight = outer * (5 / 3) * (1 + d) * np.exp(-d)  # the kernel's derivative by a squared distance, halved
            slopes = [(weight * (scaled[:, [j]] - scaled[:, j]) ** 2).sum() for j in range(scaled.shape[1])]
            slopes.append(np.exp(theta[-1]) * np.trace(outer))
            prior = 0.5 * ((theta[:-1] - 0.7) ** 2).sum()
            return value + prior, np.array(slopes) + np.append(theta[:-1] - 0.7, 0.0)

        start = np.append(np.full(self._x.shape[1], 0.7), np.log(0.05))
        bounds = [(-2.0, 4.0)] * self._x.shape[1] + [(np.log(1e-3), 0.0)]
        return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}).x


@dataclass
class Surrogate:
    """Curves, epoch times and the best configuration; predictions are kept, so that one costs a look-up."""

    table: Table
    _curves: dict[Hashable, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        x = np.array([describe(v) for v in self.table.values])
        y = _log_error(self.table.accuracy)
        self._centre = y.mean(0)
        _, _, axes = np.linalg.svd(y - self._centre, full_matrices=False)
        self._axes = axes[:COMPONENTS]
        self.process = Process(x, (y - self._centre) @ self._axes.T)
        self._forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0).fit(x, y)
        steady = np.log(self.table.seconds[:, 1:].min(1))
        self._speed = ExtraTreesRegressor(TREES, min_samples_leaf=5, max_features=0.5, random_state=0)
        self._speed.fit(x, steady)
        self.start_seconds = float(np.median(self.table.seconds[:, 0] - self.table.seconds[:, 1:].min(1)))

    def curves(self, configurations: list[Mapping[str, Any]]) -> np.ndarray:
        """Validation accuracy after each epoch, free of noise: (configurations, epochs)."""
        x = np.array([describe(values) for values in configurations])
        process = self._centre + self.process.predict(x) @ self._axes
        return _accuracy((process + _mean_of(self._forest, x)) / 2)

    def curve(self, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Validation accuracy and seconds of each epoch of one configuration."""
        key = tuple(values.items())
        if key not in self._curves:
            x = np.array([describe(values)])
            seconds = np.full(EPOCHS, math.exp(_mean_of(self._speed, x)[0]))
            seconds[0] += self.start_seconds
            self._curves[key] = self.curves([values])[0], seconds
        return self._curves[key]

    def noise(self, values: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
        """How far another seed may lead from the curve, as it did in one of the pairs that are about as good."""
        curve = self.curve(values)[0]
        error = _log_error(curve)
        pair = rng.choice(np.argsort(np.abs(self.table.level - error[-1]))[:ALIKE])
        return np.minimum(_accuracy(error + rng.choice((-1, 1)) * self.table.noise[pair]) - curve, LIFTED)

    @property
    def training_seconds(self) -> float:
        """Of a full training, on average over the table."""
        steady = self.table.seconds[:, 1:].min(1).mean()
        return float(EPOCHS * steady + self.start_seconds)

    def best(self, seed: int = 0) -> tuple[float, dict[str, Any]]:
        """The highest accuracy after the last epoch: of many drawn, the best climb over their neighbours."""
        rng = np.random.default_rng(seed)
        drawn = []
        while len(drawn) < CANDIDATES:
            values = problem().space.draw_evenly(rng)
            if problem().validate(values).fault is None:
                drawn.append(values)
        scores = self.curves([*drawn, *self.table.values])[:, -1]
        order = np.argsort(-scores)[:CLIMBED]
        found = [self._climb(([*drawn, *self.table.values])[i], float(scores[i]), rng) for i in order]
        return max(found, key=lambda pair: pair[0])

    def _climb(self, values: dict[str, Any], score: float, rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        for _ in range(STEPS):
            near = [
                v
                for _ in range(NEIGHBOURS)
                if problem().validate(v := step(problem().space, values, rng)).fault is None
            ]
            scores = self.curves(near)[:, -1] if near else np.array([0.0])
            if scores.max() > score:
                score, values = float(scores.max()), near[int(scores.argmax())]
        return score, values


def step(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Change one key, or two; keys that become active are drawn."""
    drawn = {p.name: p.at(rng.random()) for p in space.parameters}
    kept = {**drawn, **values}
    for name in rng.choice(list(values), size=int(rng.integers(1, 3)), replace=False):
        p = space.by_name[str(name)]
        near = p.quantile(values[p.name]) + rng.normal(0, 0.05) if p.grid is None else rng.random()
        kept[p.name] = p.at(float(np.clip(near, 0, 1 - 1e-9)))
    return {p.name: kept[p.name] for p in space.active(kept)}


def held_out(table: Table, folds: int = 10) -> dict[str, float]:
    """Errors, in points, of the last epoch's accuracy for configurations that the surrogate has not seen."""
    predicted = np.empty_like(table.accuracy)
    fold = np.random.default_rng(0).permutation(len(table.values)) % folds
    for k in range(folds):
        seen, unseen = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        predicted[unseen] = Surrogate(table.part(list(seen))).curves([table.values[i] for i in unseen])
    error = 100 * (predicted - table.accuracy)
    last, top = error[:, -1], table.accuracy[:, -1] >= np.median(table.accuracy[:, -1])
    ranks = [np.argsort(np.argsort(a[:, -1])) for a in (predicted, table.accuracy)]
    return {
        "rms": float(np.sqrt((last**2).mean())),
        "median": float(np.median(np.abs(last))),
        "rms of the better half": float(np.sqrt((last[top] ** 2).mean())),
        "median of the better half": float(np.median(np.abs(last[top]))),
        "first epoch, median": float(np.median(np.abs(error[:, 0]))),
        "rank correlation": float(np.corrcoef(*ranks)[0, 1]),
        "spread of the table": float(100 * table.accuracy[:, -1].std()),
    }


class Rows(Surrogate):
    """The table itself: the curve of a configuration is that of the row most like it, as the Gaussian process has it.

    Without noise beyond that of the row.
    """

    def curves(self, configurations: list[Mapping[str, Any]]) -> np.ndarray:
        return self.table.accuracy[[self._nearest(values) for values in configurations]]

    def curve(self, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        key = tuple(values.items())
        if key not in self._curves:
            row = self._nearest(values)
            self._curves[key] = self.table.accuracy[row], self.table.seconds[row]
        return self._curves[key]

    def noise(self, values: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        return np.zeros(EPOCHS)

    def best(self, seed: int = 0) -> tuple[float, dict[str, Any]]:  # noqa: ARG002
        row = int(self.table.accuracy.max(1).argmax())
        return float(self.table.accuracy[row].max()), self.table.values[row]

    def _nearest(self, values: Mapping[str, Any]) -> int:
        return self.process.nearest(np.array(describe(values)))


@cache
def surrogate() -> Surrogate:
    """Of the table in use; its rows alone with CNNSWEEP_ROWS=1."""
    return (Rows if os.environ.get("CNNSWEEP_ROWS") else Surrogate)(read_table())


def _log_error(accuracy: np.ndarray) -> np.ndarray:
    """The logarithm of the error, with its sign changed."""
    return -np.log(1 - np.minimum(accuracy, 0.999))


def _accuracy(log_error: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-log_error)


def _mean_of(forest: ExtraTreesRegressor, x: np.ndarray) -> np.ndarray:
    # scikit-learn's own predict starts threads for each call, which costs more than the trees.
    points = np.ascontiguousarray(x, dtype=np.float32)
    return np.mean([tree.tree_.predict(points).squeeze(-1 if tree.n_outputs_ == 1 else 2) for tree in forest], axis=0)

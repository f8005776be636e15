"""The space and the search of a sweep in numbers, without training: its size, its networks and what it will spend."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnnsweep.config.optimizers import OPTIMIZERS
from cnnsweep.data.loading import Dataset
from cnnsweep.geometry.network import Network
from cnnsweep.geometry.settings import Shape
from cnnsweep.plan.simulation import Simulation
from cnnsweep.search_space.counting import NO_LIMIT, UNITS, ValidConfigurations, list_valid
from cnnsweep.search_space.distinct_networks import count_distinct, count_networks
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values, combinations
from cnnsweep.search_space.stages import Uncountable
from cnnsweep.statistics import wilson

DRAWN = 1_000
"""Configurations drawn for the spread and the median, where they are too many to list."""
BUILT = 10
"""In place of `DRAWN`, where each network is built to be measured."""
BINS = 10
QUANTILES = {"shortest": 0.0, "median": 0.5, "longest": 1.0}


@dataclass(frozen=True)
class Counts:
    """The size of a space; an endless range counts as one value."""

    configurations: int
    continuous: dict[str, str]
    """The endless ranges, in words."""
    exact: bool
    valid: int | float
    """Within geometry and limits; estimated from random draws where there is an `interval`."""
    trials: int | float | None = None
    """Different networks and ways to train them; None where they could not be counted."""
    networks: int | float | None = None
    interval: tuple[int, int] | None = None
    """The 95% interval of an estimate."""


@dataclass(frozen=True)
class LayerRow:
    """One layer of a described network."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    mult_adds: int
    activation_bytes: int


@dataclass(frozen=True)
class DenseEquivalent:
    """The weights of the first convolution, and those of a dense layer between the same numbers."""

    layer: str = ""
    output_shape: Shape = ()
    weights: int = 0
    dense_weights: int = 0


@dataclass(frozen=True)
class NetworkDescription:
    """One network of a space."""

    name: str
    values: Values
    parameters: int
    mmacs: float
    activation_mb: float
    input_shape: Shape
    layers: tuple[LayerRow, ...]
    dense_equivalent: DenseEquivalent


@dataclass(frozen=True)
class Spread:
    """A histogram in steps of equal ratio, and quantiles."""

    edges: list[float]
    counts: list[int]
    quantiles: dict[str, float]


@dataclass(frozen=True)
class SpaceDescription:
    """A space and its networks; without geometry it has counts only."""

    counts: Counts
    networks: dict[str, NetworkDescription]
    """The smallest, the median and the largest, or the only one."""
    spread: dict[str, Spread]
    drawn: int
    """Configurations from which the spread and the median are taken."""


@dataclass(frozen=True)
class SearchDescription:
    """The amounts that a search will spend."""

    trials: int
    runs: int
    epochs: int
    images: int
    ends: str
    trial_seconds: dict[str, float]
    disk_mb: float
    """For checkpoints and the data's copy."""
    assumed: str | None = None
    """The machine that is assumed where none was measured."""
    replicates: int = 0
    """Trainings with other seeds after the search."""


def describe_space(problem: Problem) -> SpaceDescription:
    """Count the space, and measure the networks in it."""
    valid, counts = _count(problem)
    drawn = _draw(problem, valid)
    measured = [(values, network) for values in drawn if (network := problem.validate(values).network)]
    if not measured:
        return SpaceDescription(counts, {}, {}, len(drawn))
    ranked = sorted(measured, key=lambda m: (m[1].parameters, m[1].mult_adds))
    shown = {"smallest": ranked[0][0], "median": ranked[len(ranked) // 2][0], "largest": ranked[-1][0]}
    if not problem.space.parameters:
        shown = {"network": ranked[0][0]}
    elif valid is not None:
        shown |= {kind: valid.extreme("parameters", kind == "largest") for kind in ("smallest", "largest")}
    networks = {kind: _describe_network(problem, values) for kind, values in shown.items()}
    spread = {name: _spread([network.sizes[name] for _, network in ranked]) for name in UNITS}
    return SpaceDescription(counts, networks, spread, len(drawn))


def _count(problem: Problem) -> tuple[ValidConfigurations | None, Counts]:
    """The valid configurations, where they can be counted, and the size of the space."""
    space = problem.space
    endless = {p.name: p.describe() for p in space.parameters if p.grid is None}
    with contextlib.suppress(Uncountable):
        found = ValidConfigurations(problem, also="parameters")
        counts = Counts(space.size, endless, space.size < NO_LIMIT, found.total)
        with contextlib.suppress(Uncountable):
            counts = replace(counts, trials=count_distinct(found), networks=count_networks(found))
        return found, counts
    if (every := _listed(problem)) is not None:
        different = len({problem.validate(values).signature for values in every})
        return None, Counts(space.size, endless, True, len(every), trials=different)
    rng = np.random.default_rng(0)
    draws = 4 * _draws(problem)
    share = sum(problem.validate(space.draw_evenly(rng)).fault is None for _ in range(draws)) / draws
    low, high = wilson(share, draws)
    interval = round(low * space.size), round(high * space.size)
    return None, Counts(space.size, endless, False, round(share * space.size), interval=interval)


def _draws(problem: Problem) -> int:
    return DRAWN if problem.sizes is None else BUILT


def _listed(problem: Problem) -> list[Values] | None:
    """All valid configurations of a small space, without its endless ranges; None of a larger one."""
    space = problem.space
    if space.size > 4 * _draws(problem):
        return None
    found = combinations([p for p in space.parameters if p.grid is not None])
    return [values for values in found if problem.validate(values).fault is None]


def _draw(problem: Problem, valid: ValidConfigurations | None) -> list[Values]:
    """All valid configurations of a small space, else some drawn uniformly."""
    every = list_valid(problem, 4 * (most := _draws(problem)))
    if every is None:
        every = _listed(problem)
    if every is not None:
        return every
    rng = np.random.default_rng([problem.config.seed, 7])
    drawn: list[Values] = []
    for _ in range(20 * most):
        values = problem.space.draw_evenly(rng)
        if problem.validate(values).fault is None:
            drawn.append(values)
        if len(drawn) == most or not problem.space.parameters:
            return drawn
    rare = [valid.draw(rng) for _ in range(most // 5)] if valid is not None else []
    return [values for values in rare if values is not None] or drawn


def describe_search(simulated: Simulation, problem: Problem, data: Dataset) -> SearchDescription:
    """The trials, epochs, images and disk that a simulated search spends."""
    trials = {run.number: run.values for run in simulated.runs}
    folds, all_folds = problem.config.data.folds or 1, data.images_an_epoch[0]
    epochs = sum(run.epochs for run in simulated.runs)
    seconds = [run.seconds for run in simulated.runs]
    weights = 0
    for values in trials.values():
        if network := problem.validate(values).network:
            training = problem.config.with_values(values).training
            copies = folds * (1 + OPTIMIZERS[training.optimizer].values + (training.ema_momentum > 0))
            weights += network.parameters * copies
    arrays = (data.x_train, data.y_train, data.x_val, data.y_val, data.x_test, data.y_test)
    return SearchDescription(
        trials=len(trials),
        runs=len(simulated.runs),
        epochs=epochs,
        images=sum(
            run.epochs * folds * problem.config.with_values(run.values).training.examples(all_folds // folds)
            for run in simulated.runs
        ),
        ends=simulated.reason,
        trial_seconds={name: float(np.quantile(seconds, q)) for name, q in QUANTILES.items()} if seconds else {},
        # The last and the best checkpoint of each trial, and MLflow's artifacts (a plot, tables).
        disk_mb=(2 * 4 * weights + sum(array.nbytes for array in arrays)) / 1e6 + 0.1 * len(trials),
        replicates=simulated.replicates,
    )


def _spread(values: Sequence[float]) -> Spread:
    numbers = np.array(values, float)
    low, high = max(numbers.min(), 1e-9), max(numbers.max(), 1e-9)
    edges = np.geomspace(low, high, BINS + 1) if high > low else np.array([low, high])
    counts = np.histogram(np.clip(numbers, low, high), edges)[0].tolist() if high > low else [len(numbers)]
    quantiles = {f"{q}%": float(np.percentile(numbers, q)) for q in (0, 5, 25, 50, 75, 95, 100)}
    return Spread(edges.tolist(), counts, quantiles)


def _describe_network(problem: Problem, values: Values) -> NetworkDescription:
    network = problem.validate(values).network
    assert network is not None
    sizes: Any = network.sizes
    return NetworkDescription(
        name=problem.config.with_values(values).model.describe(values),
        values=values,
        **sizes,
        input_shape=network.input_shape,
        layers=tuple(LayerRow(row.layer.name, row.layer.kind, *row[1:]) for row in network.layers),
        dense_equivalent=_dense(network),
    )


def _dense(network: Network) -> DenseEquivalent:
    for row in network.layers:
        if row.layer.kind == "conv":
            weights = int(np.prod(network.input_shape)) * int(np.prod(row.output_shape))
            return DenseEquivalent(row.layer.name, row.output_shape, row.parameters, weights)
    return DenseEquivalent()

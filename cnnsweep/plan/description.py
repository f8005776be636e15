"""What a sweep would try and cost, found out without training: the numbers behind `python -m cnnsweep plan`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset
from cnnsweep.geometry.network import Network
from cnnsweep.plan.simulation import Simulated
from cnnsweep.search_space.counting import Lattice, TooLarge, lattice, listed
from cnnsweep.search_space.distinct_networks import distinct, networks
from cnnsweep.search_space.problem import Problem, short_name
from cnnsweep.search_space.space import Values, apply
from cnnsweep.statistics import wilson

DRAWN = 1_000
"""Configurations drawn for the spread and the median, where they are too many to list."""
BINS = 10
SLOTS = {"adam": 2, "adamw": 2, "sgd": 1, "rmsprop": 1}
"""Numbers that an optimizer keeps for each weight."""


def describe_space(problem: Problem) -> dict[str, Any]:
    """Count the space, and measure the networks in it: `counts`, `networks`, `spread` and `dense`."""
    found, counts = count(problem)
    drawn = draw(problem, found)
    measured = [(values, _network(problem, values)) for values in drawn]
    ranked = sorted([(v, n) for v, n in measured if n], key=lambda m: (m[1].parameters, m[1].mult_adds))
    report: dict[str, Any] = {"counts": counts, "networks": {}, "spread": {}, "drawn": len(drawn)}
    if not ranked:
        return report
    shown = {"smallest": ranked[0][0], "median": ranked[len(ranked) // 2][0], "largest": ranked[-1][0]}
    if found is not None:
        shown |= {
            "smallest": found.extreme("parameters", largest=False),
            "largest": found.extreme("parameters", largest=True),
        }
    kinds = shown if problem.space.parameters else {"network": ranked[0][0]}
    report["networks"] = {kind: _described(problem, values) for kind, values in kinds.items()}
    for name in ("parameters", "mmacs", "activation_mb"):
        report["spread"][name] = spread([getattr(network, name) for _, network in ranked])
    return report


def count(problem: Problem) -> tuple[Lattice | None, dict[str, Any]]:
    """The lattice, where there is one, and how many configurations, valid ones and different networks there are.

    Exact where `exact` is true; else `valid` is an estimate from random draws, with its 95% interval.
    """
    space = problem.space
    endless = {p.name: p.describe() for p in space.parameters if p.grid is None}
    counts: dict[str, Any] = {"configurations": space.size, "continuous": endless, "exact": False}
    try:
        found = lattice(problem, ["parameters"])
        if found is not None:
            counts |= {"valid": found.valid, "exact": space.size < 2**62}
            with contextlib.suppress(TooLarge):
                counts |= {"trials": distinct(found), "networks": networks(found)}
            return found, counts
    except TooLarge:
        pass
    rng = np.random.default_rng(0)
    fine = sum(problem.judge(space.draw(rng)).fault is None for _ in range(4 * DRAWN))
    low, high = wilson(fine / (4 * DRAWN), 4 * DRAWN)
    interval = [round(low * space.size), round(high * space.size)]
    return None, counts | {"valid": round(fine / (4 * DRAWN) * space.size), "interval": interval}


def draw(problem: Problem, found: Lattice | None) -> list[Values]:
    """All valid configurations of a small space, else some drawn uniformly."""
    every = listed(problem, 4 * DRAWN)
    if every is not None:
        return every
    rng = np.random.default_rng([problem.config["seed"], 7])
    drawn: list[Values] = []
    for _ in range(20 * DRAWN):
        values = problem.space.draw(rng)
        if problem.judge(values).fault is None:
            drawn.append(values)
        if len(drawn) == DRAWN or not problem.space.parameters:
            return drawn
    rare = [found.draw(rng) for _ in range(DRAWN // 5)] if found is not None else []
    return [values for values in rare if values is not None] or drawn


def spread(values: Sequence[float]) -> dict[str, Any]:
    """A histogram in steps of equal ratio, and quantiles."""
    numbers = np.array(values, float)
    low, high = max(numbers.min(), 1e-9), max(numbers.max(), 1e-9)
    edges = np.geomspace(low, high, BINS + 1) if high > low else np.array([low, high])
    counts, _ = np.histogram(np.clip(numbers, low, high), edges) if high > low else ([len(numbers)], edges)
    quantiles = {f"{q}%": float(np.percentile(numbers, q)) for q in (0, 5, 25, 50, 75, 95, 100)}
    return {"edges": edges.tolist(), "counts": [int(c) for c in counts], "quantiles": quantiles}


def describe_search(simulated: Simulated, problem: Problem, data: Dataset) -> dict[str, Any]:
    """What the search will spend: trials, epochs, images, and disk for checkpoints and the data's copy."""
    runs, trials = simulated.runs, {run.number: run for run in simulated.runs}
    epochs = sum(run.epochs for run in runs)
    seconds = [run.seconds for run in runs]
    optimizers = [apply(problem.config, run.values)["training"]["optimizer"] for run in trials.values()]
    sizes = [_network(problem, run.values) for run in trials.values()]
    weights = [
        network.parameters * (1 + SLOTS.get(optimizer, 2))
        for network, optimizer in zip(sizes, optimizers, strict=True)
        if network
    ]
    arrays = (data.x_train, data.y_train, data.x_val, data.y_val, data.x_test, data.y_test)
    return {
        "trials": len(trials),
        "runs": len(runs),
        "epochs": epochs,
        "images": epochs * len(data.x_train),
        "ends": simulated.reason,
        "trial_seconds": {q: float(np.quantile(seconds, p)) for q, p in QUANTILES.items()} if seconds else {},
        # The last and the best checkpoint of each trial, and MLflow's artifacts (a plot, tables).
        "disk_mb": (sum(2 * 4 * w for w in weights) + sum(a.nbytes for a in arrays)) / 1e6 + 0.1 * len(trials),
    }


QUANTILES = {"shortest": 0.0, "median": 0.5, "longest": 1.0}


def _network(problem: Problem, values: Mapping[str, Any]) -> Network | None:
    return problem.judge(values).network


def _described(problem: Problem, values: Values) -> dict[str, Any]:
    network = _network(problem, values)
    assert network is not None
    model = apply({"model": problem.config["model"]}, {k: v for k, v in values.items() if k.startswith("model.")})
    first = next((row for row in network.layers if row.layer.kind == "conv"), None)
    outputs = int(np.prod(first.output_shape)) if first else 0
    return {
        "name": short_name(0, model["model"], values).partition(" · ")[2],
        "values": values,
        "parameters": network.parameters,
        "mmacs": network.mmacs,
        "activation_mb": network.activation_mb,
        "input_shape": list(network.input_shape),
        "layers": [
            {
                "name": row.layer.name,
                "kind": row.layer.kind,
                "output_shape": list(row.output_shape),
                "parameters": row.parameters,
                "mult_adds": row.mult_adds,
                "activation_bytes": row.activation_bytes,
            }
            for row in network.layers
        ],
        "dense_equivalent": {
            "layer": first.layer.name if first else "",
            "output_shape": list(first.output_shape) if first else [],
            "weights": first.parameters if first else 0,
            "dense_weights": network.dense_equivalent(outputs),
        },
    }

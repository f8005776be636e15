"""Notes on what of a config has no effect in its search, to be shown: keys that a preset may have left over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnsweep.config.schema import Config
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter
from cnnsweep.training.effects import shipped_values

PAIRS = 200
"""Of configurations that differ in one key, after which it is said to have no effect."""
FIRST = ("startup", "initial_points")
"""Keys for the random trials of a search before its model."""
WITHOUT_MODEL = ("random", "qmc", "RandomOracle", "QmcOracle", "GridOracle")
"""Samplers, and searches that have none."""


def notes_on(config: Config, problem: Problem) -> Iterator[str]:
    """One line for each key that has no effect."""
    yield from _on_search(config)
    images, size = problem.images[0] // max(1, (config.data.folds or 2) - 1), config.training.epoch_size
    if config.trains_networks and size is not None and size > images:
        yield f"training.epoch_size: {size:,}, but there are {images:,} for training: an epoch has these"
    if problem.layers is None:
        return
    firsts: dict[str, Parameter] = {}
    for p in problem.space.parameters:
        firsts.setdefault(p.key, p)
    for key, p in firsts.items():
        if key.startswith("model.") and p.grid and not _counts(problem, p):
            yield f"space.{key}: has no effect: the networks are the same with each of its values (space.{key}=null)"


def _on_search(config: Config) -> Iterator[str]:
    search, trials = config.search.plain(), config.budget.trials
    budget, usual = config.budget, shipped_values("budget")["finalists"]
    if budget.replicates is budget.minutes is None and budget.finalists not in (None, usual):
        yield f"budget.finalists: {budget.finalists} has no effect without budget.replicates"
    sampler = search.get("sampler", config.search.target.rpartition(".")[2])
    if search["learn_from"] is not None and sampler in WITHOUT_MODEL:
        learns = "search.sampler=tpe" if "sampler" in search else "search=tpe"
        yield f"search.learn_from: {search['learn_from']} has no effect: nothing learns here, as {learns} would"
    for name in FIRST:
        if (first := search.get(name)) is None:
            continue
        if search.get("sampler") == "random":
            yield f"search.{name}: {first} has no effect with search.sampler=random"
        elif trials is not None and first >= trials and search["learn_from"] is None:
            yield f"search.{name}: {first} random trials, and budget.trials={trials}: all of them are random"


def _counts(problem: Problem, p: Parameter) -> bool:
    """Whether two values of a key make different networks, or of one of them none, in any configuration drawn."""
    rng, space, compared = np.random.default_rng(0), problem.space, 0
    for _ in range(PAIRS):
        drawn = {q.name: q.at(rng.random()) for q in space.parameters}
        both = [drawn | {p.name: p.at(rng.random())} for _ in range(2)]
        if both[0][p.name] == both[1][p.name]:
            continue
        values = [{q.name: each[q.name] for q in space.active(each)} for each in both]
        if all(p.name in each for each in values):
            networks = [{name: v for name, v in each.items() if name.startswith("model.")} for each in values]
            first, second = (problem.validate(network) for network in networks)
            if first.signature != second.signature or bool(first.fault) != bool(second.fault):
                return True
            compared += first.fault is None
    return not compared

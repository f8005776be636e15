"""Counting, listing and drawing valid configurations, against building each."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnsweep.config.compose import compose
from cnnsweep.models.cnn import layers
from cnnsweep.search_space import space as spaces
from cnnsweep.search_space.counting import Lattice, lattice
from cnnsweep.search_space.distinct_networks import distinct
from cnnsweep.search_space.problem import Problem, pose

CHOICES: dict[str, list[Any]] = {
    "filters": [2, 3, 10],
    "kernel_size": [1, 2, 3, 5],
    "stride": [1, 2, 3],
    "dilation": [1, 2],
    "padding": ["same", "valid"],
    "pooling": ["max", "average", "none"],
    "pool_size": [1, 2, 3],
    "activation": ["relu", "linear", "swish", "silu"],
    "batch_norm": [False, True],
    "head": ["flatten", "average"],
    "dense_units": [0, 3, 10],
    "dropout": [0.0, 0.25],
}
PER_BLOCK = ("filters", "kernel_size", "stride", "dilation", "padding", "pooling", "pool_size")
BASE = compose(["space=none"])


def problem(
    space: dict[str, Any], limits: dict[str, float] | None = None, shape: Any = (8, 8, 1), **model: Any
) -> Problem:
    config = copy.deepcopy(BASE)
    config["space"] = space
    config["limits"] |= limits or {}
    config["model"] |= model
    return Problem(config, spaces.read(config), shape, 10, layers)


def enumerated(p: Problem) -> list[tuple[dict[str, Any], Any]]:
    judged = [(values, p.judge(values)) for values in p.space.enumerate()]
    return [(values, verdict.signature) for values, verdict in judged if verdict.fault is None]


def counted(p: Problem) -> Lattice:
    found = lattice(p)
    assert found is not None
    return found


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    names = draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=1, max_size=4, unique=True))
    blocks = draw(st.integers(1, 3))
    space: dict[str, Any] = {"blocks": {"min": 1, "max": blocks}} if blocks > 1 else {}
    size = blocks
    for name in names:
        values = draw(st.lists(st.sampled_from(CHOICES[name]), min_size=1, max_size=3, unique=True))
        each = name in PER_BLOCK and draw(st.booleans())
        if size * len(values) ** (blocks if each else 1) > 1_500:
            continue
        size *= len(values) ** (blocks if each else 1)
        space[name] = {"values": values, "per_block": each}
    if "pool_size" in space and "pooling" in space and space["pooling"]["per_block"] <= space["pool_size"]["per_block"]:
        space["pool_size"]["when"] = {"model.pooling": ["max", "average"]}
    fixed = {n: draw(st.sampled_from(CHOICES[n])) for n in sorted(CHOICES) if n not in space}
    side = draw(st.integers(1, 8))
    limits: dict[str, float] = {}
    if draw(st.booleans()):
        limits = {
            "parameters": draw(st.sampled_from([40.0, 300.0, 2_000.0])),
            "mmacs": draw(st.sampled_from([0.001, 0.01, 0.1])),
            "activation_mb": draw(st.sampled_from([0.0005, 0.002, 0.01])),
        }
        limits = {name: limits[name] for name in draw(st.sets(st.sampled_from(sorted(limits)), min_size=1))}
    whole: dict[str, Any] = {"model": space}
    if draw(st.booleans()):
        whole["training"] = {"optimizer": {"values": ["adam", "sgd"]}}
        whole["training"]["batch_size"] = {"values": [8, 16, 32], "when": {"training.optimizer": ["sgd"]}}
    if draw(st.booleans()) and "blocks" in space:
        whole["data"] = {"augment": {"flip": {"values": [True, False], "when": {"model.blocks": [2]}}}}
    return problem(whole, limits, (side, draw(st.integers(max(1, side - 1), side)), 1), **fixed)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(problems())
def test_counts_are_those_of_building_each(p: Problem) -> None:
    every = enumerated(p)
    found = counted(p)
    assert found.valid == len(every)
    assert distinct(found) == len({signature for _, signature in every})
    listed = [found.complete(track, values, np.random.default_rng(0)) for track, values in found.members()]
    assert {tuple(v.items()) for v in listed} <= {tuple(v.items()) for v, _ in every}
    assert sum(math.prod(len(q.grid or ()) for q in track.rest) for track, _ in found.members()) == len(every)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_counts_are_those_of_building_each_many_times(p: Problem) -> None:
    every = enumerated(p)
    found = counted(p)
    assert (found.valid, distinct(found)) == (len(every), len({signature for _, signature in every}))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(problems())
def test_the_smallest_and_the_largest_network_are_the_extremes(p: Problem) -> None:
    sizes = [p.judge(values).network.parameters for values, _ in enumerated(p)]  # type: ignore[union-attr]
    found = lattice(p, ["parameters"])
    assert found is not None
    if sizes:
        ends = [p.judge(found.extreme("parameters", largest)).network for largest in (False, True)]
        assert [e.parameters for e in ends if e] == [min(sizes), max(sizes)]


def test_a_drawing_is_uniform_over_the_valid_configurations() -> None:
    space = {
        "blocks": {"min": 1, "max": 2},
        "filters": {"values": [2, 3], "per_block": True},
        "kernel_size": {"values": [3, 7], "per_block": True},
        "pooling": {"values": ["max", "none"]},
        "pool_size": {"values": [2, 4], "when": {"model.pooling": ["max"]}},
    }
    p = problem({"model": space}, {"parameters": 1_500.0}, padding="valid")
    every = [tuple(values.items()) for values, _ in enumerated(p)]
    found, rng = counted(p), np.random.default_rng(0)
    draws = 60 * len(every)
    counts = Counter(tuple((found.draw(rng) or {}).items()) for _ in range(draws))
    assert set(counts) == set(every)
    chi2 = sum((counts[key] - 60) ** 2 / 60 for key in every)
    freedom = len(every) - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)  # a fair drawing passes 999 times in 1,000


@pytest.mark.slow
def test_hundreds_of_millions_of_configurations_are_counted_exactly() -> None:
    config = compose(["space.model.blocks.max=4", "limits.mmacs=6", "limits.parameters=1M"])
    p = pose(config, (28, 28, 1), 10)
    found = counted(p)
    assert p.space.size > 2e8
    assert isinstance(found.valid, int)
    rng = np.random.default_rng(0)
    share = np.mean([p.judge(p.space.draw(rng)).fault is None for _ in range(4_000)])
    assert found.valid / p.space.size == pytest.approx(share, abs=0.015)
    assert 0.9 * found.valid < distinct(found) < found.valid

"""Counting, listing and drawing valid configurations, against building each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.models.cnn import layers
from cnnsweep.search.registry import build
from cnnsweep.search_space.counting import ValidConfigurations, list_valid
from cnnsweep.search_space.distinct_networks import count_distinct
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.problem import Problem, make_problem
from cnnsweep.search_space.stages import Uncountable

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
    "head": ["flatten", "average", "max"],
    "block": ["plain", "separable", "residual", "bottleneck", "inverted"],
    "repeats": [1, 2],
    "expansion": [1, 2],
    "squeeze_excite": [0, 2],
    "dense_units": [0, 3, 10],
    "dropout": [0.0, 0.25],
}
SETTINGS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
PER_BLOCK = ("block", "repeats", "filters", "kernel_size", "stride", "dilation", "padding", "pooling", "pool_size")
LIMITS = {"parameters": [40.0, 300.0, 2_000.0], "mmacs": [0.001, 0.01, 0.1], "activation_mb": [0.0005, 0.002, 0.01]}
BASE = compose(["space=none"]).plain()


def problem(
    space: dict[str, Any], limits: dict[str, float] | None = None, shape: Any = (8, 8, 1), **model: Any
) -> Problem:
    changed = {"space": space, "limits": BASE["limits"] | (limits or {}), "model": BASE["model"] | model}
    config = Config.from_plain(BASE | changed)
    return Problem(config, parse_space(config), shape, 10, layers)


def enumerated(p: Problem) -> list[tuple[dict[str, Any], Any]]:
    validated = [(values, p.validate(values)) for values in p.space.enumerate()]
    return [(values, validity.signature) for values, validity in validated if validity.fault is None]


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
    limited = draw(st.sets(st.sampled_from(sorted(LIMITS))))
    limits = {name: draw(st.sampled_from(LIMITS[name])) for name in sorted(limited)}
    whole: dict[str, Any] = {"model": space}
    if draw(st.booleans()):
        whole["training"] = {"optimizer": {"values": ["adam", "sgd"]}}
        whole["training"]["batch_size"] = {"values": [8, 16, 32], "when": {"training.optimizer": ["sgd"]}}
    if draw(st.booleans()) and "blocks" in space:
        whole["data"] = {"augment": {"flip": {"values": [True, False], "when": {"model.blocks": [2]}}}}
    return problem(whole, limits, (side, draw(st.integers(max(1, side - 1), side)), 1), **fixed)


@pytest.mark.parametrize("examples", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_counts_are_those_of_building_each(examples: int) -> None:
    @settings(**SETTINGS, max_examples=examples, derandomize=examples == 60)
    @given(problems())
    def check(p: Problem) -> None:
        every, found = enumerated(p), ValidConfigurations(p)
        assert (found.total, count_distinct(found)) == (len(every), len({signature for _, signature in every}))
        paths = list(found.members())
        assert {
            tuple(p.space.ordered(values | {q.name: q.at(0) for q in track.rest}).items()) for track, values in paths
        } <= {tuple(values.items()) for values, _ in every}
        assert sum(track.weight for track, _ in paths) == len(every)

    check()


@settings(**SETTINGS, max_examples=25, derandomize=True)
@given(problems())
def test_a_large_space_is_listed_like_a_small_one(p: Problem) -> None:
    every = [values for values, _ in enumerated(p)]
    assert list_valid(p, p.space.size) == every
    if len(every) < p.space.size:
        assert list_valid(p, len(every)) == every  # by counting, without building each


@settings(**SETTINGS, max_examples=25, derandomize=True)
@given(problems())
def test_the_smallest_and_the_largest_network_are_the_extremes(p: Problem) -> None:
    sizes = [p.validate(values).network.parameters for values, _ in enumerated(p)]  # type: ignore[union-attr]
    found = ValidConfigurations(p, "parameters")
    if sizes:
        ends = [p.validate(found.extreme("parameters", largest)).network for largest in (False, True)]
        assert [e.parameters for e in ends if e] == [min(sizes), max(sizes)]


def test_draws_are_those_of_the_space_without_what_is_not_valid() -> None:
    space = {
        "blocks": {"min": 1, "max": 2},
        "filters": {"values": [2, 3], "per_block": True},
        "kernel_size": {"values": [3, 7], "per_block": True},
        "pooling": {"values": ["max", "none"]},
        "pool_size": {"values": [2, 4], "when": {"model.pooling": ["max"]}},
    }
    p = problem({"model": space}, {"parameters": 1_500.0}, padding="valid")
    every = [tuple(values.items()) for values, _ in enumerated(p)]
    found, rng = ValidConfigurations(p), np.random.default_rng(0)
    counts = Counter(tuple((found.draw(rng) or {}).items()) for _ in range(60 * len(every)))
    assert set(counts) <= set(every)
    chances = np.array([p.space.preference(dict(values)) for values in every])
    assert chisquare([counts[key] for key in every], 60 * len(every) * chances / chances.sum()).pvalue > 0.001


WIDE = (
    "space.model.filters.values=[8,16,24,32,48,64,96,128]",
    "space.model.kernel_size.values=[3,5,7]",
    "space.model.dense_units.values=[0,16,32,64,96,128]",
)


@pytest.mark.slow
def test_hundreds_of_millions_of_configurations_are_counted_exactly() -> None:
    config = compose([*WIDE, "space.model.blocks.max=4", "limits.mmacs=6", "limits.parameters=1M"])
    p = make_problem(config, (28, 28, 1), 10)
    found = ValidConfigurations(p)
    assert p.space.size == 149_548_032
    assert isinstance(found.total, int)
    rng = np.random.default_rng(0)
    share = np.mean([p.validate(p.space.draw_evenly(rng)).fault is None for _ in range(4_000)])
    assert found.total / p.space.size == pytest.approx(share, abs=0.015)
    assert 0.9 * found.total < count_distinct(found) <= found.total


def test_a_space_that_takes_too_long_to_count_is_not_counted() -> None:
    each = {
        "filters": {"min": 8, "max": 198, "per_block": True},
        "kernel_size": {"values": [1, 3, 5], "per_block": True},
    }
    made = problem({"model": each}, blocks=5)
    with pytest.raises(Uncountable):
        ValidConfigurations(made)


@pytest.mark.parametrize("name", ["random", "auto"])
def test_all_of_a_few_valid_configurations_among_millions_are_found_at_once(name: str) -> None:
    few = ["space.model.dropout=null", "space.training=null", "limits.parameters=1500", "space.model.blocks.max=4"]
    p = make_problem(compose([*WIDE, *few, "budget={trials: null, minutes: 9}", f"search={name}"]), (28, 28, 1), 10)
    found = ValidConfigurations(p)
    assert (p.space.size, 1 <= found.total <= 20) == (49849344, True)
    search = build(p.config, p, Objective.of("val_loss"))
    proposed = []
    while not isinstance(proposal := search.ask("a"), str):
        proposed.append(p.validate(proposal.values))
        search.end(proposal.id, succeeded=False)
    assert all(validity.fault is None for validity in proposed)
    signatures = {p.validate(p.space.ordered(values)).signature for _, values in found.members()}
    assert {validity.signature for validity in proposed} == signatures
    assert len(proposed) == len(signatures)

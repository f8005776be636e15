"""What the space expands to, and that drawing from it is uniform over what it lists."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.space import Parameter

POOLED = {
    "model": {
        "blocks": {"min": 1, "max": 2},
        "filters": {"values": [8, 16], "per_block": True},
        "pooling": {"values": ["max", "none"], "per_block": True},
        "pool_size": {"values": [2, 3, 4], "per_block": True, "when": {"model.pooling": ["max"]}},
    }
}
PARAMETERS = [
    Parameter("word", ("same", "valid")),
    Parameter("unordered", (64, 16, 32)),
    Parameter("count", low=1, high=7, integer=True),
    Parameter("steps", low=0.0, high=0.5, step=0.1),
    Parameter("share", low=0.0, high=0.5),
    Parameter("rate", low=1e-4, high=1e-2, log=True),
    Parameter("width", low=1, high=500, integer=True, log=True),
]


@pytest.fixture
def space(configure):
    return lambda tree, **groups: parse_space(configure(tree, **groups))


PER_BLOCK = {"filters": {"values": [8, 16], "per_block": True}}
POOL_SIZE = {"values": [2, 3], "when": {"model.pooling": ["max"]}}
CHAIN = {"pool_size": POOL_SIZE, "dropout": {"values": [0.0, 0.5], "when": {"model.pool_size": [3]}}}


@pytest.mark.parametrize(
    ("tree", "model", "expected"),
    [
        (PER_BLOCK, {"blocks": 3}, ["filters.1", "filters.2", "filters.3"]),
        (PER_BLOCK | {"blocks": {"values": [1, 2]}}, {"blocks": 3}, ["filters.1", "blocks", "filters.2"]),
        ({"pool_size": POOL_SIZE}, {"pooling": "max"}, ["pool_size"]),
        ({"pool_size": POOL_SIZE}, {"pooling": "none"}, []),
        (CHAIN, {"pooling": "max"}, ["pool_size", "dropout"]),
        (CHAIN, {"pooling": "none"}, []),
        ({"pool_size": POOL_SIZE | {"per_block": True}}, {"blocks": 2, "pooling": ["none", "max"]}, ["pool_size.2"]),
        (
            {name: POOLED["model"][name] for name in ("pool_size", "pooling")},
            {"blocks": 1},
            ["pooling.1", "pool_size.1"],
        ),
    ],
)
def test_parameters_are_those_that_can_count_each_after_those_it_depends_on(space, tree, model, expected):
    assert [p.name for p in space({"model": tree}, model=model).parameters] == [f"model.{name}" for name in expected]


def test_settings_of_a_block_that_is_not_there_are_not_drawn(space):
    pooled = space(POOLED)
    for values in pooled.enumerate():
        for name in values:
            assert not name.endswith(".2") or values["model.blocks"] == 2
        for block in range(1, values["model.blocks"] + 1):
            assert (f"model.pool_size.{block}" in values) == (values[f"model.pooling.{block}"] == "max")


def test_size_counts_exactly_what_is_enumerated(space):
    one_block = 2 * (3 + 1)
    pooled = space(POOLED)
    assert pooled.size == one_block + one_block**2
    listed = [tuple(sorted(v.items())) for v in pooled.enumerate()]
    assert len(listed) == len(set(listed)) == pooled.size


def test_even_draws_are_uniform_over_what_is_enumerated_with_the_keys_in_one_order(space):
    pooled, rng = space(POOLED), np.random.default_rng(1)
    counts = Counter(tuple(pooled.draw_evenly(rng).items()) for _ in range(200 * pooled.size))
    listed = [tuple(v.items()) for v in pooled.enumerate()]
    assert set(counts) == set(listed)
    assert chisquare([counts[v] for v in listed]).pvalue > 0.01


def test_each_key_is_drawn_uniformly_given_those_that_it_depends_on(space):
    pooled, rng, many = space(POOLED), np.random.default_rng(1), 200 * space(POOLED).size
    counts = Counter(tuple(pooled.draw(rng).items()) for _ in range(many))
    listed = [tuple(v.items()) for v in pooled.enumerate()]
    assert set(counts) == set(listed)
    chances = [math.prod(1 / len(pooled.by_name[name].grid) for name, _ in values) for values in listed]
    assert sum(chances) == pytest.approx(1)
    assert chisquare([counts[v] for v in listed], [many * chance for chance in chances]).pvalue > 0.01
    for values, chance in zip(listed, chances, strict=True):
        assert pooled.preference(dict(values)) == pytest.approx(chance * pooled.size)


def test_a_space_of_many_blocks_is_counted_and_drawn_without_listing_it(space):
    deep = {"model": {**POOLED["model"], "blocks": {"min": 1, "max": 40}}}
    many = space(deep)
    assert many.size == sum(8**blocks for blocks in range(1, 41))
    assert many.draw_evenly(np.random.default_rng(0))["model.blocks"] >= 35
    assert {many.draw(np.random.default_rng(seed))["model.blocks"] <= 20 for seed in range(9)} == {False, True}


def test_a_space_larger_than_any_float_is_drawn_from(space):
    tree = {"model": {"filters": {"min": 1, "max": 10_000, "per_block": True}, "blocks": {"min": 1, "max": 90}}}
    assert 1 <= space(tree).draw(np.random.default_rng(0))["model.blocks"] <= 90


def test_nothing_searched_is_one_configuration(space):
    nothing = space({})
    assert (nothing.size, nothing.draw(np.random.default_rng(0)), list(nothing.enumerate())) == (1, {}, [{}])


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
@given(quantile=st.floats(0, 1, exclude_max=True))
def test_the_quantile_of_a_value_gives_the_value_back(parameter, quantile):
    value = parameter.at(quantile)
    assert parameter.allows(value)
    assert 0 <= parameter.quantile(value) <= 1
    assert parameter.at(parameter.quantile(value)) == pytest.approx(value) if value != "same" else value


@pytest.mark.parametrize("values", [(64, 16, 32), (32, 64, 16), (0.5, 0.0, 0.25)])
def test_numbers_are_points_in_their_order_however_they_are_given(space, values):
    (parameter,) = space(
        {"model": {"dropout" if 0.0 in values else "dense_units": {"values": list(values)}}}
    ).parameters
    assert sorted(values, key=parameter.quantile) == sorted(values)
    assert [parameter.at(q) for q in (0.1, 0.5, 0.9)] == sorted(values)
    assert parameter.grid == values, "a grid is walked through in the order given"


@pytest.mark.parametrize(("low", "high", "log"), [(0.1, 60.0, True), (11.2, 99.0, True), (0.91, 1.97, False)])
def test_the_ends_are_inside_the_range(low, high, log):
    parameter = Parameter("x", low=low, high=high, log=log)
    assert (parameter.at(0.0), parameter.at(1.0)) == pytest.approx((low, high))
    assert parameter.allows(parameter.at(0.0))
    assert parameter.allows(parameter.at(1.0))


def test_log_ranges_are_drawn_evenly_over_their_decades():
    rng = np.random.default_rng(0)
    integers = Parameter("n", low=10, high=1000, integer=True, log=True)
    for parameter in (Parameter("rate", low=1e-4, high=1e-2, log=True), integers):
        middle = (parameter.low * parameter.high) ** 0.5
        below = sum(parameter.at(rng.random()) < middle for _ in range(4000))
        assert below == pytest.approx(2000, abs=150)


def test_a_step_that_meets_zero_is_zero_without_a_sign():
    assert str(Parameter("x", low=-0.9, high=0.9, step=0.3).grid) == "(-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9)"


def test_both_ends_of_a_range_are_included():
    assert Parameter("n", low=1, high=3, integer=True).grid == (1, 2, 3)
    assert Parameter("x", low=0.0, high=0.3, step=0.1).grid == (0.0, 0.1, 0.2, 0.3)


def test_values_replace_keys_and_leave_the_base_alone(configure):
    base = configure({}, model={"blocks": 1})
    changed = base.with_values(
        {"training.learning_rate": 0.5, "model.blocks": 2, "model.filters.1": 8, "model.filters.2": 9}
    )
    assert (changed.training.learning_rate, changed.model.filters) == (0.5, [8, 9])
    assert (base.training.learning_rate, base.model.filters) == (0.001, 32)


FAULTS = {
    "empty list": ({"model": {"filters": {"values": []}}}, r"space.model.filters.values: .*at least one value"),
    "no list": ({"model": {"filters": {"values": 5}}}, r"space.model.filters.values: needs a list"),
    "twice": ({"model": {"filters": {"values": [8, 8]}}}, r"holds a value twice"),
    "mixed": ({"model": {"filters": {"values": [8, "a"]}}}, r"mixes int and str"),
    "nested": ({"model": {"filters": {"values": [[8]]}}}, r"each must be a number, a word"),
    "not finite": ({"model": {"dropout": {"values": [float("nan")]}}}, r"each must be a number"),
    "min above max": ({"model": {"blocks": {"min": 3, "max": 1}}}, r"space.model.blocks: min 3 is not below max 1"),
    "no max": ({"model": {"blocks": {"min": 3}}}, r"space.model.blocks.max: needs a number"),
    "endless": ({"model": {"dropout": {"min": 0.0, "max": float("inf")}}}, r"max: needs a number"),
    "log of zero": ({"model": {"dropout": {"min": 0, "max": 0.5, "log": True}}}, r"log range cannot start at 0"),
    "log below zero": ({"model": {"dropout": {"min": -1, "max": 0.5, "log": True}}}, r"log range cannot start at -1"),
    "step of zero": ({"model": {"blocks": {"min": 1, "max": 3, "step": 0}}}, r"space.model.blocks.step: '0'"),
    "too many": ({"model": {"dense_units": {"min": 0, "max": 10**12}}}, r"more than 100,000 values"),
    "both": (
        {"model": {"blocks": {"min": 1, "max": 3, "values": [1]}}},
        r"model.blocks: has both values and min",
    ),
    "log of values": ({"model": {"dense_units": {"values": [8, 64], "log": True}}}, r"has both values and log"),
    "one fraction": ({"training": {"batch_size": {"values": [16, 24.5, 32]}}}, r"'24.5' is not a whole number"),
    "step of fractions": (
        {"model": {"blocks": {"min": 1, "max": 3, "step": 0.5}}},
        r"'1.5' is not a whole number",
    ),
    "twice as held": (
        {"training": {"batch_size": {"values": ["16", "016"]}}},
        r"values: \[16, 16\] holds a value twice",
    ),
    "no value of a condition": (
        {"model": {"dense_units": {"values": [8], "when": {"model.padding": []}}}},
        r"space.model.dense_units.when.model.padding: names no value",
    ),
    "misspelt value of a condition": (
        {"model": {"dense_units": {"values": [8], "when": {"model.padding": "sane"}}}},
        r"space.model.dense_units.when: .*'sane', did you mean 'same'",
    ),
    "a condition on the key of each block": (
        {
            "model": {
                "stride": {"values": [1, 2], "when": {"model.pooling": "none"}},
                "pooling": {"values": ["max", "none"], "per_block": True},
            }
        },
        r"space.model.stride.when: 'model.pooling' has a value for each block; give model.stride `per_block: true` too",
    ),
    "misspelt optimizers": ({"training": {"optimizer": {"values": ["Adam", "SGD"]}}}, r"'Adam', did you mean 'adam'"),
    "misspelt schedule": ({"training": {"schedule": {"values": ["cosin"]}}}, r"'cosin', did you mean 'cosine'"),
    "unknown word": ({"model": {"blocks": {"mim": 1, "max": 3}}}, r"unknown 'mim', did you mean 'min'"),
    "unknown key": ({"model": {"filter": {"values": [1]}}}, r"no key 'model.filter' .*did you mean 'model.filters'"),
    "not searchable": ({"seed": {"values": [1, 2]}}, r"space.seed: the config has no key 'seed' to search"),
    "not an entry": ({"model": {"filters": 5}}, r"space.model.filters: expected"),
    "wrong type": ({"model": {"blocks": {"values": [1.5]}}}, r"space.model.blocks: .*1.5"),
    "out of bounds": ({"model": {"filters": {"values": [99999999999, 4]}}}, r"filters: 99999999999 \(must be at most"),
    "wrong word": ({"model": {"padding": {"values": ["sane"]}}}, r"padding.*'sane', did you mean 'same'"),
    "rate above one": ({"model": {"dropout": {"min": 0.1, "max": 1.5}}}, r"space.model.dropout: 1.5 \(must be"),
    "blocks per block": ({"model": {"blocks": {"min": 1, "max": 2, "per_block": True}}}, r"for the whole network"),
    "epochs per block": ({"training": {"epochs": {"values": [1], "per_block": True}}}, r"for the whole network"),
    "per_block no bool": ({"model": {"filters": {"values": [1], "per_block": 5}}}, r"per_block: '5'"),
    "unknown condition": (
        {"model": {"filters": {"values": [1], "when": {"model.poolin": ["max"]}}}},
        r"'model.pooling'",
    ),
    "condition no mapping": ({"model": {"filters": {"values": [1], "when": 5}}}, r"when: expected"),
    "condition on a range": (
        {"model": {"dropout": {"min": 0.0, "max": 0.5}, "filters": {"values": [1], "when": {"model.dropout": [0]}}}},
        r"'model.dropout' is a continuous range",
    ),
    "circle": (
        {
            "model": {
                "filters": {"values": [1], "when": {"model.stride": [1]}},
                "stride": {"values": [1], "when": {"model.filters": [1]}},
            }
        },
        r"form a circle",
    ),
}


@pytest.mark.parametrize(
    ("key", "entry", "expected"),
    [
        ("training.batch_size", {"values": [16.0, 32.0]}, (16, 32)),
        ("training.batch_size", {"values": ["16", "32"]}, (16, 32)),
        ("training.batch_size", {"min": 16, "max": 18.0}, (16, 17, 18)),
        ("training.batch_size", {"min": 16, "max": 24, "step": 4.0}, (16, 20, 24)),
        ("model.batch_norm", {"values": ["true", "false"]}, (True, False)),
        ("model.dropout", {"values": [0, 0.5]}, (0.0, 0.5)),
        ("model.dropout", {"values": [0]}, (0,)),
        ("model.dropout", {"min": 0.0, "max": 1e-14, "step": 5e-15}, (0.0, 5e-15, 1e-14)),
        ("training.learning_rate", {"min": 0.1, "max": 0.3, "step": 0.1}, (0.1, 0.2, 0.3)),
    ],
)
def test_values_are_of_the_type_that_the_key_holds(space, key, entry, expected):
    group, name = key.split(".")
    (parameter,) = space({group: {name: entry}}).parameters
    assert parameter.grid == expected
    assert [type(value) for value in parameter.grid] == [type(value) for value in expected]


@pytest.mark.parametrize(("value", "whole"), [("0.5", False), ("2", True), ("null", True)])
def test_a_range_of_fractions_has_them_between_whole_ends_too(space, value, whole):
    """A rotation of 0 to 1 was none or a full turn."""
    (of_its_type,) = space({"data": {"augment": {"rotation": {"min": 0, "max": 1}}}}).parameters
    assert of_its_type.grid is None
    assert of_its_type.at(0.25) == 0.25
    entry = "space.job.rate={min: 0, max: 1000000}" if not whole else "space.job.rate={min: 0, max: 3}"
    (of_its_value,) = parse_space(compose(["job=function", "job.call=a.b", f"+job.rate={value}", entry])).parameters
    assert of_its_value.grid == ((0, 1, 2, 3) if whole else None)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_space_that_makes_no_sense_is_one_short_error(space, fault):
    tree, message = FAULTS[fault]
    with pytest.raises(UserError, match=message) as caught:
        space(tree)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ("X", r"space.job.b.when.job.a: 'X' is none of its values, did you mean 'x'\? \(one of x, y\)"),
        (1, r"space.job.b.when.job.a: '1' is none of its values \(one of x, y\)"),
    ],
)
def test_a_condition_that_a_key_of_ones_own_can_never_meet_is_an_error(allowed, message):
    own = ["job=function", "job.call=a.b", "+job.a=x", "+job.b=1", "space.job.a.values=[x,y]"]
    with pytest.raises(UserError, match=message):
        parse_space(compose([*own, f"space.job.b={{values: [1, 2], when: {{job.a: [{allowed}]}}}}"]))
    narrowed = parse_space(compose([*own, "space.job.b={values: [1, 2], when: {job.a: [z]}}"]))  # of a wider space
    assert [p.name for p in narrowed.parameters] == ["job.a", "job.b"]

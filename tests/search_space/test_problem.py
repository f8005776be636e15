"""What may be proposed: the limits, what cannot be built, and when two configurations are one network."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.errors import UserError
from cnnsweep.search_space.problem import pose, short_name, trial_seed

FILTERS = {"model": {"filters": {"values": [8, 64]}}}
SMALL = {"model": {"blocks": 1, "kernel_size": 3, "dense_units": 0, "padding": "valid", "pooling": "none"}}


def test_a_network_within_its_limits_is_measured(problem):
    verdict = problem(FILTERS, **SMALL).judge({"model.filters": 8})
    weights = (3 * 3 + 1) * 8 + (6 * 6 * 8 + 1) * 10
    assert (verdict.fault, verdict.network.parameters) == (None, weights)


@pytest.mark.parametrize(("limit", "most"), [("parameters", 3000), ("mmacs", 0.01), ("activation_mb", 0.005)])
def test_a_network_above_a_limit_is_refused_with_its_figure(problem, limit, most):
    posed = problem(FILTERS, **SMALL, limits={limit: most})
    assert posed.judge({"model.filters": 8}).fault is None
    assert posed.judge({"model.filters": 64}).fault.startswith(f"limits.{limit}: ")


def test_a_network_exactly_at_its_limit_is_allowed(problem):
    weights = problem(FILTERS, **SMALL).judge({"model.filters": 8}).network.parameters
    assert problem(FILTERS, **SMALL, limits={"parameters": weights}).judge({"model.filters": 8}).fault is None


def test_what_cannot_be_built_is_refused_with_the_key_that_is_to_blame(problem):
    posed = problem({"model": {"kernel_size": {"values": [3, 9]}}}, model={"blocks": 1, "padding": "valid"})
    assert posed.judge({"model.kernel_size": 3}).fault is None
    assert "model.kernel_size" in posed.judge({"model.kernel_size": 9}).fault


def test_two_spellings_of_one_network_have_one_signature(problem):
    tree = {"model": {"pooling": {"values": ["max", "none"]}, "pool_size": {"values": [2, 3]}}}
    posed = problem(tree, model={"blocks": 1})

    def sign(pooling, size):
        return posed.judge({"model.pooling": pooling, "model.pool_size": size}).signature

    assert sign("none", 2) == sign("none", 3)
    assert len({sign("max", 2), sign("max", 3), sign("none", 2)}) == 3


def test_the_same_network_trained_otherwise_is_another_configuration(problem):
    posed = problem({"training": {"learning_rate": {"values": [0.1, 0.2]}}})
    one, two = (posed.judge({"training.learning_rate": rate}) for rate in (0.1, 0.2))
    assert (one.network, one.signature == two.signature) == (two.network, False)


def test_a_model_without_geometry_is_never_refused(problem):
    posed = problem(FILTERS, model={"layers": None})
    assert posed.judge({"model.filters": 8}).fault is None
    assert posed.judge({"model.filters": 8}).signature != posed.judge({"model.filters": 64}).signature


@pytest.mark.parametrize(
    ("space", "groups", "message"),
    [
        (FILTERS, {"limits": {"parameters": 10}}, r"limits.parameters: 10 rules out .*: the least is .* parameters"),
        ({"model": {"kernel_size": {"values": [9, 11]}}}, {"model": {"padding": "valid"}}, r"no configuration"),
        ({}, {"model": {"blocks": 2, "filters": [1, 2, 3]}}, r"^model.filters: 3 values"),
        ({}, {"model": {"layers": "no.such.module"}}, r"model.layers: cannot import 'no.such.module'"),
        ({}, {"model": {"layers": "cnnsweep.models.cnn.layer"}}, r"did you mean 'layers'"),
    ],
)
def test_a_problem_without_a_valid_configuration_is_an_error_that_says_why(problem, space, groups, message):
    with pytest.raises(UserError, match=message):
        problem(space, **groups)


def test_limits_win_over_geometry_as_the_reason_that_nothing_is_valid(problem):
    tree = {"model": {"kernel_size": {"values": [9, 3]}}}
    with pytest.raises(UserError, match=r"limits.mmacs: 1e-09 rules out every configuration"):
        problem(tree, model={"padding": "valid", "pooling": "none"}, limits={"mmacs": 1e-9})


def test_judging_twice_gives_one_verdict(configure):
    posed = pose(configure(FILTERS), (8, 8, 1), 10)
    rng = np.random.default_rng(0)
    drawn = [posed.space.draw(rng) for _ in range(20)]
    assert [posed.judge(v) for v in drawn] == [posed.judge(v) for v in drawn]


def test_seeds_of_trials_differ_by_sweep_and_by_number():
    seeds = {trial_seed(seed, number) for seed in range(30) for number in range(1, 31)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({}, "007 · 32-32 k3 same max"),
        ({"filters": [8, 16], "kernel_size": [3, 5]}, "007 · 8-16 k3-5 same max"),
        ({"stride": 2, "pooling": "none", "padding": "valid"}, "007 · 32-32 k3 s2 valid none"),
    ],
)
def test_a_name_tells_the_network_in_short(configure, model, name):
    assert short_name(7, configure({}, model=model)["model"], {}) == name


def test_another_model_family_is_named_by_what_is_searched():
    assert short_name(1, {"_target_": "mine.build"}, {"model.depth": 3, "training.epochs": 2}) == "001 · 3"
    assert short_name(1, {"_target_": "mine.build"}, {}) == "001 · build"

"""The validity of configurations: limits, layers that do not fit, and when two configurations are one network."""

from __future__ import annotations

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.search_space.problem import make_problem

FILTERS = {"model": {"filters": {"values": [8, 64]}}}
NARROW = ["space=none", "model.padding=valid", "model.pooling=none"]
SMALL = {"model": {"blocks": 1, "kernel_size": 3, "dense_units": 0, "padding": "valid", "pooling": "none"}}


def test_a_network_within_its_limits_is_measured(problem):
    validity = problem(FILTERS, **SMALL).validate({"model.filters": 8})
    weights = (3 * 3 + 1) * 8 + (6 * 6 * 8 + 1) * 10
    assert (validity.fault, validity.network.parameters) == (None, weights)


@pytest.mark.parametrize(("limit", "most"), [("parameters", 3000), ("mmacs", 0.01), ("activation_mb", 0.005)])
def test_a_network_above_a_limit_is_refused_with_its_figure(problem, limit, most):
    searched = problem(FILTERS, **SMALL, limits={limit: most})
    assert searched.validate({"model.filters": 8}).fault is None
    assert searched.validate({"model.filters": 64}).fault.startswith(f"limits.{limit}: ")


def test_a_network_exactly_at_its_limit_is_allowed(problem):
    weights = problem(FILTERS, **SMALL).validate({"model.filters": 8}).network.parameters
    assert problem(FILTERS, **SMALL, limits={"parameters": weights}).validate({"model.filters": 8}).fault is None


def test_what_cannot_be_built_is_refused_with_the_key_that_is_to_blame(problem):
    searched = problem({"model": {"kernel_size": {"values": [3, 9]}}}, model={"blocks": 1, "padding": "valid"})
    assert searched.validate({"model.kernel_size": 3}).fault is None
    assert "model.kernel_size" in searched.validate({"model.kernel_size": 9}).fault


def test_two_spellings_of_one_network_have_one_signature(problem):
    tree = {"model": {"pooling": {"values": ["max", "none"]}, "pool_size": {"values": [2, 3]}}}
    searched = problem(tree, model={"blocks": 1})

    def sign(pooling, size):
        return searched.validate({"model.pooling": pooling, "model.pool_size": size}).signature

    assert sign("none", 2) == sign("none", 3)
    assert len({sign("max", 2), sign("max", 3), sign("none", 2)}) == 3


def test_the_same_network_trained_otherwise_is_another_configuration(problem):
    searched = problem({"training": {"learning_rate": {"values": [0.1, 0.2]}}})
    one, two = (searched.validate({"training.learning_rate": rate}) for rate in (0.1, 0.2))
    assert (one.network, one.signature == two.signature) == (two.network, False)


def test_a_model_without_geometry_is_never_refused(problem):
    searched = problem(FILTERS, model={"layers": None})
    assert searched.validate({"model.filters": 8}).fault is None
    assert searched.validate({"model.filters": 8}).signature != searched.validate({"model.filters": 64}).signature


def test_a_value_that_is_wrong_beside_some_values_alone_is_searched():
    waves = ["data=made_signals", "model=cnn1d", "space=none", "model.representation=spectrogram"]
    spaces = [["space.model.axes.values=[1,2]", "space.model.padding.values=[same,causal]"]]
    for space in (*spaces, spaces[0][::-1]):
        found = make_problem(compose([*waves, *space]), (1000, 1), 4, "signal")
        assert sum(found.validate(values).fault is None for values in found.space.enumerate()) == 3
    only = make_problem(compose([*waves, spaces[0][0], "space.model.padding.values=[causal]"]), (1000, 1), 4, "signal")
    assert sum(only.validate(values).fault is None for values in only.space.enumerate()) == 1
    with pytest.raises(UserError, match="'causal', which needs one axis, not 2"):
        make_problem(compose([*waves, "model.axes=2", spaces[0][1]]), (1000, 1), 4, "signal")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["space=none", "model.kernel_size=-3"], ["model.kernel_size: block 1's value is -3", "block1_conv    fails"]),
        (["space.model.stride.values=[1,0]"], ["model.stride: block ", "'s value is 0, not a positive", "fails"]),
        (
            ["space.model.pool_size.values=[2,-2]"],
            ["model.pool_size: block 1's value is -2", "block1_conv ", "block1_pool           fails"],
        ),
        (["space.model.kernel_size.values=[3,5,-3]"], ["model.kernel_size: block ", "'s value is -3, not a positive"]),
        (["space.model.kernel_size.values=[3,5,0]"], ["model.kernel_size: block ", "'s value is 0, not a positive"]),
        (["model.filters=[8,16]"], ["model.filters: 2 values [8, 16] for model.blocks="]),
        (["model.layers=no.such.module"], ["model.layers: cannot import 'no.such.module'"]),
        (["model.layers=cnnsweep.models.cnn.layer"], ["did you mean 'layers'"]),
        (["limits.parameters=2 MB"], ["limits.parameters: '2 MB' is not a positive number"]),
        (
            ["space=none", "model.dense_units=2000", "limits.parameters=1M"],
            ["limits.parameters: 1,000,000 rules out", "the least is 3,167,578 parameters"],
        ),
        (["limits.parameters=100"], ["limits.parameters: 100 rules out", "the least is 4,970 parameters", "total"]),
        (
            ["limits.parameters=5000", "limits.mmacs=0.3"],
            ["limits.parameters=5,000 and limits.mmacs=0.3 together", "least is 0.397024 million"],
        ),
        (
            [*NARROW, "space.model.kernel_size.values=[31,3]", "limits.mmacs=1e-9"],
            ["limits.mmacs: 1e-09 rules out every configuration"],  # named rather than the kernel that does not fit
        ),
        (["space=none", "model.kernel_size=31", "model.padding=valid"], ["31×31 kernel is larger", "28×28×1"]),
        (["model.kernel_size=31", "model.padding=valid"], ["no configuration of the space can be built", "31×31"]),
    ],
)
def test_a_problem_without_a_valid_configuration_is_an_error_that_says_why(overrides, words):
    with pytest.raises(UserError) as error:
        make_problem(compose(overrides), (28, 28, 1), 10)
    for text in words:
        assert text in str(error.value)

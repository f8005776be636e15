"""The space of a model that knows its own, in the config of a sweep."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.data.arrays import Dataset
from cnnsweep.errors import UserError
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.problem import make_problem
from cnnsweep.sweep.discovery import discover


@pytest.fixture(scope="module")
def digits() -> Dataset:
    x, y = np.zeros((20, 8, 8, 1), "uint8"), np.arange(20, dtype="int32") % 10
    return Dataset("none", x, y, x, y, x, y, tuple("0123456789"), "here", "0", 1 / 255)


def found(digits: Dataset, name: str, *overrides: str) -> Config:
    config = compose(["model=keras_tuner", f"model.hypermodel=own_models.{name}", *overrides])
    return discover(config, digits, InlineExecutor(), lambda _: None)


def test_what_the_model_asks_for_is_searched(digits: Dataset) -> None:
    config = found(digits, "Convolutions")
    assert [p.name for p in parse_space(config).parameters] == ["model.hp.kernel"]
    again = Config.from_plain(config.plain())  # as a journal has it
    assert again == config
    assert discover(again, digits, InlineExecutor(), lambda _: None) == config


def test_a_value_that_is_given_is_fixed_and_a_range_is_narrowed_under_its_condition(digits: Dataset) -> None:
    narrowed = "space.model.hp.units_1={values: [8, 16]}"
    config = found(digits, "build", "model.hp.activation=tanh", narrowed, "space.model.hp.lr=null")
    parameters = parse_space(config).by_name
    assert parameters["model.hp.units_1"].choices == (8, 16)
    assert parameters["model.hp.units_1"].when == (("model.hp.layers", (2, 3)),)
    assert not {"model.hp.activation", "model.hp.lr"} & set(parameters)
    assert config.model.plain()["hp"]["activation"] == "tanh"


@pytest.mark.parametrize(("name", "given"), {"Convolutions": ["model.hp.kernel=3"], "fixed": []}.items())
def test_a_model_of_which_nothing_is_searched_is_one_configuration(
    digits: Dataset, name: str, given: list[str]
) -> None:
    config = found(digits, name, *given)
    assert parse_space(config).parameters == ()
    assert make_problem(config, digits.input_shape, digits.classes).validate({}).fault is None


@pytest.mark.parametrize("override", ["model.hp.unit_0=8", "space.model.hp.unit_0={values: [8]}"])
def test_a_hyperparameter_that_is_not_asked_for_is_named(digits: Dataset, override: str) -> None:
    with pytest.raises(UserError, match=r"hp.unit_0: own_models.build does not ask for it, did you mean 'units_0'"):
        found(digits, "build", override)


def test_a_model_that_cannot_be_built_is_refused_before_the_first_trial(digits: Dataset) -> None:
    with pytest.raises(UserError, match="with the default values: ValueError: Computed output size"):
        found(digits, "unbuildable")


def test_networks_that_cannot_be_built_or_are_too_large_are_not_valid(digits: Dataset) -> None:
    config = found(digits, "Convolutions")
    problem = make_problem(config, digits.input_shape, digits.classes)
    assert problem.validate({"model.hp.kernel": 3}).fault is None
    assert "the network cannot be built" in (problem.validate({"model.hp.kernel": 7}).fault or "")
    limits = config.limits.replace(parameters=100)
    with pytest.raises(UserError, match=r"limits\.parameters: "):
        make_problem(config.replace(limits=limits), digits.input_shape, digits.classes)

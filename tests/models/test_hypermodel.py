"""What KerasTuner's models ask for, as a space; and the networks of its values."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import Mock

import pytest

from cnnsweep.config.schema import check_section
from cnnsweep.errors import UserError
from cnnsweep.models import hypermodel
from cnnsweep.models.hypermodel import Explorer, asking, builder
from cnnsweep.trial import Discovered

SHAPE, CLASSES = (8, 8, 1), 10


def explore(name: str) -> Discovered:
    return Explorer(asking(f"own_models.{name}", SHAPE, CLASSES)).explore()


def model(name: str, **hp: Any) -> Any:
    values = {"_target_": "cnnsweep.models.hypermodel.build", "hypermodel": f"own_models.{name}", "discover": None}
    return check_section("model", {**values, "hp": hp, "names": {}})


@pytest.fixture(scope="module")
def found() -> Discovered:
    return explore("build")


@pytest.mark.parametrize(
    ("name", "entry"),
    {
        "layers": {"min": 1, "max": 3},
        "units_0": {"min": 8, "max": 32, "step": 8},
        "units_1": {"min": 8, "max": 32, "step": 8, "when": {"model.hp.layers": [2, 3]}},
        "units_2": {"min": 8, "max": 32, "step": 8, "when": {"model.hp.layers": [3]}},
        "activation": {"values": ["relu", "tanh"]},
        "dropout": {"values": [False, True]},
        "rate": {"min": 0.1, "max": 0.5, "step": 0.1, "when": {"model.hp.dropout": [True]}},
        "lr": {"min": 1e-4, "max": 1e-1, "log": True},
        "momentum": {"min": 0.0, "max": 0.9, "when": {"model.hp.optimizer": ["sgd"]}},
    }.items(),
)
def test_the_space_is_what_the_model_asks_for_with_its_conditions(found: Discovered, name: str, entry: Any) -> None:
    assert found.space[name] == entry


def test_hyperparameters_that_are_given_are_not_tried() -> None:
    counted = Mock(side_effect=builder("own_models.build", SHAPE, CLASSES))
    space = Explorer(counted, {"layers": 2, "dropout": True}).explore().space
    assert "when" not in space["units_1"]
    assert "units_2" not in space
    assert "when" not in space["rate"]
    assert counted.call_count == 2 + 7  # twice the same; others of units_0 and _1, activation, optimizer, 3 fractions


def test_the_values_are_the_defaults(found: Discovered) -> None:
    assert (found.values["units_2"], found.values["lr"], found.values["dropout"]) == (8, 1e-4, False)
    assert found.notes == ()


def test_conditional_scopes_are_the_conditions_of_the_space() -> None:
    space = explore("Documented").space
    assert space["units"]["when"] == {"model.hp.model_type": ["mlp"]}
    assert space["filters"]["when"] == {"model.hp.model_type": ["cnn"]}
    assert not hypermodel.build(model("Documented", model_type="cnn", filters=4), SHAPE, CLASSES).compiled


@pytest.mark.parametrize(
    ("name", "when"),
    {
        "rate": None,  # dropout_0 or dropout_1
        "dropout_1": {"model.hp.layers": [2]},
        "lr": {"model.hp.optimizer": ["adam", "sgd"]},
        "thirty": None,  # 98 of 100 numbers are not tried
        "everywhere": None,
    }.items(),
)
def test_one_that_is_asked_for_in_several_places_is_searched_in_all(name: str, when: Any) -> None:
    """It was searched where both conditions hold, under the last one, or for the largest number alone."""
    found = explore("alternatives")
    assert found.space[name].get("when") == when
    assert found.notes == ("asked for with several ranges, of which the first counts: lr",)


def test_reversed_logarithms_have_their_steps_or_their_range_and_a_note() -> None:
    found = explore("reversed_scales")
    assert found.space["stepped"] == {"values": [1, 91, 100]}
    assert found.space["share"] == {"values": [0.0001, 0.9001, 0.9901, 0.9991, 1.0]}
    assert found.space["free"] == {"min": 0.1, "max": 1.0}
    assert found.notes == ("drawn uniformly, not by reverse_log: free",)


def test_names_that_a_config_cannot_have_are_changed() -> None:
    assert hypermodel._key("block.1 (units)") == "block_1 _units_"


def test_the_network_is_that_of_the_values() -> None:
    values = {"layers": 2, "units_0": 16, "units_1": 8, "activation": "relu", "dropout": False, "optimizer": "sgd"}
    config = model("build", **values, lr=0.01, momentum=0.5)
    built = hypermodel.build(config, SHAPE, CLASSES, scale=1 / 255)
    assert built.optimizer.get_config()["momentum"] == 0.5
    assert built.count_params() == (64 + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 10
    network = hypermodel.measure(config, SHAPE, CLASSES)
    assert network.mult_adds == 64 * 16 + 16 * 8 + 8 * 10
    assert [row.layer.name for row in network.layers if row.parameters] == ["dense", "dense_1", "dense_2"]


def test_a_class_gets_the_shapes_and_its_loss_takes_labels_as_numbers() -> None:
    built = hypermodel.build(model("Convolutions", kernel=3), SHAPE, CLASSES, scale=1 / 255)
    assert built.input_shape == (None, *SHAPE)
    assert built.loss == "sparse_categorical_crossentropy"


def test_a_network_that_cannot_be_built_is_known_before_it_is_trained() -> None:
    with pytest.raises(UserError, match="the network cannot be built: ValueError: "):
        hypermodel.measure(model("Convolutions", kernel=7), SHAPE, CLASSES)


def test_what_is_asked_for_late_fails_its_trial_by_name_and_is_not_left_out_in_silence() -> None:
    found = explore("changing")
    assert "late" not in found.space
    config = model("changing", **{**found.values, "a": 2, "b": 2})
    with pytest.raises(UserError, match=r"own_models.changing asks for late, which it did not ask for when"):
        hypermodel.build(config, SHAPE, CLASSES)
    assert hypermodel.measure(config, SHAPE, CLASSES).parameters > 0, "it is proposed"


@pytest.mark.parametrize(
    ("name", "fault"),
    {
        "unbuildable": "with the default values: ValueError: Computed output size would be negative",
        "growing": "of two builds with the default values one alone asks for extra_1, extra_2: what it asks for may",
        "alike": "the hyperparameters 'units.a' and 'units_a' would both be model.hp.units_a: rename one",
        "without_arguments": "own_models.without_arguments() -> 'keras.Model' cannot be called with (hp)",
        "FitsOwnEpochs": "own_models.FitsOwnEpochs.fit got multiple values for keyword argument 'epochs'; x, y",
        "SHAPE": "'own_models' has no class or function 'SHAPE'",
        "keras": "own_models.keras is module, expected a function build(hp) or a HyperModel",
    }.items(),
)
def test_a_hypermodel_that_cannot_be_used_is_refused(name: str, fault: str) -> None:
    with pytest.raises(UserError, match=re.escape(fault)):
        explore(name)


@pytest.mark.parametrize(
    ("name", "asked"), {"WithFit": {"units", "batch_size", "shuffle"}, "WithLoop": {"rate"}}.items()
)
def test_what_a_fit_of_its_own_asks_for_is_in_the_space(name: str, asked: set[str]) -> None:
    assert set(explore(name).space) == asked


def test_an_instance_of_a_hypermodel_is_used_as_it_is() -> None:
    assert explore("instance").space == {"kernel": {"values": [3, 7]}}


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"own_models.no_model returned str, expected a Keras model"):
        hypermodel.build(model("no_model"), SHAPE, CLASSES)

"""The search that a config names, of the package or the user's own, and faults of `search.start_with`."""

from __future__ import annotations

import numpy as np
import pytest
from searching import ACCURACY, DISCRETE, FLAT, TINY, drive

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.search.observations import Untried
from cnnsweep.search.oracle import Oracle, Proposal
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import make_problem


class Largest(Oracle):
    """A user's own search: the largest of some valid configurations."""

    def __init__(self, task, *, tries):
        super().__init__(task)
        self.tries = tries

    def draw(self):
        drawn = [values for _ in range(self.tries) if (values := self.untried.draw(self.rng()))]
        return max(drawn, key=lambda values: values["model.filters"], default=None)


def test_a_users_own_search_gets_its_settings_as_keywords(start):
    _, search = start("random", TINY, search={"_target_": f"{__name__}.Largest", "tries": 5, "max_failures": None})
    assert search.tries == 5
    assert len(drive(search)) == 6


def test_a_search_that_is_no_oracle_is_an_error(problem):
    made = problem(TINY, search={"_target_": "collections.Counter"})
    with pytest.raises(UserError, match=r"search._target_: 'collections.Counter' is no subclass of cnnsweep.*Oracle"):
        build(made.config, made, ACCURACY)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_an_unknown_sampler_is_an_error_that_lists_the_others(name):
    with pytest.raises(UserError, match=r"search.sampler 'tpo', did you mean 'tpe'.*cmaes, gp, nsga2, qmc, random"):
        compose([f"search={name}", "search.sampler=tpo"])


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"model.filters": 12}, r"start_with, entry 1: model.filters.1: 12 is outside the space \(one of 8, 16, 32\)"),
        ({"model.filtres": 8}, r"'model.filtres' is not searched, did you mean 'model.filters'"),
        ({"model.kernel_size": 7, "model.padding": "valid"}, r"entry 1: .*"),
        (
            {"model.blocks": 2, "model.filters": []},
            r"model.filters: \[\] has 0 values, and there are 2 blocks",
        ),
        ({"model.blocks": 2, "model.filters": [8, 16, 32]}, r"\[8, 16, 32\] has 3 values, and there are 2 blocks"),
        ("big", r"entry 1: 'big' is no configuration"),
    ],
)
def test_a_configuration_outside_the_space_is_an_error_unless_it_is_optional(start, entry, error):
    with pytest.raises(UserError, match=error):
        start("random", DISCRETE, search={"start_with": [entry]})
    if isinstance(entry, dict):
        _, search = start("random", DISCRETE, search={"start_with": [{**entry, "optional": True}]})
        assert len(search.notes) == 1
        assert isinstance(search.ask("a"), Proposal)


def test_what_has_no_effect_in_a_configuration_is_named(start):
    entry = {"model.blocks": 1, "model.filters.1": 8, "model.filters.2": 16}
    _, search = start("random", DISCRETE, search={"start_with": [entry]})
    (note,) = search.notes
    assert note.endswith("entry 1: without effect, because of its other values: model.filters.2")


def test_numbers_that_are_given_as_text_are_numbers(start):
    """MLflow has params as texts; 8 was outside of 8, 16, 32."""
    entry = {"model.filters": "8", "model.dropout": "0.25", "model.activation": "elu"}
    _, search = start("random", {"model": FLAT["model"]}, search={"start_with": [entry]}, model={"blocks": 1})
    assert search.ask("a").values == {"model.filters.1": 8, "model.activation": "elu", "model.dropout": 0.25}


@pytest.mark.parametrize("name", ["asha", "hyperband", "auto"])
def test_a_search_that_compares_rungs_searches_no_epochs(start, name):
    tree = {**TINY, "training": {"epochs": {"values": [1, 4]}}}
    with pytest.raises(UserError, match=r"space.training.epochs: this search compares .* the same numbers of epochs"):
        start(name, tree)
    start("tpe", tree)


def test_a_preset_can_start_with_a_textbooks_network():
    first = "{model.blocks: 2, model.filters: 32, model.dense_units: 128, training.learning_rate: 1e-3, optional: true}"
    begin = f"search.start_with=[{first}]"
    config = compose(["+sweep=fashion", begin])
    search = build(config, make_problem(config, (28, 28, 1), 10), ACCURACY)
    assert search.notes == []
    assert search.ask("a").values["model.dense_units"] == 128
    narrowed = compose(["+sweep=fashion", begin, "space.model.filters.values=[16]", "search=tpe"])
    assert len(build(narrowed, make_problem(narrowed, (28, 28, 1), 10), ACCURACY).notes) == 1


SHAPES = {"digits": (8, 8, 1), "fashion": (28, 28, 1), "mnist": (28, 28, 1)}


@pytest.mark.parametrize("preset", SHAPES)
def test_presets_begin_with_networks_of_their_space(preset):
    config = compose([f"+sweep={preset}"])
    search = build(config, make_problem(config, SHAPES[preset], 10), ACCURACY)
    assert search.notes == []
    assert len(config.search.start_with) >= 2
    assert search.ask("a").values["model.blocks"] == config.search.start_with[0]["model.blocks"]


@pytest.mark.parametrize("preset", ["digits", "fashion"])
def test_in_shipped_spaces_every_block_halves_the_maps_once(preset):
    problem = make_problem(compose([f"+sweep={preset}", "space=cnn", "limits.parameters=null"]), SHAPES[preset], 10)
    untried = Untried(problem)
    for seed in range(60):
        values = untried.draw(np.random.default_rng(seed))
        network, blocks = problem.validate(values).network, values["model.blocks"]
        flat = next(row for row in network.layers if row.layer.kind == "flatten")
        assert flat.output_shape[-1] <= 96 * (SHAPES[preset][0] / 2**blocks + 0.5) ** 2
        assert (values["model.pooling"] == "none") is ("model.stride" in values)

"""The configurations among which a model chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from searching import DISCRETE, FLAT

from cnnsweep.geometry.network import measure
from cnnsweep.search.candidates import Candidates
from cnnsweep.search.curve_model import encode


def values_of(found):
    return [candidate.values for candidate in found]


@pytest.fixture
def candidates(problem):
    """Makes candidates, whose costs are their numbers of keys."""
    posed = problem(FLAT, "auto", training={"epochs": 9})
    return lambda seed=0, problem=posed: Candidates(problem, seed, len)


def test_each_is_kept_for_four_proposals(candidates):
    drawn = candidates()
    first, second = drawn.of(7), drawn.of(8)
    assert (len(first), len(second)) == (128, 128)
    assert second[:96] == first[32:]
    assert not any(candidate in first for candidate in second[96:])
    assert not any(candidate in first for candidate in drawn.of(11))


def test_they_depend_on_the_seed_and_the_number_alone(candidates):
    """So that a sweep that is resumed, or that lets a number pass, has the same."""
    one = candidates()
    for number in range(10, 14):
        found = one.of(number)
    assert found == candidates().of(13)
    assert found != candidates(seed=1).of(13)


def test_each_is_valid_and_comes_with_its_point_and_its_cost(problem):
    posed = problem(DISCRETE, "auto", training={"epochs": 9})
    found = Candidates(posed, 0, len).of(0)
    assert all(posed.validate(values).fault is None for values in values_of(found))
    assert [(c.point, c.cost) for c in found] == [(encode(posed, values), len(values)) for values in values_of(found)]


def test_fewer_are_drawn_where_each_has_to_be_built(candidates, problem):
    posed = problem(FLAT, "auto", training={"epochs": 9})
    layers = posed.layers
    built = replace(posed, sizes=lambda *about: measure(layers(*about), about[1]))
    assert len(candidates(problem=built).of(0)) == 32

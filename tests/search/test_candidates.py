"""The configurations among which a model chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from searching import DISCRETE, FLAT, TINY

from cnnsweep.geometry.network import measure
from cnnsweep.search import observations
from cnnsweep.search.candidates import Candidates
from cnnsweep.search.curve_model import encode
from cnnsweep.search.observations import Untried


class Drawn:
    """Candidates, whose costs are their numbers of keys, in a space of which nothing was tried yet."""

    def __init__(self, problem, seed=0):
        self.untried = Untried(problem)
        self._candidates = Candidates(problem, seed, len)

    def of(self, number):
        return self._candidates.of(number, self.untried, np.random.default_rng(0))


@pytest.fixture
def flat(problem):
    return problem(FLAT, "auto", training={"epochs": 9})


def test_each_is_kept_for_four_proposals(flat):
    drawn = Drawn(flat)
    first, second = drawn.of(7), drawn.of(8)
    assert (len(first), len(second)) == (128, 128)
    assert second[:96] == first[32:]
    assert not any(candidate in first for candidate in second[96:])
    assert not any(candidate in first for candidate in drawn.of(11))


def test_they_depend_on_the_seed_and_the_number_alone(flat):
    """So that a sweep that is resumed, or that lets a number pass, has the same."""
    one = Drawn(flat)
    for number in range(10, 14):
        found = one.of(number)
    later = Drawn(flat)
    for candidate in found[:5]:
        later.untried.remove(candidate.values)
    assert later.of(13) == found[5:]
    assert found != Drawn(flat, seed=1).of(13)


def test_each_is_valid_and_comes_with_its_point_and_its_cost(problem):
    posed = problem(DISCRETE, "auto", training={"epochs": 9})
    found = Drawn(posed).of(0)
    assert len(found) == 128
    assert all(posed.validate(candidate.values).fault is None for candidate in found)
    assert [(c.point, c.cost) for c in found] == [(encode(posed, c.values), len(c.values)) for c in found]


def test_where_most_were_tried_others_are_drawn(problem):
    posed = problem({"training": {"batch_size": {"min": 1, "max": 2_000}}}, "auto", training={"epochs": 9})
    drawn = Drawn(posed)
    for size in range(1, 1_951):
        drawn.untried.remove({"training.batch_size": size})
    found = drawn.of(0)
    assert len(found) == 32
    assert len({candidate.values["training.batch_size"] for candidate in found}) > 15
    assert all(candidate.values["training.batch_size"] > 1_950 for candidate in found)
    for size in range(1_951, 2_001):
        drawn.untried.remove({"training.batch_size": size})
    assert drawn.of(1) == []


def test_fewer_are_drawn_where_each_has_to_be_built(flat):
    layers = flat.layers
    built = replace(flat, sizes=lambda *about: measure(layers(*about), about[1]))
    assert len(Drawn(built).of(0)) == 32


def test_half_are_drawn_evenly_over_all_configurations(flat, monkeypatch):
    found, real = [], Untried.draw
    monkeypatch.setattr(
        Untried, "draw", lambda self, rng, evenly=False: found.append(evenly) or real(self, rng, evenly)
    )
    Drawn(flat).of(0)
    assert (len(found), sum(found)) == (128, 64)


@pytest.mark.parametrize("tries", [100, 0])
def test_all_valid_ones_are_drawn_also_where_each_was_tried(problem, monkeypatch, tries):
    """By chance, or from a list."""
    monkeypatch.setattr(observations, "TRIES_IF_LISTABLE", tries)
    untried, rng = Untried(problem(TINY, "auto")), np.random.default_rng(0)
    names = set()
    while (values := untried.draw(rng)) is not None:
        untried.remove(values)
        names.add(tuple(values.items()))
    assert len(names) == 6
    again = untried.all_valid()
    assert {tuple(again.draw(rng).items()) for _ in range(100)} == names
    for name in names:
        again.remove(dict(name))
    assert again.draw(rng) is None
    assert untried.draw(rng) is None

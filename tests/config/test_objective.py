"""Which of two results is better."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.config.objective import METRICS, Objective, front, read
from cnnsweep.errors import UserError

DIRECTIONS = {"val_accuracy": "max", "accuracy": "max", "val_loss": "min", "loss": "min"}


@pytest.mark.parametrize("metric", METRICS)
def test_losses_are_minimised_and_accuracies_maximised(metric):
    assert Objective.of(metric).direction == DIRECTIONS[metric]


@given(st.lists(st.floats(allow_nan=False)))
def test_the_best_is_the_first_extreme(values):
    for metric, extreme in (("val_loss", min), ("val_accuracy", max)):
        expected = values.index(extreme(values)) if values else None
        assert Objective.of(metric).best(values) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_nan_never_wins_and_anything_beats_it(metric):
    objective = Objective.of(metric)
    assert objective.best([math.nan, 0.5, math.nan]) == 1
    assert objective.best([math.nan]) is None
    assert objective.better(0.5, math.nan)
    assert objective.better(0.5, None)
    assert not objective.better(math.nan, None)
    assert not objective.better(0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("val_loss", "val_loss"),
        ({"val_loss": "min"}, "val_loss"),
        (["val_accuracy"], "val_accuracy"),
        (["val_accuracy", "parameters"], ["val_accuracy", "parameters"]),
        ([{"mmacs": "min"}, {"val_accuracy": "max"}], ["mmacs", "val_accuracy"]),
    ],
)
def test_what_an_objective_may_be(given, normal):
    assert read(given) == normal
    assert Objective.of(json.dumps(normal) if isinstance(normal, list) else normal) == Objective.of(normal)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["val_accuracy", "paramters"], r"unknown objective 'paramters', did you mean 'parameters'"),
        ({"val_accuracy": "min"}, r"val_accuracy: min contradicts it: val_accuracy is better the larger it is"),
        ([{"parameters": "max"}, "loss"], r"parameters is better the smaller it is"),
        ({"val_loss": "down"}, r"unknown direction of objective val_loss 'down' \(one of: max, min\)"),
        (["parameters", "mmacs"], r"parameters, mmacs is known without training; add one of val_accuracy"),
        ([], r"an empty list"),
        (["loss", "loss"], r"loss stands there twice"),
    ],
)
def test_what_an_objective_may_not_be(given, error):
    with pytest.raises(UserError, match=error):
        read(given)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_front_is_what_nothing_dominates(points):
    best = [points[index] for index in front(points)]
    assert best
    for point in points:
        assert any(a <= point[0] and b <= point[1] for a, b in best)
    assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in best for b in best)

"""Which of two results is better."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.objective import Objective
from cnnsweep.schema import METRICS

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

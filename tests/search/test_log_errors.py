"""The scale on which learning curves are compared."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.config.objective import Objective
from cnnsweep.search.log_errors import log_errors

BETTER = np.array([0.6, 0.7, 0.75, 0.8, 0.9])
"""Five trials, of which larger values are better."""


def errors(values, direction, metric="val_score"):
    """Of values after the one epoch that each trial has."""
    signed = np.array(values)[:, None] * (-1 if direction == "max" else 1)
    return log_errors(signed, Objective(metric, direction))[:, 0]


def test_shares_are_compared_by_what_they_lack_of_1_and_losses_as_such():
    assert errors(BETTER, "max") == pytest.approx(np.log(1 - BETTER))
    assert errors(BETTER / 10, "max", "val_accuracy") == pytest.approx(np.log(1 - BETTER / 10))
    assert errors(1 - BETTER, "min") == pytest.approx(np.log(1 - BETTER))
    assert errors([0.5, 1.0], "max") == pytest.approx(np.log([0.5, 1e-4])), "no error at all is no infinite advantage"
    assert errors([0.0, 0.2, 0.4], "min") == pytest.approx(np.log([2e-5, 0.2, 0.4]))


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_a_losss_unit_makes_no_difference(unit):
    expected = np.diff(np.log(1 - BETTER))
    assert np.diff(errors(unit * (1 - BETTER), "min")) == pytest.approx(expected)
    assert np.diff(errors(-unit * (1 - BETTER), "max")) == pytest.approx(expected), "as scikit-learn has it"


@pytest.mark.parametrize(
    ("unit", "zero", "direction"),
    [(100, 0, "max"), (1e-3, 5, "max"), (1, 2, "max"), (1, -2, "min"), (1e6, -0.85, "min")],
    ids=["percent", "small", "above 1", "below 0", "first below 0"],
)
def test_neither_unit_nor_zero_counts_where_the_limit_is_not_known(unit, zero, direction):
    values = BETTER if direction == "max" else 1 - BETTER
    found = errors(unit * (values + zero), direction)
    assert np.diff(found) == pytest.approx(np.diff(np.log(1 - BETTER + 0.2))), "0.9 leads the best quarter by 0.1"


def test_equal_values_are_equal():
    for value, direction in ((0.0, "min"), (0.0, "max"), (-2.0, "min"), (30.0, "max"), (1.0, "max")):
        found = errors([value, value], direction)
        assert np.isfinite(found).all()
        assert found[0] == found[1]

"""The Gaussian processes that predict new configurations."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.search.curve_model import Ensemble


def observed(slope, count=12):
    """Configurations of two keys, with what rules expect as a third column, and values on a line in that."""
    rng = np.random.default_rng(0)
    rules = np.linspace(0.0, 1.1, count)
    return np.column_stack([rng.random((count, 2)), rules]), slope * (rules - rules.mean()) - 2.0


def predicted(x, y, rules, noise=None):
    noise = np.zeros(len(x)) if noise is None else noise
    mean, _ = Ensemble(x, y, noise, np.random.default_rng(1)).predict(np.array([[0.5, 0.5, value] for value in rules]))
    return mean


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_beyond_what_was_observed_a_line_in_what_rules_expect_continues(slope):
    """A rule that is wrong counts with the sign that was observed."""
    x, y = observed(slope)
    ends = predicted(x, y, [1.1, 3.1])
    assert ends[1] - ends[0] == pytest.approx(2 * slope, rel=0.25)


def test_without_evidence_configurations_differ_by_seven_tenths_of_what_rules_expect():
    x = np.array([[0.2, 0.3, 1.0], [0.8, 0.1, 1.0]])
    mean = predicted(x, np.array([-1.0, -1.0]), [1.0, 2.0, 3.0])
    assert np.diff(mean) == pytest.approx([0.7, 0.7], abs=0.01)


def test_the_slope_is_that_of_a_linear_regression_with_a_prior():
    """Of 12 values with a sum of squares of 1.43 and a deviation of 0.15, towards 0.7 with a deviation of 0.4."""
    x, y = observed(-1.0)
    weight = 1.43 / 0.15**2 * 0.4**2
    expected = (0.7 - weight) / (1 + weight)
    far = predicted(x, y, [101.1, 201.1])  # where the processes have nothing to say
    assert np.diff(far)[0] / 100 == pytest.approx(expected, rel=1e-6)


def test_a_value_with_a_variance_of_its_own_counts_less():
    """In the unit of the values, and not more than all that there is of a signal."""
    x, y = observed(1.0)
    x[:, 2] = 0.5  # rules tell nothing apart
    x[:, :2] = np.linspace(0, 1, 12)[:, None]
    y = np.where(np.arange(12) == 6, -1.0, -2.0)
    at = x[6:7]

    def at_the_outlier(variance):
        noise = np.where(np.arange(12) == 6, variance, 0.0)
        return Ensemble(x, y, noise, np.random.default_rng(1)).predict(at)[0][0]

    assert at_the_outlier(0.0) > at_the_outlier(0.02) > at_the_outlier(0.08)
    assert at_the_outlier(0.08) == pytest.approx(at_the_outlier(100.0), abs=1e-9), "the signal's is 0.076"


def test_what_is_expected_elsewhere_counts_as_observed_half_a_deviation_worse():
    x, y = observed(1.0)
    model, there = Ensemble(x, y, np.zeros(12), np.random.default_rng(1)), np.array([[0.5, 0.5, 1.6]])
    (mean,), (deviation,) = model.predict(there)
    (then,), (left,) = model.expecting(there).predict(there)
    assert left < 0.3 * deviation
    assert then == pytest.approx(mean + 0.5 * deviation, abs=0.1 * deviation)
    assert model.predict(there) == ([mean], [deviation]), "the model itself does not change"

"""Rules of thumb: what is expected before anything is trained."""

from __future__ import annotations

import math

import pytest
from searching import FLAT

from cnnsweep.search.prior import CAPACITY, DECADE, NORMALISED, expected_error


@pytest.fixture
def expected(problem):
    """Return what is expected of the small network with these settings, beside its own."""
    here = problem(FLAT)
    usual = {"training.learning_rate": 2e-3, "training.batch_size": 64, "training.optimizer": "adam"}
    return lambda **values: expected_error(here, {**usual, **{k.replace("_in_", "."): v for k, v in values.items()}})


@pytest.mark.parametrize(
    ("settings", "rate"), [(("adam", 64), 2e-3), (("sgd", 64), 2e-2), (("lion", 64), 3e-4), (("adam", 256), 4e-3)]
)
def test_the_rate_that_suits_an_optimizer_and_a_batch_is_best_and_ten_times_that_is_worse(expected, settings, rate):
    optimizer, batch = settings
    given = {"training_in_optimizer": optimizer, "training_in_batch_size": batch}
    best = expected(training_in_learning_rate=rate, **given)
    for wrong in (10 * rate, rate / 10):
        assert expected(training_in_learning_rate=wrong, **given) - best == pytest.approx(DECADE)


def test_normalisation_and_work_are_expected_to_help(expected):
    assert expected() - expected(model_in_batch_norm=True) == pytest.approx(NORMALISED)
    assert expected(model_in_filters=8) > expected(model_in_filters=32)


def test_what_work_is_worth_grows_with_its_logarithm(problem):
    here = problem(FLAT)
    small, large = ({"model.filters": n} for n in (8, 32))
    work = [here.validate(values).network.mmacs for values in (small, large)]
    gained = expected_error(here, small) - expected_error(here, large)
    assert gained == pytest.approx(CAPACITY * math.log(work[1] / work[0]))

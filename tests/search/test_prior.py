"""Rules of thumb: what is expected before anything is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from searching import FLAT

from cnnsweep.search.prior import BATCHES, DECADE, MAPS, NEAR, NORMALISED, SIZE, expected_error

USUAL = {"training.learning_rate": 2e-3, "training.batch_size": 64, "training.optimizer": "adam"}


@pytest.fixture
def expected(problem):
    """Return what is expected of the small network with these settings, beside its own, after so many steps."""
    here = problem(FLAT, training={"epochs": 10})

    def give(steps=25_000, **values):
        given = {**USUAL, **{k.replace("_in_", "."): v for k, v in values.items()}}
        posed = replace(here, images=(steps * given["training.batch_size"] // 10, 100))
        return expected_error(posed, given)

    return give


@pytest.mark.parametrize(
    ("optimizer", "batch", "steps", "rate"),
    [
        ("adam", 64, 25_000, 2e-3),
        ("adam", 64, 100_000, 2e-3),
        ("adam", 64, 6_250, 4e-3),
        ("adam", 64, 100, 8e-3),
        ("adam", 256, 25_000, 4e-3),
        ("sgd", 64, 25_000, 2e-2),
        ("lion", 64, 25_000, 3e-4),
    ],
)
def test_the_rate_that_suits_is_best_and_ten_times_as_much_or_as_little_is_worse(
    expected, optimizer, batch, steps, rate
):
    given = {"training_in_optimizer": optimizer, "training_in_batch_size": batch, "steps": steps}
    best = expected(training_in_learning_rate=rate, **given)
    for wrong in (10 * rate, rate / 10):
        more = expected(training_in_learning_rate=wrong, **given) - best
        assert more == pytest.approx(DECADE * (math.hypot(1, NEAR) - NEAR))


def test_steps_are_those_of_what_counts_as_an_epoch(problem):
    """A quarter of the examples an epoch is a quarter of the steps, so that twice the rate suits."""
    given = {**USUAL, "training.learning_rate": 4e-3}
    found = [
        expected_error(
            replace(problem(FLAT, training={"epochs": 10, "epoch_size": size}), images=(160_000, 100)), given
        )
        for size in (160_000, 40_000)
    ]
    assert found[1] < found[0]


def test_normalisation_and_many_steps_are_expected_to_help(expected):
    assert expected() - expected(model_in_batch_norm=True) == pytest.approx(NORMALISED, abs=0.01)  # and its parameters
    larger = {"training_in_batch_size": 256, "training_in_learning_rate": 4e-3}
    assert expected(**larger) - expected() == pytest.approx(BATCHES * math.log(4))


def test_what_size_and_large_maps_are_worth_grows_with_their_logarithms(problem):
    here = problem(FLAT)
    usual, wider, halved = (
        {**USUAL, "model.filters": filters, "model.pooling": pooling}
        for filters, pooling in ((8, "none"), (32, "none"), (8, "max"))
    )
    networks = [here.validate(values).network for values in (usual, wider, halved)]

    def gained(number):
        first, other = networks[0], networks[number]
        sizes = math.log(other.parameters / first.parameters) + math.log(other.mmacs / first.mmacs)
        positions = [[row.output_shape for row in n.layers if len(row.output_shape) == 3][-1] for n in (first, other)]
        first, other = (rows * columns for rows, columns, _ in positions)
        return SIZE * sizes + MAPS * math.log(other / first)

    assert gained(1) > 0 > gained(2)
    for number, values in ((1, wider), (2, halved)):
        assert expected_error(here, usual) - expected_error(here, values) == pytest.approx(gained(number))

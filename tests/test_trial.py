"""Seeds and titles of trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsweep.config.schema import CustomModel
from cnnsweep.trial import TrialSpec, trial_seed


def title(config, values):
    return TrialSpec(7, values, config, seed=0, folder=Path(), data=Path(), epochs=1).title


def test_seeds_of_trials_differ_by_sweep_and_by_number():
    seeds = {trial_seed(seed, number) for seed in range(30) for number in range(1, 31)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, "007 · 32-32 k3 same max"),
        ({"filters": [8, 16], "kernel_size": [3, 5]}, "007 · 8-16 k3-5 same max"),
        ({"stride": 2, "pooling": "none", "padding": "valid"}, "007 · 32-32 k3 s2 valid none"),
    ],
)
def test_a_title_describes_the_network(configure, model, expected):
    assert title(configure({}, model=model), {}) == expected


@pytest.mark.parametrize("own", [{}, {"filters": 8}, {"backbone": "mine"}, {"blocks": 2, "filters": [8, 8]}])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"model.depth": 3, "training.epochs": 2}, "007 · 3"),
        ({"model.filters": 8}, "007 · 8"),
        ({"model.backbone": "mine", "model.rate": 0.12345}, "007 · mine 0.123"),
        ({"training.learning_rate": 0.01}, "007 · 0.01"),
        ({}, "007 · build"),
    ],
)
def test_another_model_family_is_described_by_its_searched_values(configure, own, values, expected):
    config = configure({}).replace(model=CustomModel(target="mine.build", **own))
    assert title(config, values) == expected

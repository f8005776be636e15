"""The cost model: what it learns from measurements, what it keeps, and its own score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.search_space.problem import Problem, make_problem
from cnnsweep.training.cost_model import TYPICAL, Forecaster, TrialForecaster, amounts_of


def problem_of(*overrides: str, side: int = 28) -> Problem:
    return make_problem(compose(overrides), (side, side, 1), 10)


def measured(seed: int, count: int) -> list[tuple[dict[str, float], float]]:
    """Epochs on a machine three times slower than the typical one, with slow pooling."""
    p = problem_of("space.model.dropout=null", "limits.mmacs=10")
    rng = np.random.default_rng(seed)
    units = {name: 3 * seconds for name, seconds in TYPICAL.items()} | {"max pooled": 2e-8}
    found: list[tuple[dict[str, float], float]] = []
    while len(found) < count:
        values = p.space.draw(rng)
        validity = p.validate(values)
        if validity.fault is None:
            amounts = amounts_of(validity.network, p.config.with_values(values), 10_000, 1_000)
            seconds = sum(units.get(name, 0.0) * amount for name, amount in amounts.items())
            found.append((amounts, seconds * float(rng.lognormal(0, 0.05))))
    return found


def test_a_forecast_learns_a_machine_from_a_handful_of_epochs() -> None:
    forecaster = Forecaster()
    before = [abs(forecaster.epoch(a) - s) / s for a, s in measured(1, 40)]
    for amounts, seconds in measured(2, 30):
        forecaster.learn(amounts, seconds)
    after = [abs(forecaster.epoch(a) - s) / s for a, s in measured(1, 40)]
    assert np.median(before) > 0.5
    assert np.median(after) < 0.1


def test_an_epoch_costs_no_more_than_the_examples_that_it_has() -> None:
    p = problem_of("space=none", "training.batch_size=50")
    network = p.validate({}).network
    small, few = p.config.with_values({"training.epoch_size": 500}), amounts_of(network, p.config, 500, 100)
    assert amounts_of(network, small, 10_000, 100) == few
    assert amounts_of(network, small, 400, 100) == amounts_of(network, p.config, 400, 100)


def test_measurements_are_kept_for_the_same_machine_only(tmp_path: Path) -> None:
    forecaster = Forecaster()
    forecaster.learn({"epoch": 1.0, "step": 10.0}, 2.0)
    forecaster.starts.append(0.7)
    path = tmp_path / "forecast.json"
    forecaster.save(path, "here")
    assert Forecaster.load(path, "here").seconds_per_unit == pytest.approx(forecaster.seconds_per_unit)
    assert not Forecaster.load(path, "elsewhere").measured
    path.write_text("{")
    assert not Forecaster.load(path, "here").measured


def test_a_trial_is_compared_with_its_prediction_for_the_epochs_that_ran() -> None:
    p = problem_of(side=8)
    trials = TrialForecaster(p, Forecaster(), (1_000, 100))
    values = p.space.draw(np.random.default_rng(0))
    trials.start(1, values)
    trials.epoch(1, 2.0)
    trials.epoch(1, 1.0)
    assert trials.end(1, 3.5) == {"actual_seconds": 3.5}
    trials.start(2, values)
    trials.epoch(2, 2.0)
    ended = trials.end(2, 2.5)
    assert ended["predicted_seconds"] == pytest.approx(2.5, rel=0.3)
    assert trials.summary()["forecast_trials"] == 1

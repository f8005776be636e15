"""Searches that learn from trials find more than random search."""

from __future__ import annotations

import numpy as np
import pytest
from searching import FLAT, MIXED, TWO, drive, score

from cnnsweep.config.objective import Objective


@pytest.mark.parametrize(
    ("name", "gain", "trials"),
    [("bayesian", 0.05, 20), ("tpe", 0.03, 30), ("gp", 0.05, 20), ("cmaes", 0.0, 25), ("nsga2", 0.0, 25)],
)
def test_a_model_finds_more_than_random_search(start, name, gain, trials):
    def best(name, seed):
        _, search = start(name, MIXED, seed=seed, budget={"trials": trials})
        return max(score(p.values) for p in drive(search, workers=2, most=trials))

    assert np.mean([best(name, seed) - best("random", seed) for seed in range(3)]) > gain


@pytest.mark.parametrize("unit", [1, 1e-12])
def test_a_loss_is_minimised(start, unit):
    def gain(seed):
        _, search = start("bayesian", MIXED, Objective.of("val_loss"), seed=seed, budget={"trials": 24})
        seen = [score(p.values) for p in drive(search, most=24, unit=unit)]
        return np.mean(seen[-8:]) - np.mean(seen[:8])

    assert np.mean([gain(seed) for seed in range(2)]) > 0.1


def test_bayesian_searchs_random_phase_fits_the_budget(start):
    points = {n: start("bayesian", MIXED, budget={"trials": n})[1].startup for n in (3, 12, 30, 1000)}
    assert points == {3: 2, 12: 4, 30: 10, 1000: 3 * 6}
    assert start("bayesian", MIXED, budget={"trials": None, "epochs": 9})[1].startup == 18


def test_a_larger_beta_explores_more(start):
    def distance(beta):
        _, search = start("bayesian", FLAT, budget={"trials": 30}, search={"beta": beta})
        rates = [np.log10(p.values["training.learning_rate"]) for p in drive(search, most=30)[12:]]
        return np.std(rates)

    assert distance(10.0) > distance(0.1)


@pytest.mark.slow
def test_a_front_found_by_a_model_dominates_more_than_one_found_at_random(start):
    def volume(name, seed):
        filters = {"filters": {"values": [*range(8, 104, 8)], "per_block": True}}
        space = {"model": {**FLAT["model"], **filters}, "training": FLAT["training"]}
        problem, search = start(name, space, TWO, seed=seed, budget={"trials": 60})
        proposals = drive(search, workers=2, most=60)
        points = [(score(p.values), problem.validate(p.values).network.parameters) for p in proposals]
        heights = [max((y for y, size in points if size <= limit), default=-5) for limit in np.geomspace(1e3, 1e5, 20)]
        return np.mean(heights)

    assert np.mean([volume("tpe", seed) - volume("random", seed) for seed in range(2)]) > 0


@pytest.mark.parametrize(("population", "bred"), [(None, True), (50, False)])
def test_nsga2_breeds_within_a_small_budget(start, population, bred):
    """Children have values of their parents to the last digits, which chance does not draw again."""
    _, search = start("nsga2", FLAT, TWO, budget={"trials": 40}, search={"population": population})
    rates = [round(p.values["training.learning_rate"], 10) for p in drive(search, workers=2, most=40)]
    known = [rate in rates[:number] for number, rate in enumerate(rates)]
    assert not any(known[:5])
    assert (sum(known[15:]) > 12) == bred

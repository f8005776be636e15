"""Importance on synthetic trials with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from cnnsweep.config.objective import Objective
from cnnsweep.report.analysis import FANOVA_TRIALS, importance
from cnnsweep.search_space.space import Parameter

ACCURACY = Objective.of("val_accuracy")


def made(count: int, noise: float = 0.002) -> pd.DataFrame:
    """`rate` decides, `filters` helps a little, `padding` does nothing."""
    rng = np.random.default_rng(1)
    rate = 10 ** rng.uniform(-4, -2, count)
    filters = pd.Series(rng.choice([16, 32, 64], count), dtype="Int64").mask(rng.random(count) < 0.2)
    value = 0.9 - 0.1 * np.abs(np.log10(rate) + 3) + 0.02 * (filters == 64).fillna(False) + rng.normal(0, noise, count)
    return pd.DataFrame(
        {"rate": rate, "filters": filters, "padding": rng.choice(["same", "valid"], count),
         "best_val_accuracy": value, "best_val_loss": -value, "status": "completed"}
    )  # fmt: skip


@pytest.mark.parametrize(("count", "method"), [(60, "fANOVA"), (FANOVA_TRIALS + 150, "PED-ANOVA")])
@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_a_decisive_key_comes_first_and_an_idle_one_is_noise(count: int, method: str, metric: str) -> None:
    found = importance(made(count), ["padding", "filters", "rate"], Objective.of(metric))
    assert found is not None
    assert (found.method, found.trials, found.warning) == (method, count, None)
    assert next(iter(found.shares)) == "rate"
    assert sum(found.shares.values()) == pytest.approx(1)
    assert "rate" in found.significant
    assert "padding" not in found.significant


@pytest.mark.parametrize("unit", [1e-12, 1e160])
def test_importance_does_not_depend_on_the_unit(unit: float) -> None:
    trials, keys = made(60), ["padding", "filters", "rate"]
    expected = importance(trials, keys, Objective.of("val_loss"))
    found = importance(trials.assign(best_val_loss=unit * trials["best_val_loss"]), keys, Objective.of("val_loss"))
    assert found is not None
    assert expected is not None
    assert found.shares == pytest.approx(expected.shares, abs=0.01), "equal but for rounding"


def test_few_trials_give_a_warning_with_the_number_needed() -> None:
    found = importance(made(8), ["rate", "filters", "padding"], ACCURACY)
    assert found is not None
    assert found.warning is not None
    assert found.warning.startswith("8 trials are too few for 3 keys (about 20 would do)")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_two_bad_trials_do_not_make_a_range_of_integers_the_most_important(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    rate, units = 10 ** rng.uniform(-4, -2, 40), rng.integers(16, 513, 40)
    value = 0.9 - 0.03 * np.abs(np.log10(rate) + 3) + rng.normal(0, 0.003, 40)
    value[rng.choice(40, 2, replace=False)] = 0.1
    trials = pd.DataFrame({"rate": rate, "units": pd.Series(units, dtype="Int64"), "best_val_accuracy": value,
                           "best_val_loss": -value, "status": "completed"})  # fmt: skip
    found = importance(trials, ["units", "rate"], Objective.of(metric))
    assert found is not None
    assert next(iter(found.shares)) == "rate"
    assert found.shares["rate"] > 0.6


def test_bad_trials_count_where_all_others_are_equal() -> None:
    trials = made(40).assign(best_val_accuracy=[0.1 if rate < 3e-4 else 0.9 for rate in made(40)["rate"]])
    few = trials[(trials["best_val_accuracy"] > 0.5) | (trials.index % 3 == 0)]
    found = importance(few, ["padding", "rate"], ACCURACY)
    assert found is not None
    assert next(iter(found.shares)) == "rate"


def test_integers_are_ordered_and_absence_is_apart() -> None:
    rng = np.random.default_rng(2)
    units = pd.Series(rng.integers(16, 513, 60), dtype="Int64").mask(rng.random(60) < 0.3)
    size = np.log2(units.astype("Float64")).to_numpy(float, na_value=np.nan)
    random = rng.integers(0, 1000, 60)
    for value in (np.nan_to_num(size, nan=6.5) / 10, np.isnan(size) * 0.1):
        noisy = 0.5 + value + rng.normal(0, 0.005, 60)
        trials = pd.DataFrame({"units": units, "random": random, "best_val_accuracy": noisy, "status": "completed"})
        found = importance(trials, ["random", "units"], ACCURACY)
        assert found is not None
        assert found.significant == ["units"]
        assert found.shares["units"] > 0.8


def test_failed_trials_and_constant_keys_do_not_count() -> None:
    trials = made(40).assign(constant=3)
    trials.loc[:9, "status"] = "failed"
    found = importance(trials, ["rate", "constant"], ACCURACY)
    assert found is not None
    assert (found.trials, list(found.shares)) == (30, ["rate"])


@pytest.mark.parametrize("trials", [made(3), made(30).assign(best_val_accuracy=0.5)])
def test_no_importance_without_differences(trials: pd.DataFrame) -> None:
    assert importance(trials, ["rate", "filters"], ACCURACY) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_range_counts_on_the_scale_of_the_space_not_of_the_values_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rate, kernel = rng.random(100) * 0.5, rng.choice([3, 5], 100)
    value = 0.9 - 0.4 * (rate - 0.25).clip(0) - 0.04 * (kernel == 5)
    trials = pd.DataFrame({"rate": rate, "kernel": kernel, "best_val_accuracy": value, "status": "completed"})
    found = importance(trials, ["rate", "kernel"], ACCURACY, {"rate": Parameter("rate", low=0, high=0.5)})
    assert found is not None
    assert found.shares["rate"] == pytest.approx(0.72, abs=0.06)


def test_a_logarithmic_range_stays_one_where_few_of_it_are_drawn() -> None:
    rate = np.exp(np.linspace(np.log(0.001), np.log(0.018), 100))
    trials = pd.DataFrame({"rate": rate, "best_val_accuracy": np.where(rate < 0.003, 0.8, 0.9), "status": "completed"})
    trials["kernel"] = np.random.default_rng(0).permutation([3, 5] * 50)
    trials["best_val_accuracy"] -= 0.05 * (trials["kernel"] == 5)
    found = importance(trials, ["rate", "kernel"], ACCURACY, {"rate": Parameter("rate", low=1e-3, high=1.0, log=True)})
    share = np.log(3) / np.log(18)
    variance = 0.01 * share * (1 - share)
    assert found is not None
    assert found.shares["rate"] == pytest.approx(variance / (variance + 0.05**2 / 4), abs=0.03)


@pytest.mark.parametrize("seed", range(8))
def test_a_key_that_matters_is_above_the_noise_of_many_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, rate = rng.choice([3, 5], 300), 10 ** rng.uniform(-4, -2, 300)
    value = 0.9 - 0.03 * np.abs(np.log10(rate) + 3) - 0.01 * (kernel == 5) + rng.normal(0, 0.01, 300)
    trials = pd.DataFrame({"kernel": kernel, "rate": rate, "best_val_accuracy": value, "status": "completed"})
    found = importance(trials, ["kernel", "rate"], ACCURACY)
    assert found is not None
    assert {*found.significant} == {"kernel", "rate"}


def test_importance_in_a_complete_grid_is_that_of_the_means():
    trials = pd.DataFrame(itertools.product([3, 5, 7], ["valid", "same"]), columns=["kernel", "padding"])
    trials = trials.assign(best_val_accuracy=[0.715, 0.78, 0.725, 0.73, 0.69, 0.76], status="completed")
    found = importance(trials, ["kernel", "padding"], ACCURACY)
    means = {key: trials.groupby(key)["best_val_accuracy"].mean().var(ddof=0) for key in ("kernel", "padding")}
    assert found is not None
    assert list(found.shares) == ["padding", "kernel"]
    assert found.shares["padding"] == pytest.approx(means["padding"] / sum(means.values()))
    assert found.shares["kernel"] < found.noise


def test_a_random_key_has_no_more_than_the_whole():
    trials = pd.DataFrame(
        {"model": ["a", "a", "a", "b", "a"], "rate": [0.1, 0.5, 0.9, 0.3, 0.7], "status": "completed"}
    )
    found = importance(trials.assign(best_val_accuracy=[0.97, 0.95, 0.91, 0.95, 0.96]), ["model", "rate"], ACCURACY)
    assert found is not None
    assert found.noise <= 1


def test_keys_of_a_complete_grid_that_differ_by_chance_are_within_the_noise():
    grid = pd.DataFrame(itertools.product(range(4), repeat=3), columns=["a", "b", "c"]).assign(status="completed")
    values = [np.random.default_rng(seed).random(len(grid)) for seed in range(20)]
    found = [importance(grid.assign(best_val_accuracy=drawn), ["a", "b", "c"], ACCURACY) for drawn in values]
    assert sum(len(each.significant) for each in found if each) <= 10  # of 60

"""Importance on synthetic trials with a known answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cnnsweep.config.objective import Objective
from cnnsweep.report.analysis import FANOVA_TRIALS, importance

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


def test_few_trials_give_a_warning_with_the_number_needed() -> None:
    found = importance(made(8), ["rate", "filters", "padding"], ACCURACY)
    assert found is not None
    assert found.warning is not None
    assert found.warning.startswith("8 trials are too few for 3 keys (about 20 would do)")


def test_failed_trials_and_constant_keys_do_not_count() -> None:
    trials = made(40).assign(constant=3)
    trials.loc[:9, "status"] = "failed"
    found = importance(trials, ["rate", "constant"], ACCURACY)
    assert found is not None
    assert (found.trials, list(found.shares)) == (30, ["rate"])


@pytest.mark.parametrize("trials", [made(3), made(30).assign(best_val_accuracy=0.5)])
def test_no_importance_without_differences(trials: pd.DataFrame) -> None:
    assert importance(trials, ["rate", "filters"], ACCURACY) is None

"""A trial that is read back from the store is trained on its own data, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tracked_sweeps import empty_store, shared

from cnnsweep.config.compose import compose
from cnnsweep.config.trust import trusted_by
from cnnsweep.errors import UserError
from cnnsweep.tracking.stored_trials import find_trial

__all__ = ["empty_store", "shared"]


@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        ((), r"digest d1g357 → \w+, train\w+ images 1293 → 1150; "),
        (("seed=5", "data.validation=0.5"), r"images 1293 → \d+, data.validation 0.2 → 0.5, seed 0 → 5; "),
        (("data.limit=300", "data.augment.flip=true"), r"images 1293 → 240, data.limit none → 300; "),
        (("data=image_folder", "data=digits", "training.epochs=3"), r"images 1293 → 1150; "),
    ],
)
def test_other_data_are_refused_with_what_differs(shared: Any, overrides: tuple[str, ...], difference: str) -> None:
    folder, _, tracker = shared
    trial = find_trial(tracker.runs[1], compose([f"tracking.dir={folder}", *overrides]), overrides, trusted_by())
    with pytest.raises(UserError, match=difference):
        trial.load_data()


def test_the_same_data_are_loaded(shared: Any) -> None:
    folder, _, tracker = shared
    trial = find_trial(tracker.runs[1], compose([f"tracking.dir={folder}"]), [], trusted_by())
    unknown = replace(trial, data={}).load_data()
    assert replace(trial, data={"digest": unknown.digest}).load_data().digest == unknown.digest


def test_its_values_are_those_that_it_is_trained_with(shared: Any) -> None:
    """A key that was changed kept its old value among the params."""
    folder, _, tracker = shared
    changed = ["model.filters=[5,6]"]
    trial = find_trial(tracker.runs[1], compose([f"tracking.dir={folder}", *changed]), changed, trusted_by())
    assert {name: value for name, value in trial.values.items() if "filters" in name} == {"model.filters": "[5, 6]"}
    assert "training.learning_rate" in trial.values

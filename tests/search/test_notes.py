"""What has no effect in a search, and may be left over from a preset, is shown."""

from __future__ import annotations

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import make_problem

SIGNALS = ("data=made_signals", "model=cnn1d", "space=cnn1d")

UNITS = ("space=none", "+space.model.dense_units={min: 1, max: 30}")
MANY = ("space=none", "+space.model.dense_units={min: 1, max: 30000}")


def notes(*overrides: str) -> list[str]:
    config = compose(overrides)
    shape, kind = ((256, 1), "signal") if SIGNALS[0] in overrides else ((8, 8, 1), "image")
    problem = make_problem(config, shape, 10, kind, (1000, 100))
    return list(build(config, problem, Objective.of(config.objective)).notes)


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            ["space.model.expansion.values=[2,4]"],
            "space.model.expansion: has no effect: the networks are the same with",
        ),
        ([*SIGNALS, "model.pooling=none"], "space.model.pool_size: has no effect: the networks are the same with each"),
        (["search=gp", "search.startup=20"], "search.startup: 20 random trials, and budget.trials=12: all of them are"),
        (["search=asha", "search.startup=2"], "search.startup: 2 has no effect with search.sampler=random"),
        (["search=grid", *UNITS], "search=grid: budget.trials=12: the first 12 of 30 configurations in order, so that"),
        (["search=grid", *MANY], "search=grid: budget.trials=12: the first 12 of more than 20,000 configurations"),
        (
            ["search.learn_from=a", "search=qmc"],
            "search.learn_from: a has no effect: nothing learns here, as search=tpe",
        ),
        (
            ["search.learn_from=a", "search=asha"],
            "search.learn_from: a has no effect: nothing learns here, as search.sa",
        ),
        (["budget.finalists=5"], "budget.finalists: 5 has no effect without budget.replicates"),
        (["search=hyperband", "training.epochs=2"], "search.factor: 3, but a trial has 2 epochs: one rung alone"),
        (["training.epoch_size=1001"], "training.epoch_size: 1,001, but there are 1,000 for training"),
        (["training.epoch_size=300", "data.folds=5"], "training.epoch_size: 300, but there are 250 for training"),
    ],
)
def test_what_has_no_effect_is_shown(overrides: list[str], note: str) -> None:
    (found,) = notes(*overrides)
    assert found.startswith(note)


@pytest.mark.parametrize(
    "overrides",
    [
        ["space.model.expansion.values=[2,4]", "model.block=inverted"],
        ["model.blocks=2", "space.model.dilation={values: [1, 2], per_block: true}"],
        SIGNALS,
        ["search=grid", "budget.trials=30", *UNITS],
        ["search=grid", "budget.trials=null", "budget.minutes=1", *UNITS],
        ["search=gp", "search.startup=3", "training.epoch_size=1000"],
        ["search=asha", "search.startup=2", "search.sampler=tpe", "search.learn_from=a"],
        ["search=auto", "search.learn_from=a"],
        ["search=hyperband", "training.epochs=3", "budget.finalists=5", "budget.replicates=2"],
    ],
)
def test_nothing_is_said_of_what_has_one(overrides: list[str]) -> None:
    assert notes(*overrides) == []

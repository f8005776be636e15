"""What is searched: the shipped space `cnn` on Fashion-MNIST, small enough networks and few enough images to train 400.

Settings that the table, the simulator and the comparison share.
"""

from __future__ import annotations

from functools import cache

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import SearchConfig
from cnnsweep.search_space.problem import Problem, make_problem

EPOCHS = 9
OBJECTIVE = Objective.of("val_accuracy")
SETTINGS = (
    "+sweep=fashion",
    "space=cnn",
    "limits.mmacs=2",
    "limits.parameters=300k",
    "data.limit=5000",
    "data.validation=0.5",
    f"training.epochs={EPOCHS}",
    "budget.minutes=null",
    "budget.trials=null",
    "budget.epochs=100000",
    "search.start_with=[]",
)


@cache
def problem() -> Problem:
    """The space with its limits, for 28×28 grey images of 10 classes."""
    return make_problem(compose([*SETTINGS, "search=random"]), (28, 28, 1), 10)


@cache
def search_config(overrides: tuple[str, ...]) -> SearchConfig:
    """The `search` group that these overrides compose: `("search=hyperband", "search.factor=2")`."""
    return compose([*SETTINGS, *overrides]).search

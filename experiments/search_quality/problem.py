"""What is searched: the tables' spaces and settings, which the simulator and the comparison share."""

from __future__ import annotations

import os
from functools import cache

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import SearchConfig
from cnnsweep.search_space.problem import Problem, make_problem

EPOCHS = 9
OBJECTIVE = Objective.of("val_accuracy")
NO_BUDGET = ("budget.minutes=null", "budget.trials=null", "budget.epochs=100000", "search.start_with=[]")
EPOCH = ("training.epoch_size=null", "training.ema_momentum=0")
"""A pass over all images; validated with the weights as they are."""
FILTERS = "model.filters={{values: [{}], per_block: true}}"
BLOCKS = "model.blocks={min: 1, max: 3}"
CNN = (
    "model.kernel_size={values: [3, 5, 7], per_block: true}",
    "model.stride={values: [1, 2], per_block: true}",
    "model.padding={values: [same, valid]}",
    "model.pooling={values: [max, average, none]}",
    "model.pool_size={values: [2, 3], when: {model.pooling: [max, average]}}",
    "model.activation={values: [relu, elu]}",
    "model.batch_norm={values: [false, true]}",
    "model.dense_units={values: [0, 64, 128]}",
    "model.dropout={min: 0.0, max: 0.5}",
    "training.optimizer={values: [adam, sgd]}",
    "training.learning_rate={min: 1.0e-4, max: 1.0e-2, log: true}",
    "training.batch_size={values: [32, 64, 128]}",
)
SMALL = (
    "model.blocks={min: 2, max: 3}",
    "model.filters={values: [8, 12, 16, 24, 32, 48], per_block: true}",
    "model.kernel_size={values: [3, 5], per_block: true}",
    "model.padding={values: [same, valid]}",
    "model.pooling={values: [max, average]}",
    "model.activation={values: [relu, elu, gelu]}",
    "model.batch_norm={values: [false, true]}",
    "model.dense_units={values: [0, 64, 128]}",
    "model.dropout={min: 0.0, max: 0.5}",
    "training.optimizer={values: [adam, adamw]}",
    "training.learning_rate={min: 3.0e-4, max: 1.0e-2, log: true}",
    "training.batch_size={values: [64, 128]}",
)
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # 6,000 images for training, 47 to 188 steps an epoch; 2,000 for validation.
    "short": (
        (BLOCKS, FILTERS.format("8, 16, 32, 64"), *CNN),
        ("limits.mmacs=0.6", "limits.parameters=500k", "data.limit=8000", "data.validation=0.25"),
    ),
    # 30,000 images for training, 235 or 469 steps an epoch; 4,000 for validation.
    "long": (SMALL, ("limits.mmacs=0.5", "limits.parameters=500k", "data.limit=34000", "data.validation=0.1177")),
}
"""The keys that are searched, and the other settings. They are written out, so that they stay as they are."""
IMAGES = {"short": (6_000, 2_000), "long": (29_998, 4_002)}
TABLE = os.environ.get("CNNSWEEP_TABLE", "short")
"""The table that is in use: one for each process, and for those that it starts."""


@cache
def settings(table: str = TABLE) -> tuple[str, ...]:
    """The overrides that compose a table's config."""
    space, others = TABLES[table]
    searched = tuple(f"+space.{key}" for key in space)
    return ("+sweep=fashion", "space=none", *searched, *others, f"training.epochs={EPOCHS}", *EPOCH, *NO_BUDGET)


@cache
def problem(table: str = TABLE) -> Problem:
    """A table's space with its limits, for 28×28 grey images of 10 classes."""
    return make_problem(compose([*settings(table), "search=random"]), (28, 28, 1), 10, images=IMAGES[table])


@cache
def search_config(overrides: tuple[str, ...]) -> SearchConfig:
    """The `search` group that these overrides compose: `("search=hyperband", "search.factor=2")`."""
    return compose([*settings(), *overrides]).search

"""What is searched: the tables' spaces and settings, which the simulator and the comparison share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import SearchConfig
from cnnsweep.search_space.problem import Problem, make_problem

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
RESIDUAL = (
    "model.blocks={min: 1, max: 3}",
    "model.block={values: [plain, residual], per_block: true}",
    "model.filters={values: [8, 16, 24, 32, 48, 64], per_block: true}",
    "model.kernel_size={values: [3, 5], per_block: true}",
    "model.padding={values: [same, valid]}",
    "model.pooling={values: [max, average]}",
    "model.activation={values: [relu, elu, gelu]}",
    "model.batch_norm={values: [false, true]}",
    "model.dense_units={values: [0, 32, 64, 128]}",
    "model.dropout={min: 0.0, max: 0.5}",
    "training.optimizer={values: [adam, adamw, sgd]}",
    "training.learning_rate={min: 1.0e-4, max: 3.0e-2, log: true}",
    "training.batch_size={values: [32, 64, 128]}",
)
SHIPPED = (
    "model.blocks={min: 2, max: 3}",
    "model.filters={values: [16, 32, 64, 96], per_block: true}",
    "model.kernel_size={values: [3, 5], per_block: true}",
    "model.padding={values: [same, valid]}",
    "model.pooling={values: [max, average]}",
    "model.activation={values: [relu, elu]}",
    "model.dense_units={values: [0, 64, 128]}",
    "model.dropout={min: 0.0, max: 0.5}",
    "model.block={values: [plain, residual], per_block: true}",
    "training.learning_rate={min: 5.0e-4, max: 1.0e-2, log: true}",
    "training.batch_size={values: [64, 128]}",
)
TEXT = (
    "data.augment.word_dropout={min: 0.0, max: 0.3}",
    "model.embedding={values: [16, 32, 64, 128]}",
    "model.embedding_dropout={min: 0.0, max: 0.7}",
    "model.branches={min: 1, max: 3}",
    "model.kernel_size={values: [2, 3, 4]}",
    "model.filters={values: [16, 32, 64, 100]}",
    "model.dropout={min: 0.0, max: 0.7}",
    "training.optimizer={values: [adam, adamw]}",
    "training.learning_rate={min: 1.0e-4, max: 1.0e-2, log: true}",
    "training.batch_size={values: [32, 64, 128]}",
)


@dataclass(frozen=True)
class Setting:
    """What a table is made of; written out, so that it stays as it is."""

    space: tuple[str, ...]
    others: tuple[str, ...]
    examples: tuple[int, int]
    """For training, and for validation."""
    shape: tuple[int, ...] = (28, 28, 1)
    classes: int = 10
    kind: str = "image"
    sweep: str = "fashion"
    epochs: int = 9
    seed: int = 0
    """Of the configurations."""
    likeliest: int = 1
    """Every second configuration is the likeliest, by rules of thumb, of so many."""
    pace: float | None = None
    """Seconds of an epoch on a processor for one of the arithmetic; None: they are measured."""


TABLES = {
    # 6,000 images for training, 47 to 188 steps an epoch; 2,000 for validation.
    "short": Setting(
        (BLOCKS, FILTERS.format("8, 16, 32, 64"), *CNN),
        ("limits.mmacs=0.6", "limits.parameters=500k", "data.limit=8000", "data.validation=0.25"),
        (6_000, 2_000),
    ),
    # 30,000 images for training, 235 or 469 steps an epoch; 4,000 for validation.
    "long": Setting(
        SMALL,
        ("limits.mmacs=0.5", "limits.parameters=500k", "data.limit=34000", "data.validation=0.1177"),
        (29_998, 4_002),
    ),
    # Handwritten digits: 4,000 images for training, 32 to 125 steps an epoch; 4,000 for validation.
    "mnist": Setting(
        RESIDUAL,
        ("limits.mmacs=1", "limits.parameters=500k", "data.limit=8000", "data.validation=0.5"),
        (4_000, 4_000),
        sweep="mnist",
    ),
    # Sentences of 25 words at most: 6,717 for training, 53 to 210 steps an epoch; 2,879 for validation.
    "sentences": Setting(
        TEXT,
        ("data.words=4000", "data.length=25", "data.validation=0.3"),
        (6_717, 2_879),
        shape=(25, 4_002),
        classes=2,
        kind="text",
        sweep="sentences",
    ),
    # What `+sweep=fashion` trains: an epoch is a quarter of the images, and validated with averaged weights.
    "fashion": Setting(
        SHIPPED,
        ("limits.mmacs=8", "limits.parameters=1M", "training.epoch_size=13500", "training.ema_momentum=0.99"),
        (54_000, 6_000),
        epochs=36,
        seed=14,
        likeliest=8,
        pace=0.47,
    ),
}
"""The keys that are searched, and the other settings."""
TABLE = os.environ.get("CNNSWEEP_TABLE", "short")
"""The table that is in use: one for each process, and for those that it starts."""
EPOCHS = TABLES[TABLE].epochs


@cache
def settings(table: str = TABLE) -> tuple[str, ...]:
    """The overrides that compose a table's config."""
    setting = TABLES[table]
    searched = tuple(f"+space.{key}" for key in setting.space)
    kept = (f"training.epochs={setting.epochs}", *EPOCH, *NO_BUDGET)
    return (f"+sweep={setting.sweep}", "space=none", *searched, *kept, *setting.others)


@cache
def problem(table: str = TABLE) -> Problem:
    """A table's space with its limits and the shape of its data."""
    setting, config = TABLES[table], compose([*settings(table), "search=random"])
    return make_problem(config, setting.shape, setting.classes, setting.kind, images=setting.examples)


@cache
def search_config(overrides: tuple[str, ...]) -> SearchConfig:
    """The `search` group that these overrides compose: `("search=hyperband", "search.factor=2")`."""
    return compose([*settings(), *overrides]).search

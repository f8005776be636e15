"""Small data sets and their configs."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from cnnsweep.config import shipped
from cnnsweep.config.schema import DataConfig, check_section
from cnnsweep.data.arrays import Arrays, Dataset
from cnnsweep.data.loading import load

SPLITS = ("train", "val", "test")
COMMON = yaml.safe_load((shipped() / "data" / "_common.yaml").read_text(encoding="utf-8"))
"""The keys that every data source has."""


def config(target: str, **changes: Any) -> DataConfig:
    """The checked `data` section of a data source."""
    base = {**COMMON, "_target_": target, "validation": 0.2}
    return check_section("data", base | changes)  # type: ignore[return-value]


def digits(seed: int = 0, **changes: Any) -> Dataset:
    return load(config("cnnsweep.data.digits.load", **changes), seed)


def made(**changes: Any) -> Arrays:
    """Two classes of 4×4 images, 12 for training and 6 for the test."""
    x = np.random.default_rng(0).integers(0, 256, (18, 4, 4), np.uint8)
    y = np.arange(18) % 2
    base = {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:]}
    return Arrays(**{**base, "class_names": (), "source": "memory", **changes})


def counts(dataset: Dataset, split: str) -> np.ndarray:
    """Images by class."""
    return np.bincount(getattr(dataset, f"y_{split}"), minlength=dataset.classes)

"""Forecast of a sweep's frozen features: their size on disk and the time to compute them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from cnnsweep.config.schema import Config
from cnnsweep.data import loading as datasets
from cnnsweep.data.arrays import Dataset
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor, run_all
from cnnsweep.models import backbones, transfer
from cnnsweep.models.fine_tuning import is_off
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.training.feature_cache import (
    FeatureSpec,
    make_network,
    missing_folders,
    of_features,
    use_all_cores,
    uses_features,
)

IMAGES = 16
"""Sent through a backbone to time it; of videos as many frames."""
RANDOM_BYTES = 32 * 2**20
"""Of random features, at most."""


@dataclass(frozen=True)
class Kind:
    """One of the backbones that a sweep may try: network, weights, cut and size."""

    name: str
    config: Config
    missing: tuple[str, ...]
    """Poolings whose features are not on disk; empty as well where none are used."""
    bytes: int
    """Of those features, for the training and validation images."""
    cached: bool
    """Else every image is sent through the whole network in every epoch."""


@dataclass(frozen=True)
class Forecast:
    """The features that a sweep will compute, and the trials that use them."""

    kinds: tuple[Kind, ...]
    augments: bool
    """Augmentation is searched; trials that have some go through the whole network."""

    @property
    def bytes(self) -> int:
        return sum(kind.bytes for kind in self.kinds)

    @property
    def all_cached(self) -> bool:
        return all(kind.cached for kind in self.kinds) and not self.augments

    def describe(self) -> list[str]:
        """Lines for a plan, one a backbone."""
        return [self._line(kind) for kind in self.kinds]

    def _line(self, kind: Kind) -> str:
        if not kind.cached:
            return f"{kind.name}: every image through the whole network in every epoch"
        trials = "trials without augmentation" if self.augments else "all its trials"
        if not kind.missing:
            return f"{kind.name}: features on disk already, used by {trials}"
        return f"{kind.name}: features computed once, {kind.bytes / 1e6:,.1f} MB on disk, used by {trials}"


def forecast(config: Config, data: Dataset) -> Forecast:
    """Return the features that a sweep of this config will compute. Loads Keras and builds each backbone.

    Raises UserError where a backbone cannot be built.
    """
    augments = [p for p in parse_space(config).parameters if p.name.startswith("data.augment.")]
    always = any(not p.when and (p.grid is None or all(p.grid)) for p in augments)
    still = dict.fromkeys((p.name.rpartition(".")[2] for p in augments), 0) if not always else {}
    kinds = [_kind(one, still, data, possible=not always) for one in backbones.structures(config)]
    return Forecast(tuple(kinds), bool(augments))


def _kind(config: Config, still: Mapping[str, float], data: Dataset, possible: bool) -> Kind:
    name, unfreeze = transfer.settings(config).backbone_name, config.training.unfreeze
    height, width, channels = backbones.inspect(config, data.input_shape)
    augment = config.data.augment.replace(**still)
    if not possible or not uses_features(config.replace(data=config.data.replace(augment=augment))):
        tuned = "" if is_off(unfreeze) else f", unfreezing {unfreeze}"
        return Kind(name + tuned, config, (), 0, cached=False)
    missing = tuple(missing_folders(config, data))
    frames = prod(data.input_shape[:-3])
    values = sum(frames * channels * (height * width if kind == "flatten" else 1) for kind in missing)
    return Kind(name, config, missing, 4 * values * (len(data.x_train) + len(data.x_val)), cached=True)


def measure(found: Forecast, data: Dataset, executor: Executor, scratch: Path) -> tuple[float, float]:
    """Return the seconds for the features before the first trial, and those for the final test.

    Leaves random features of the slowest backbone's shape in the folder `features`: enough to time a head's training.
    """
    shared = slowest = 0.0
    for kind in found.kinds:  # one at a time, since each takes all cores
        (end,) = run_all(executor, [(time_backbone, FeatureSpec(kind.config, scratch / "data", {}))])
        if end.kind != "result":
            raise UserError(f"{kind.name} cannot be tried: {end.value}")
        seconds, shape = end.value
        shared += seconds * (len(data.x_train) + len(data.x_val)) if kind.missing else 0.0
        if seconds > slowest:
            slowest = seconds
            shutil.rmtree(scratch / "features", ignore_errors=True)
            _save_random_features(data, shape, scratch / "features")
    return shared, slowest * len(data.x_test)


def time_backbone(spec: FeatureSpec) -> Generator[object, bool, tuple[float, tuple[int, ...]]]:
    """A job: send a few images through a backbone; returns the seconds for one of them and the features' shape."""
    use_all_cores()
    data = datasets.open_saved(spec.data)
    network = make_network(spec.config, data, [transfer.settings(spec.config).pooling])
    batch = np.asarray(data.x_train[: max(1, IMAGES // prod(data.input_shape[:-3]))])
    network.predict_on_batch(batch)
    began = time.perf_counter()
    network.predict_on_batch(batch)
    return (time.perf_counter() - began) / len(batch), tuple(network.outputs[0].shape[1:])
    yield  # a job is a generator; this one has nothing to report on the way


def _save_random_features(data: Dataset, shape: tuple[int, ...], folder: Path) -> None:
    count = max(256, RANDOM_BYTES // (4 * int(np.prod(shape))))
    rng = np.random.default_rng(0)

    def features(labels: np.ndarray) -> np.ndarray:
        return rng.random((len(labels), *shape), np.float32)

    train, val, test = data.y_train[:count], data.y_val[:count], data.y_test[:count]
    made = replace(
        of_features(data), x_train=features(train), y_train=train, x_val=features(val), y_val=val, x_test=features(test)
    )
    datasets.save(replace(made, y_test=test, digest="random features", scale=1.0), folder)

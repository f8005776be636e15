"""What a sweep's frozen features will take, on disk and in time, before anything is computed."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data import loading as datasets
from cnnsweep.data.loading import Dataset
from cnnsweep.models import transfer
from cnnsweep.models.fine_tuning import is_off
from cnnsweep.search_space import space as spaces
from cnnsweep.training.feature_cache import (
    FeatureSpec,
    feature_folder,
    make_network,
    poolings,
    use_all_cores,
    uses_features,
    with_pooling,
)

IMAGES = 16
"""That are sent through a backbone to see how long it takes."""
MADE_UP = 32 * 2**20
"""Bytes of made-up features, at most."""


@dataclass(frozen=True)
class Kind:
    """One of the backbones that a sweep may try: network, weights, cut and size."""

    name: str
    config: Mapping[str, Any]
    missing: tuple[str, ...]
    """Poolings whose features are not on disk; empty as well where none are used."""
    bytes: int
    """That those will take: features of the training and validation images."""
    cached: bool
    """Else every image is sent through the whole network in every epoch."""


@dataclass(frozen=True)
class Forecast:
    """Which trials will use features, and what is to be computed."""

    kinds: tuple[Kind, ...]
    augments: bool
    """Whether augmentation is searched: trials that have some go through the whole network."""

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


def forecast(config: Mapping[str, Any], data: Dataset) -> Forecast:
    """Say what features a sweep of this checked config will compute. Loads Keras and builds each backbone.

    Raises UserError where a backbone cannot be built.
    """
    augments = [p for p in spaces.read(config).parameters if p.name.startswith("data.augment.")]
    always = any(not p.when and (p.grid is None or all(p.grid)) for p in augments)
    still = dict.fromkeys((p.name.rpartition(".")[2] for p in augments), 0) if not always else {}
    kinds = [_kind(one, still, data, possible=not always) for one in transfer.structures(config)]
    return Forecast(tuple(kinds), bool(augments))


def _kind(config: dict[str, Any], still: Mapping[str, Any], data: Dataset, possible: bool) -> Kind:
    model, unfreeze = config["model"], config["training"]["unfreeze"]
    height, width, channels = transfer.inspect(config, data.input_shape).maps
    name = f"{model['backbone']}{' at ' + model['cut'] if model['cut'] else ''}"
    augment = {**config["data"]["augment"], **still}
    if not possible or not uses_features({**config, "data": {**config["data"], "augment": augment}}):
        tuned = "" if is_off(unfreeze) else f", unfreezing {unfreeze}"
        return Kind(name + tuned, config, (), 0, cached=False)
    facts = {"digest": data.digest, "scale": data.scale}
    missing, size = [], 0
    for kind in poolings(config):
        if not (feature_folder(with_pooling(config, kind), facts, data.input_shape) / "features.json").exists():
            missing.append(kind)
            values = channels * (height * width if kind == "flatten" else 1)
            size += 4 * values * (len(data.x_train) + len(data.x_val))
    return Kind(name, config, tuple(missing), size, cached=True)


def rehearse(spec: FeatureSpec) -> Generator[None, bool, dict[str, Any]]:
    """A job: send a few images through a backbone; returns the `seconds` that one took and the features' `shape`."""
    use_all_cores()
    data = datasets.open_saved(spec.data)
    network = make_network(spec.config, data, [spec.config["model"]["pooling"]])
    batch = np.asarray(data.x_train[:IMAGES])
    network.predict_on_batch(batch)
    began = time.perf_counter()
    network.predict_on_batch(batch)
    return {"seconds": (time.perf_counter() - began) / len(batch), "shape": network.outputs[0].shape[1:]}
    yield  # a job is a generator; this one has nothing to report on the way


def make_up(data: Dataset, shape: tuple[int, ...], folder: Path) -> None:
    """Save random features of this shape with the labels of the images: enough to time the training of a head."""
    most = max(256, MADE_UP // (4 * int(np.prod(shape))))
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        labels = getattr(data, f"y_{split}")[:most]
        arrays |= {f"x_{split}": rng.random((len(labels), *shape), np.float32), f"y_{split}": labels}
    datasets.save(replace(data, **arrays, digest="made up", scale=1.0), folder)

"""The backbones that a sweep may use, and what is wrong with them, which is found before its first trial."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.models import transfer
from cnnsweep.models.fine_tuning import chosen_layers, is_off
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.space import Space
from cnnsweep.trial import Inspection

STRUCTURE = ("model.backbone", "model.weights", "model.cut", "model.input_size", "training.unfreeze")
"""The keys that decide whether there is such a network at all; all others concern the head."""


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: build every backbone that the sweep may use and return its faults, a line each, and that of the cache."""
    faults = dict.fromkeys(_cache_faults(transfer.settings(inspection.config).cache))
    for config in structures(inspection.config):
        try:
            inspect(config, inspection.input_shape)
        except UserError as error:
            faults[str(error)] = None
    return list(faults)
    yield


def _cache_faults(cache: str | None) -> Iterator[str]:
    """Why features cannot be written, as far as that is seen without writing."""
    if not cache:
        return
    folder = Path(cache).expanduser().absolute() / "features"
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        reason = "cannot be written" if there.is_dir() else "is a file"
        yield f"model.cache '{cache}' cannot be used: '{there}' {reason}"


def inspect(config: Config, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Build the backbone of one configuration and return (height, width, channels) of its output.

    Raises UserError where that, or its unfreezing, is not possible.
    """
    model = transfer.settings(config)
    backbone = transfer.build_backbone(model, transfer.input_size(model, input_shape))
    if not is_off(config.training.unfreeze):
        chosen_layers(backbone, config.training.unfreeze)
    height, width, channels = backbone.output.shape[1:]
    return height, width, channels


def structures(config: Config) -> list[Config]:
    """The configurations of a sweep that differ in more than their heads, one of each."""
    chosen = [p for p in parse_space(config).parameters if p.name in STRUCTURE]
    chosen = [replace(p, when=tuple(c for c in p.when if c[0] in STRUCTURE)) for p in chosen]
    return [config.with_values(values) for values in Space(tuple(chosen)).enumerate()]

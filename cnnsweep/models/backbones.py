"""The backbones that a sweep may use, and what is wrong with them, which is found before its first trial."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

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
    """A job: build every backbone that the sweep may use and return its faults, a line each."""
    faults: dict[str, None] = {}
    for config in structures(inspection.config):
        try:
            inspect(config, inspection.input_shape)
        except UserError as error:
            faults[str(error)] = None
    return list(faults)
    yield


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

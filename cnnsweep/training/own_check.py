"""A model of the user's own, built once before the first trial: what of the config would have no effect, or not fit."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config import objective
from cnnsweep.config.augment import MIXING
from cnnsweep.config.components import locate
from cnnsweep.config.own_code import MODELS
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.models.own import is_graph
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.training.effects import LOOP, OPTIMISED, without_effect
from cnnsweep.trial import Inspection

if TYPE_CHECKING:
    import keras

DRAWS = 5
"""Of configurations whose model may fail to be built; each trial says so by itself."""


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: what is wrong with the config for the model that is built."""
    config = inspection.config
    model = _built(inspection)
    return [] if model is None else [*_faults(config, inspection, model)]
    yield


def _built(inspection: Inspection) -> keras.Model | None:
    config, rng = inspection.config, np.random.default_rng(0)
    space, build = parse_space(config), locate("model._target_", config.model.target)
    for _ in range(DRAWS):
        model = config.with_values(space.draw(rng)).model
        try:
            built: keras.Model = build(
                model.argument(), inspection.input_shape, inspection.classes, scale=1.0, augment=[], seed=0
            )
        except Exception:  # of the user's own code
            continue
        return built
    return None


def _faults(config: Config, inspection: Inspection, model: keras.Model) -> Iterator[str]:
    own, fit = config.model, config.model.fit
    name = own.plain().get("call") or own.plain().get("hypermodel") or own.target
    if fit and locate("model.fit", fit)(own, inspection.input_shape, inspection.classes):
        yield from without_effect(config, (*OPTIMISED, *LOOP), f": {name} trains by its own fit")
    elif model.compiled:
        why = f": the model of {name} is compiled, with an optimizer, a loss and metrics of its own"
        yield from without_effect(config, OPTIMISED, f"{why}; leave it out, or return it without compile()")
    else:
        try:
            objective.check(config.objective, config.task, config.training.plain(), config.space)
        except UserError as error:
            yield str(error)
    if own.target in MODELS and not is_graph(model):
        yield from _unchanged(config, name)


def _unchanged(config: Config, name: str) -> Iterator[str]:
    searched = ((config.space.get("data") or {}).get("augment")) or {}
    for change in sorted({*config.data.augment.on, *(key for key, entry in searched.items() if entry)} - {*MIXING}):
        yield (f"data.augment.{change}: has no effect: {name} returns a subclassed model, which gets the images as "
               "they are; change them in its call(), or return a functional model")  # fmt: skip

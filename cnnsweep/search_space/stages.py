"""The model part of a space as chains of stages, so that its configurations can be counted without building each.

A family whose `layers` function carries `stages` (a `Stages`) says how its stack falls into a stem, blocks and a head.
A `Track` fixes what holds for the whole stack; within it each stage has its own options, and the stages follow one
another through the shape between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Shape, Stages, cost_of
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter, Space, Values, apply

MOST_TRACKS = 5_000
Content = tuple[str, tuple[tuple[str, Any], ...]]
"""A layer without its name: (kind, settings)."""
Cost = tuple[int, int, int]
"""Parameters, multiply-adds, activation bytes."""


@dataclass(frozen=True)
class Option:
    """One way to set one stage."""

    values: tuple[tuple[str, Any], ...]
    """The searched keys of this stage and their values."""
    layers: tuple[Content, ...]


Stage = tuple[Option, ...]


@dataclass(frozen=True)
class Track:
    """All configurations that share the keys of the whole stack."""

    values: Values
    rest: tuple[Parameter, ...]
    """Active parameters that leave the network as it is, or are continuous."""
    stages: tuple[Stage, ...]
    group: tuple[Any, ...]
    """Tracks of another group never train the same network in the same way."""

    @property
    def weight(self) -> int:
        """How many configurations each path through the stages stands for; a continuous range counts as one."""
        return math.prod(len(p.grid) for p in self.rest if p.grid)


def tracks(problem: Problem) -> list[Track] | None:
    """Return the space as tracks, or None where the family tells no stages or there are too many."""
    stages = getattr(problem.layers, "stages", None)
    if stages is None:
        return None
    found: list[Track] = []
    for chosen in _cases(problem.space):
        for track in _tracks_of(problem, stages, chosen):
            found.append(track)
            if len(found) > MOST_TRACKS:
                return None
    return found


def _cases(space: Space) -> Iterator[Values]:
    """Every assignment of the parameters on which others depend, inactive ones left out.

    A key of one block that decides about keys of the same block alone is left to that block's options.
    """
    dependents: dict[str, set[int | None]] = {}
    for p in space.parameters:
        for name, _ in p.when:
            dependents.setdefault(name, set()).add(_block(p) if p.grid and p.name.startswith("model.") else -1)
    outer = [p for p in space.parameters if p.name in dependents and dependents[p.name] != {_block(p) or 0}]
    yield from _assign(outer, {})


def _assign(controls: Sequence[Parameter], chosen: Values) -> Iterator[Values]:
    if not controls:
        yield chosen
        return
    p = controls[0]
    if all(name in chosen and chosen[name] in allowed for name, allowed in p.when):
        for value in p.grid or ():
            yield from _assign(controls[1:], {**chosen, p.name: value})
    else:
        yield from _assign(controls[1:], chosen)


def _tracks_of(problem: Problem, stages: Stages, chosen: Values) -> Iterator[Track]:
    free = [p for p in _active(problem.space, chosen) if p.name not in chosen]
    model = [p for p in free if p.name.startswith("model.") and p.grid]
    rest = tuple(p for p in free if p not in model)
    # A continuous range has no effect on sizes; anything inside it stands for all of it.
    inside = {p.name: p.at(0.5) for p in rest if p.name.startswith("model.")}
    head = [p for p in model if p.name in stages.head]
    whole = [p for p in model if p not in head and _block(p) is None]
    group = (
        *((n, v) for n, v in chosen.items() if not n.startswith("model.")),
        *(p.name for p in rest if not p.name.startswith("model.")),
    )
    for values in _products(whole):
        fixed = {**chosen, **values}
        options = _options(problem, stages, {**inside, **fixed}, [p for p in model if p not in whole], head)
        if options is not None:
            yield Track(fixed, rest, options, group)


def _options(
    problem: Problem, stages: Stages, fixed: Values, free: Sequence[Parameter], head: Sequence[Parameter]
) -> tuple[Stage, ...] | None:
    """The options of every stage; None where these keys describe no network whatever the others are."""
    complete = {n: v for n, v in fixed.items() if n.startswith("model.")}
    complete |= {p.name: (p.grid or ())[0] for p in free}
    try:
        model = apply({"model": problem.config["model"]}, complete)["model"]
        blocks = int(model["blocks"])
        assert problem.layers is not None
        problem.layers(model, problem.input_shape, problem.classes)
    except UserError:
        return None
    for name in {p.name.split(".")[1] for p in problem.space.parameters if _block(p) is not None}:
        if not isinstance(model[name], list):
            model[name] = [model[name]] * blocks
    made: list[Stage] = []
    for index in range(blocks + 2):
        own = head if index == blocks + 1 else [p for p in free if _block(p) == index]
        made.append(tuple(_option(stages, model, index, problem.classes, values) for values in _products(own)))
    return tuple(made)


def _option(stages: Stages, base: Mapping[str, Any], index: int, classes: int, values: Values) -> Option:
    model = dict(base)
    for name, value in values.items():
        key, _, number = name.removeprefix("model.").partition(".")
        if number:
            model[key] = [*model[key][: index - 1], value, *model[key][index:]]
        else:
            model[key] = value
    layers = stages.stage(model, index, classes)
    return Option(tuple(values.items()), tuple((layer.kind, tuple(layer.settings.items())) for layer in layers))


def _active(space: Space, chosen: Values) -> list[Parameter]:
    """The parameters that can count, as far as the chosen values tell."""
    on: list[Parameter] = []
    names: set[str] = set()
    for p in space.parameters:
        if all(name in names and (name not in chosen or chosen[name] in allowed) for name, allowed in p.when):
            on.append(p)
            names.add(p.name)
    return on


def _products(parameters: Sequence[Parameter]) -> Iterator[Values]:
    """Every combination, without what an earlier of the parameters makes inactive."""
    names = {p.name for p in parameters}

    def extend(index: int, values: Values) -> Iterator[Values]:
        if index == len(parameters):
            yield values
            return
        p = parameters[index]
        if all(name in values and values[name] in allowed for name, allowed in p.when if name in names):
            for value in p.grid or ():
                yield from extend(index + 1, {**values, p.name: value})
        else:
            yield from extend(index + 1, values)

    return extend(0, {})


def _block(p: Parameter) -> int | None:
    tail = p.name.rpartition(".")[2]
    return int(tail) if tail.isdigit() else None


@lru_cache(maxsize=500_000)
def step(content: Content, shape: Shape) -> tuple[Shape, Cost] | None:
    """One layer's output shape and cost; None where it does not fit."""
    return cost_of(content[0], dict(content[1]), shape)


@lru_cache(maxsize=500_000)
def walk(layers: tuple[Content, ...], shape: Shape) -> tuple[Shape, Cost] | None:
    """The output shape and cost of several layers; None where one does not fit."""
    parameters = mult_adds = kept = 0
    for layer in layers:
        found = step(layer, shape)
        if found is None:
            return None
        shape, (p, m, a) = found
        parameters, mult_adds, kept = parameters + p, mult_adds + m, kept + a
    return shape, (parameters, mult_adds, kept)


_SAME_COST = {"max_pool": "pool", "average_pool": "pool"}
_FREE = {"function", "rate", "scale", "activation"}


@lru_cache(maxsize=500_000)
def kernel(layers: tuple[Content, ...]) -> tuple[Content, ...]:
    """What of the layers decides their sizes and costs: equal for relu and elu, for max and average pooling."""
    return tuple(
        (_SAME_COST.get(kind, kind), tuple(item for item in settings if item[0] not in _FREE or item[1] == "glu"))
        for kind, settings in layers
    )

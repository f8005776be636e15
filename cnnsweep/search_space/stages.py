"""The model part of a space as a sequence of stages, so that its configurations are counted without building each.

The stack of a family with `StagedLayers` falls into a stem, blocks and a head. A `Track` fixes the keys of the whole
stack; within it each stage has its own options, and the stages follow one another through the shape between them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from cnnsweep.config.schema import ModelConfig
from cnnsweep.errors import UserError
from cnnsweep.geometry.layers import cost_of
from cnnsweep.geometry.network import StagedLayers
from cnnsweep.geometry.settings import Cost, MisfitError, Shape
from cnnsweep.search_space.space import Parameter, Space, Values, combinations

if TYPE_CHECKING:
    from cnnsweep.search_space.problem import Problem

MAX_TRACKS = 5_000
Content = tuple[str, tuple[tuple[str, Any], ...]]
"""A layer without its name: (kind, settings)."""


class Uncountable(Exception):  # noqa: N818
    """A space whose configurations cannot be counted exactly: its family has no stages, or it is too varied."""


@dataclass(frozen=True)
class Option:
    """One way to set one stage."""

    values: Values
    """The searched keys of this stage and their values."""
    layers: tuple[Content, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """The stem, a block or the head of a stack."""

    options: tuple[Option, ...]

    @cached_property
    def kernel(self) -> frozenset[tuple[tuple[Content, ...], int]]:
        """The part that decides the costs: equal for stages that only differ in, say, their activation."""
        return frozenset(Counter(_kernel(option.layers) for option in self.options).items())

    def groups(self, shape: Shape) -> Counter[tuple[Shape, Cost]]:
        """The shapes and costs to which the options lead, and the number of options for each."""
        return Counter(found for option in self.options if (found := walk(option.layers, shape)) is not None)


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
        """The configurations for which each path through the stages stands; a continuous range counts as one."""
        return math.prod(len(p.grid) for p in self.rest if p.grid)


def tracks(problem: Problem) -> list[Track]:
    """Return the space as tracks. Raises `Uncountable` where the family has no stages or the tracks are too many."""
    if not isinstance(problem.layers, StagedLayers):
        raise Uncountable
    layers, controls = problem.layers, combinations(_controls(problem.space))
    every = (track for chosen in controls for track in _tracks_of(problem, layers, chosen))
    found = list(islice(every, MAX_TRACKS + 1))
    if len(found) > MAX_TRACKS:
        raise Uncountable
    return found


def _controls(space: Space) -> list[Parameter]:
    """The parameters on which others depend, except a block's on which only the same block's depend: its options."""
    dependents: dict[str, set[int | None]] = {}
    for p in space.parameters:
        for name, _ in p.when:
            dependents.setdefault(name, set()).add(p.block if p.grid and p.name.startswith("model.") else -1)
    return [p for p in space.parameters if p.name in dependents and dependents[p.name] != {p.block or 0}]


def _tracks_of(problem: Problem, layers: StagedLayers, chosen: Values) -> Iterator[Track]:
    free = [p for p in problem.space.active(chosen) if p.name not in chosen]
    model = [p for p in free if p.name.startswith("model.") and p.grid]
    rest = tuple(p for p in free if p not in model)
    # A continuous range has no effect on sizes; any value in it stands for all of it.
    inside = {p.name: p.at(0.5) for p in rest if p.name.startswith("model.")}
    head = [p for p in model if p.name in layers.head]
    whole = [p for p in model if p not in head and p.block is None]
    group = (
        *((n, v) for n, v in chosen.items() if not n.startswith("model.")),
        *(p.name for p in rest if not p.name.startswith("model.")),
    )
    for values in combinations(whole):
        fixed = {**chosen, **values}
        found = _stages(problem, layers, {**inside, **fixed}, [p for p in model if p not in whole], head)
        if found is not None:
            yield Track(fixed, rest, found, group)


def _stages(
    problem: Problem, layers: StagedLayers, fixed: Values, free: Sequence[Parameter], head: Sequence[Parameter]
) -> tuple[Stage, ...] | None:
    """The stages with their options; None where no values of the other keys make a network of these."""
    complete = {n: v for n, v in fixed.items() if n.startswith("model.")}
    complete |= {p.name: p.grid[0] for p in free if p.grid}
    try:
        model = problem.config.with_values(complete).model
        layers(model.argument(), problem.input_shape, problem.classes)
    except UserError:
        return None
    plain = model.plain()
    blocks = int(plain.get("blocks", 0))
    for name in {p.key.removeprefix("model.") for p in problem.space.parameters if p.block}:
        if not isinstance(plain[name], list):
            model = model.replace(**{name: [plain[name]] * blocks})
    found: list[Stage] = []
    for index in range(blocks + 2):
        own = head if index == blocks + 1 else [p for p in free if p.block == index]
        options = (_option(layers, model, index, problem.classes, values) for values in combinations(own))
        found.append(Stage(tuple(options)))
    return tuple(found)


def _option(layers: StagedLayers, base: ModelConfig, index: int, classes: int, values: Values) -> Option:
    changes: dict[str, Any] = {}
    for name, value in values.items():
        key, _, number = name.removeprefix("model.").partition(".")
        each = getattr(base, key)
        changes[key] = [*each[: index - 1], value, *each[index:]] if number else value
    stage = layers.stage(base.replace(**changes).argument(), index, classes)
    return Option(values, tuple((layer.kind, tuple(layer.settings.items())) for layer in stage))


@lru_cache(maxsize=500_000)
def step(content: Content, shape: Shape) -> tuple[Shape, Cost] | None:
    """One layer's output shape and cost; None where it does not fit."""
    try:
        return cost_of(content[0], dict(content[1]), shape)
    except MisfitError:
        return None


@lru_cache(maxsize=500_000)
def walk(layers: tuple[Content, ...], shape: Shape) -> tuple[Shape, Cost] | None:
    """The output shape and cost of several layers; None where one does not fit."""
    parameters = mult_adds = activations = 0
    for layer in layers:
        found = step(layer, shape)
        if found is None:
            return None
        shape, (p, m, a) = found
        parameters, mult_adds, activations = parameters + p, mult_adds + m, activations + a
    return shape, (parameters, mult_adds, activations)


_SAME_COST = {
    "max_pool": "pool", "average_pool": "pool", "global_max_pool": "global", "global_average_pool": "global",
}  # fmt: skip
_FREE = {"function", "rate", "scale", "activation"}


@lru_cache(maxsize=500_000)
def _kernel(layers: tuple[Content, ...]) -> tuple[Content, ...]:
    """The part of layers that decides sizes and costs: equal for relu and elu, for max and average pooling."""
    return tuple((_SAME_COST.get(kind, kind), tuple(_decisive(settings))) for kind, settings in layers)


def _decisive(settings: tuple[tuple[str, Any], ...]) -> Iterator[tuple[str, Any]]:
    for name, value in settings:
        if name in ("branch", "projection"):
            yield name, _kernel(tuple((inner.kind, inner.settings) for inner in value))
        elif name not in _FREE or value == "glu":
            yield name, value

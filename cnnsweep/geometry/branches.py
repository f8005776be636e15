"""Blocks whose layers are not in one line: residual blocks, and squeeze and excitation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnsweep.geometry.settings import Cost, MisfitError, Settings, Shape, positive

KINDS = ("residual", "squeeze_excite")
CostOf = Callable[[str, Settings, Shape], tuple[Shape, Cost]]
"""`layers.cost_of`."""


class Inner(NamedTuple):
    """A layer inside a block."""

    kind: str
    name: str
    """Within the block: "conv1"."""
    settings: tuple[tuple[str, Any], ...] = ()


class Element(NamedTuple):
    """An elementary layer with the shapes of one image before and after it."""

    kind: str
    settings: Settings
    shape: Shape
    output: Shape
    cost: Cost


def elements(kind: str, settings: Settings, shape: Shape, cost_of: CostOf) -> list[Element]:
    """The elementary layers of a block, or the one layer that it is."""
    match kind:
        case "residual":
            branch, shortcut = branches(settings, shape, cost_of)
            return branch if shortcut is None else [*branch, *shortcut, _element("add", {}, branch[-1].output, cost_of)]
        case "squeeze_excite":
            channels = shape[-1]
            squeeze = _element("dense", {"units": hidden_units(settings, shape)}, (channels,), cost_of)
            excite = _element("dense", {"units": channels}, squeeze.output, cost_of)
            pooled, scaled = (_element(k, {}, shape, cost_of) for k in ("global_average_pool", "multiply"))
            return [pooled, squeeze, excite, scaled]
        case _:
            return [_element(kind, settings, shape, cost_of)]


def branches(settings: Settings, shape: Shape, cost_of: CostOf) -> tuple[list[Element], list[Element] | None]:
    """The elementary layers of a residual block's main branch, and of its shortcut.

    The shortcut is the input itself where the branch keeps its shape: no layers. Else it is the block's projection, or
    None if it has none: then nothing is added. Raises MisfitError where the two do not end in one shape.
    """
    branch = _walk(settings["branch"], shape, cost_of)
    output = branch[-1].output
    if output == shape:
        return branch, []
    if not settings["projection"]:
        return branch, None
    shortcut = _walk(settings["projection"], shape, cost_of)
    if (other := shortcut[-1].output) == output:
        return branch, shortcut
    ours, theirs = ("×".join(map(str, size[:-1])) for size in (output, other))
    raise MisfitError("padding", f"maps of {ours} cannot be added to a shortcut's of {theirs}; take padding same")


def hidden_units(settings: Settings, shape: Shape) -> int:
    """The units between the two dense layers of squeeze and excitation: one for `ratio` channels."""
    return max(1, shape[-1] // positive(settings, "ratio"))


def _walk(layers: Sequence[Inner], shape: Shape, cost_of: CostOf) -> list[Element]:
    found: list[Element] = []
    for layer in layers:
        found += elements(layer.kind, dict(layer.settings), found[-1].output if found else shape, cost_of)
    return found


def _element(kind: str, settings: Settings, shape: Shape, cost_of: CostOf) -> Element:
    return Element(kind, settings, shape, *cost_of(kind, settings, shape))

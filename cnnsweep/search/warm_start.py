"""What a person already knows: `search.start_with`, the configurations to try first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnsweep.config.compose import flat
from cnnsweep.errors import UserError, nearest
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter, Values

OPTIONAL = "optional"
"""A key of an entry: true for one that is left out where today's space does not hold it."""


def read(problem: Problem, entries: Any) -> tuple[list[Values], list[str]]:
    """The configurations to begin with, and what is to be said of those left out. Raises `UserError`.

    An entry holds searched keys, dotted or nested; the others have the values of the config. A key with a value a
    block takes one for all blocks, a list, or its own (`model.filters.2`).
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise UserError(f"search.start_with: '{entries}' is no list of configurations, such as [{{model.blocks: 2}}]")
    found: list[Values] = []
    notes: list[str] = []
    for number, entry in enumerate(entries, start=1):
        where = f"search.start_with, entry {number}"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}: '{entry}' is no configuration (a mapping, such as {{model.blocks: 2}})")
        try:
            found.append(_complete(problem, {k: v for k, v in entry.items() if k != OPTIONAL}))
        except UserError as error:
            if entry.get(OPTIONAL) is not True:
                raise UserError(f"{where}: {error}") from error
            notes.append(f"left out, since today's space does not hold it: {where}: {str(error).splitlines()[0]}")
    return found, notes


def _complete(problem: Problem, entry: Mapping[str, Any]) -> Values:
    space, given = problem.space, dict(flat(entry))
    names = {p.name for p in space.parameters} | {_stem(p.name) for p in space.parameters}
    for name in given:
        if name not in names:
            raise UserError(f"'{name}' is not searched{nearest(name, names)}")
    values = {p.name: _value(p, given, problem.config) for p in space.parameters}
    active = space.active(values)
    for p in active:
        if not p.allows(values[p.name]):
            source = (
                "" if p.name in given or _stem(p.name) in given else " (the config's own; name the key to change it)"
            )
            raise UserError(f"{p.name}: {values[p.name]}{source} is outside the space ({p.describe()})")
    found = {p.name: p.typed(values[p.name]) for p in active}
    if fault := problem.judge(found).fault:
        raise UserError(fault)
    return found


def _value(p: Parameter, given: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    if p.name in given:
        return given[p.name]
    stem = _stem(p.name)
    value = given.get(stem)
    if stem not in given:
        value = config
        for part in stem.split("."):
            value = value[part]
    if stem == p.name or not isinstance(value, list):
        return value
    return value[min(int(p.name.rpartition(".")[2]), len(value)) - 1]


def _stem(name: str) -> str:
    head, _, tail = name.rpartition(".")
    return head if tail.isdigit() else name

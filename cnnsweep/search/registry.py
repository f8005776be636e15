"""The searches that come with the package, and the search that a config names, with its first configurations."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from cnnsweep.config import shipped
from cnnsweep.config.components import locate
from cnnsweep.config.compose import flat
from cnnsweep.config.objective import COSTS, Objective
from cnnsweep.config.schema import Config
from cnnsweep.config.validation import Unknown
from cnnsweep.errors import UserError, nearest_key
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search.notes import notes_on
from cnnsweep.search.observations import Sampler
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter, Values

EPOCHS = ("training.epochs", "training.unfreeze", "training.unfreeze_epochs")
"""Keys that say how many epochs a trial has."""
OPTIONAL = "optional"
"""A key of an entry: true for one that is ignored where the space does not hold it."""


def build(config: Config, problem: Problem, objective: Objective) -> Oracle:
    """Make the search that the config names. Raises `UserError`."""
    target = config.search.target
    search = locate("search._target_", target)
    if not (isinstance(search, type) and issubclass(search, Oracle)):
        raise UserError(f"search._target_: '{target}' is no subclass of {Oracle.__module__}.Oracle")
    _check_objectives(search, problem, objective)
    start_with, notes = _read_start(problem, config.search.start_with)
    notes += notes_on(config, problem)
    task = Task(
        problem,
        objective,
        seed=config.seed,
        max_trials=config.budget.trials,
        max_epochs=total_epochs(config.training),
        start_with=start_with,
        notes=notes,
    )
    found = search(task, **config.search.settings())
    if len(found.rungs) == 1 < found.full_epochs and "factor" in config.search.plain():
        factor, rung = config.search.plain()["factor"], "one rung alone, so that each is trained to its end"
        notes.append(f"search.factor: {factor}, but a trial has {found.full_epochs} epochs: {rung}")
    if found.rungs and (keys := [p.name for p in problem.space.parameters if p.name in EPOCHS]):
        where = "compares configurations after the same numbers of epochs, so that these cannot be searched"
        others = "others train each to its own end (search=gp, tpe, random)"
        raise UserError(f"space.{keys[0]}: this search {where}; {others}")
    return found


@functools.cache
def searches() -> dict[str, type[Oracle]]:
    """The searches by the names of their files in conf/search."""
    from omegaconf import OmegaConf

    files = sorted((shipped() / "search").glob("[!_]*.yaml"))
    return {file.stem: locate("search._target_", OmegaConf.select(OmegaConf.load(file), "_target_")) for file in files}


def sampler_named(name: str) -> Sampler | None:
    """The sampler of the search of that name; None for random. Raises `ValueError`."""
    if name == "random":
        return None
    types = {search: oracle.sampler_type for search, oracle in searches().items() if oracle.sampler_type}
    if name not in types:
        raise Unknown(name, ("random", *types))
    return types[name]()


def _check_sampler(name: str) -> str:
    sampler_named(name)
    return name


SamplerName = Annotated[str, BeforeValidator(_check_sampler)]
"""The type of `search.sampler`."""


def _check_objectives(search: type[Oracle], problem: Problem, objective: Objective) -> None:
    """Raise `UserError` where a search serves one objective only, or a cost cannot be known beforehand."""
    if not objective.also:
        return
    if not search.several:
        given = ", ".join(o.metric for o in objective.all)
        name = next((name for name, known in searches().items() if known is search), search.__name__)
        able = ", ".join(name for name, known in searches().items() if known.several)
        raise UserError(f"objective: [{given}]: search={name} serves one objective only; for several: {able}")
    for cost in (o.metric for o in objective.also if o.metric in COSTS):
        if not problem.priced:
            raise UserError(f"objective: {cost} of these networks is not known beforehand: the model has no `layers`")


def _read_start(problem: Problem, entries: Any) -> tuple[list[Values], list[str]]:
    """The configurations to begin with, and a note on each that was ignored. Raises `UserError`.

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
        given, optional = dict(flat({k: v for k, v in entry.items() if k != OPTIONAL})), entry.get(OPTIONAL) is True
        try:
            found.append(_complete(problem, given))
        except UserError as error:
            if not optional:
                raise UserError(f"{where}: {error}") from error
            notes.append(f"ignored, because the space does not hold it: {where}: {str(error).splitlines()[0]}")
            continue
        counting = {name for p in problem.space.active(found[-1]) for name in (p.name, p.key)}
        if not optional and (unused := [name for name in given if name not in counting]):
            notes.append(f"{where}: without effect, because of its other values: {', '.join(unused)}")
    return found, notes


def _complete(problem: Problem, given: Mapping[str, Any]) -> Values:
    space, fixed = problem.space, dict(flat(problem.config.plain()))
    names = {p.name for p in space.parameters} | {p.key for p in space.parameters}
    blocks = given.get("model.blocks", fixed.get("model.blocks"))
    for name, value in given.items():
        if name not in names:
            raise UserError(f"'{name}' is not searched{nearest_key(name, sorted(names))}")
        if isinstance(value, list) and len(value) != blocks:
            raise UserError(f"{name}: {value} has {len(value)} values, and there are {blocks} blocks")
    values = {p.name: _as_number(p, _value(p, given, fixed)) for p in space.parameters}
    active = space.active(values)
    for p in active:
        if not p.allows(values[p.name]):
            known = p.name in given or p.key in given
            source = "" if known else " (the config's own; name the key to change it)"
            raise UserError(f"{p.name}: {values[p.name]}{source} is outside the space ({p.describe()})")
    found = {p.name: p.typed(values[p.name]) for p in active}
    if fault := problem.validate(found).fault:
        raise UserError(fault)
    return found


def _as_number(p: Parameter, value: object) -> object:
    """A number that is given as text, as MLflow has params."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) and not p.categorical else value
    return value


def _value(p: Parameter, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    if p.name in given:
        return given[p.name]
    value = given.get(p.key, fixed.get(p.key))
    if p.block is None or not isinstance(value, list):
        return value
    return value[min(p.block, len(value)) - 1]

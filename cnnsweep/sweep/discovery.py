"""The space of a model that knows its own, found by a worker before the first trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnnsweep.config.components import locate
from cnnsweep.config.schema import Config, check_section
from cnnsweep.config.section import Plain
from cnnsweep.data.loading import Dataset
from cnnsweep.errors import UserError, nearest
from cnnsweep.executors.base import Executor, run_all
from cnnsweep.models.keras_sizes import leave_gpus_alone
from cnnsweep.trial import Discovered, Inspection


def discover(config: Config, data: Dataset, executor: Executor, say: Callable[[str], None]) -> Config:
    """Put a hypermodel's hyperparameters and an application's config into the config, with the space that they ask for.

    Raises UserError where the model cannot be built or the application's config cannot be composed.
    """
    if config.model.measure and not config.executor.target.endswith(".InlineExecutor"):
        leave_gpus_alone()
    config = discover_application(config, data, executor)
    if found := _ask(config, "model", data, executor):
        config = _with_hyperparameters(config, found)
        say(f"{config.model.plain()['hypermodel']} asks for {', '.join(found.values) or 'no hyperparameter'}")
        for note in found.notes:
            say(f"{config.model.plain()['hypermodel']}: {note}")
    return config


def discover_application(config: Config, data: Dataset, executor: Executor) -> Config:
    """Put an application's config into the config. Raises UserError where it cannot be composed."""
    found = _ask(config, "job", data, executor)
    return _with_application(config, found) if found else config


def _ask(config: Config, group: str, data: Dataset, executor: Executor) -> Discovered | None:
    """What a worker finds out about a section's code; None where there is nothing to be found out."""
    if not (job := getattr(config, group).plain().get("discover")):
        return None
    task = (locate(f"{group}.discover", job), Inspection(config, data.input_shape, data.classes))
    (end,) = run_all(executor, [task])
    found = end.value if end.kind == "result" else Discovered(fault=f"{group}.discover: {end.value}")
    if found.fault:
        raise UserError(found.fault)
    return found


def _with_application(config: Config, found: Discovered) -> Config:
    """Its keys and groups are searched under the options under which they are there."""
    job, searched = config.job.plain() | {"discover": None, **found.values}, dict(config.space.get("job") or {})
    searched = _conditional(searched, found.space)
    for key, entry in found.space.items():
        if "values" in entry:
            _put(searched, key.split("."), entry)
    space = {**config.space, **({"job": searched} if searched else {})}
    return config.replace(job=check_section("job", job), space=space)


def _put(tree: Plain, path: Sequence[str], entry: Mapping[str, object]) -> None:
    """Add an entry, where the tree has none for its key."""
    *groups, last = path
    for name in groups:
        tree = tree.setdefault(name, {})
    tree.setdefault(last, dict(entry))


def _conditional(entries: Mapping[str, object], found: Mapping[str, Mapping[str, Any]], prefix: str = "") -> Plain:
    """Entries at any depth, each with the condition that was found for its key."""
    paths = {name: f"{prefix}{name}" for name in entries}
    return {
        name: _merged(found[paths[name]], entry)
        if paths[name] in found
        else _conditional(entry, found, f"{paths[name]}.")
        if isinstance(entry, Mapping)
        else entry
        for name, entry in entries.items()
    }


def _with_hyperparameters(config: Config, found: Discovered) -> Config:
    """What the config says of a hyperparameter counts: a value that is given is not searched."""
    model = config.model.plain()
    given, asked = dict(model["hp"]), dict((config.space.get("model") or {}).get("hp") or {})
    for name in (*given, *asked):
        if name not in found.values:
            close, known = nearest(name, found.values), ", ".join(found.values) or "none"
            raise UserError(f"model.hp.{name}: {model['hypermodel']} does not ask for it{close} (it asks for: {known})")
    model |= {"discover": None, "hp": {**found.values, **given}, "names": dict(found.names)}
    searched = {name: entry for name, entry in found.space.items() if name not in given}
    searched |= {name: _merged(found.space.get(name, {}), entry) for name, entry in asked.items()}
    space = {**config.space, "model": {**(config.space.get("model") or {}), "hp": searched}}
    if not searched:  # all are given, or there are none
        del space["model"]["hp"]
    return config.replace(model=check_section("model", model), space={n: part for n, part in space.items() if part})


def _merged(found: Mapping[str, Any], given: Any) -> Any:
    """What the config says of a hyperparameter's values, under the conditions that were found; null: not searched."""
    if not isinstance(given, Mapping):
        return given
    when = {"when": found["when"]} if "when" in found else {}
    return {**when, **given}

"""Configs that an older version wrote: keys that were added since have their packaged defaults."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnsweep.config import flat, packaged, shipped
from cnnsweep.schema import EXTENSIBLE

OPEN = ("space", "tracking.tags")
"""Groups whose keys are the user's own."""


def complete(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config with the keys that it lacks, and these, dotted, with their values.

    A component of a user's own stays as it is. Nothing is checked.
    """
    targets = {group: (config.get(group) or {}).get("_target_") for group in EXTENSIBLE}
    choices = {group: choice for group, target in targets.items() if (choice := _choice(group, target))}
    defaults = copy.deepcopy(_defaults(tuple(f"{group}={choice}" for group, choice in choices.items())))
    for group in EXTENSIBLE:
        if config.get(group) and group not in choices:
            del defaults[group]
    return _filled(config, defaults)


def tell(added: Mapping[str, Any]) -> str:
    """One line about them.

    >>> tell({"budget.replicates": None})
    'keys that the stored config lacks have the packaged defaults: budget.replicates=null'
    """
    told = ", ".join(f"{name}={'null' if value is None else value}" for name, value in added.items())
    return f"keys that the stored config lacks have the packaged defaults: {told}"


def _filled(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    found, added = copy.deepcopy(dict(config)), {}
    for name, _ in flat({k: v for k, v in defaults.items() if k not in OPEN}):
        *path, last = name.split(".")
        source, target = defaults, found
        for part in path:
            source = source[part]
            target = target.setdefault(part, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict) and last not in target and name not in OPEN and source[last] != "???":
            target[last] = added[name] = source[last]
    return found, added


@functools.cache
def _defaults(overrides: tuple[str, ...]) -> dict[str, Any]:
    return packaged(overrides)


def _choice(group: str, target: str | None) -> str | None:
    """The packaged config of a component."""
    return next((path.stem for path, named in _targets(shipped() / group) if named == target), None)


def _targets(folder: Path) -> Iterator[tuple[Path, str | None]]:
    import yaml

    for path in sorted(folder.glob("[!_]*.yaml")):
        yield path, yaml.safe_load(path.read_text(encoding="utf-8")).get("_target_")

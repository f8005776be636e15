"""The code that a config from a store may name: that of the shipped configs and of the user's own, and no other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cnnsweep.config import shipped
from cnnsweep.config.compose import own_configs
from cnnsweep.config.schema import Config, ModelConfig
from cnnsweep.errors import UserError

Trusted = Collection[str] | None
"""Dotted paths of classes and functions; None: all, by the user's own word."""
_HOOKS = ("call", "hypermodel", "discover", *(ModelConfig.model_fields.keys() - {"target"}))
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def trusted_by(
    config: Config | None = None, config_dir: str | Path | None = None, overrides: Sequence[str] = ()
) -> frozenset[str]:
    """Return what is named by the shipped configs, those of a folder (default: ./conf), and what is given today."""
    found = {override.partition("=")[2] for override in overrides}
    found |= {name for _, name in _named(config.plain())} if config else set()
    for folder in (shipped(), own_configs(config_dir)):
        for file in folder.rglob("*.yaml"):
            found |= {name for _, name in _named(_read(file))}
    return frozenset(found)


def expect_trusted(what: str, stored: Mapping[str, Any], trusted: Trusted) -> None:
    """Raise UserError where a stored config names code that is not trusted; nothing of it was imported."""
    if strange := find_strange(stored, trusted):
        names = ", ".join(f"{key}: {name}" for key, name in strange)
        raise UserError(
            f"{what} names code that neither cnnsweep nor your own configs name, and none of it was run: {names}\n"
            "if you know who wrote it, add --trust, or name it in a config of your own"
        )


def trust_option(config: Config) -> str:
    """Return " --trust" where a config names code that it needs for `resume`: that of the command line alone."""
    return " --trust" if find_strange(config.plain(), trusted_by()) else ""


def find_strange(stored: Mapping[str, Any], trusted: Trusted) -> list[tuple[str, str]]:
    """The keys of a stored config that name code which is not trusted, and what they name."""
    return [] if trusted is None else [(key, name) for key, name in _named(stored) if name not in trusted]


def _named(tree: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a config that name a class or function, at any depth, and what they name."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if isinstance(value, str):
                if key == "_target_" or (key in _HOOKS and "." in value):
                    yield f"{prefix}{key}", value
            else:
                yield from _named(value, f"{prefix}{key}.")
    elif isinstance(tree, (list, tuple)):
        for index, item in enumerate(tree):
            yield from _named(item, f"{prefix}{index}.")


def _read(file: Path) -> object:
    """A config file as plain data; what cannot be read names nothing."""
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None

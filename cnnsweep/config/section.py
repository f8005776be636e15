"""The base of the config's sections, and the replacing of keys in them at any depth."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict

Plain = dict[str, Any]
"""Plain nested data, as JSON and YAML have it."""


class Section(BaseModel):
    """A group of keys: frozen, and no key beside those that are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, coerce_numbers_to_str=True)

    def plain(self) -> Plain:
        """Return the section as plain nested data for JSON and YAML, with the keys of the config files."""
        return self.model_dump(by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some keys changed, unchecked."""
        return self.model_copy(update=changes)


def replaced(section: Section, changes: Plain) -> Section:
    """A section with changes as a tree; the keys of a list are the numbers of its blocks."""
    found, own = dict(changes), section.model_extra or {}
    for name, value in changes.items():
        if isinstance(value, dict):
            before = own[name] if name in own else getattr(section, name)
            if isinstance(before, Section):
                found[name] = replaced(before, value)
            elif isinstance(before, dict):
                found[name] = _merged(before, value)
            else:
                blocks = int(changes.get("blocks", getattr(section, "blocks", 0)))
                rest = before if isinstance(before, list) else [before]
                found[name] = [value.get(str(i), rest[min(i, len(rest)) - 1]) for i in range(1, blocks + 1)]
    return section.replace(**found)


def _merged(before: Plain, changes: Plain) -> Plain:
    """A tree of the user's own keys with changes as a tree."""
    both = {name for name, value in changes.items() if isinstance(value, dict) and isinstance(before.get(name), dict)}
    return {**before, **changes, **{name: _merged(before[name], changes[name]) for name in both}}

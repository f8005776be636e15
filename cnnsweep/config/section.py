"""The base class of the config's sections."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of keys: frozen, and no key beside those that are declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, coerce_numbers_to_str=True)

    def plain(self) -> dict[str, Any]:
        """Return the section as plain nested data for JSON and YAML, with the keys of the config files."""
        return self.model_dump(by_alias=True)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some keys changed, unchecked."""
        return self.model_copy(update=changes)

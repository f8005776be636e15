"""The `space` group of a config, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cnnsweep.config.compose import SEARCHABLE, flat
from cnnsweep.config.optimizers import GROUPS as SETTINGS
from cnnsweep.config.optimizers import check_used, names_of
from cnnsweep.config.schema import Config, check_value
from cnnsweep.errors import UserError, nearest_key
from cnnsweep.search_space.entries import ENTRY_KEYS, Entry, held, read_entry
from cnnsweep.search_space.space import Parameter, Space, Value

NAMES_OF_CODE = ("layers", "measure", "check", "prepare", "fit", "call", "hypermodel", "discover")
NOT_SEARCHABLE = {f"{group}.{name}" for group in ("job", "model") for name in NAMES_OF_CODE}


def parse_space(config: Config) -> Space:
    """Read the `space` group of a checked config. Raises `UserError` for the first fault."""
    keys = config.plain()
    fixed = dict(flat({group: keys[group] for group in ("job", "model", "training", "data")}))
    allowed = [key for key in fixed if key.startswith(SEARCHABLE) and not key.endswith("_target_")]
    allowed = [key for key in allowed if key not in NOT_SEARCHABLE]
    allowed += [f"training.{group}.{name}" for group in SETTINGS for name in names_of(group)]
    entries = dict(_entries(config.space))
    for name in entries:
        if name not in allowed:
            close = nearest_key(name, allowed) or f"; first add it, +{name}=VALUE" * name.startswith("job.")
            raise UserError(f"space.{name}: the config has no key '{name}' to search{close}")
    space = Space(tuple(_Reader(config, entries, fixed).parameters()))
    _check_values(config, space)
    _check_settings(config, space)
    return space


class _Reader:
    """The entries of a space, with the keys and values of the config around it."""

    def __init__(self, config: Config, entries: Mapping[str, Entry], fixed: Mapping[str, Any]) -> None:
        self.config, self.entries, self.fixed = config, entries, fixed
        self.per_block = {name for name, entry in entries.items() if entry.get("per_block")}
        self.parsed = {name: read_entry(config, name, entry, fixed.get(name)) for name, entry in entries.items()}
        self.blocks = self._max_blocks()
        self.when = {name: dict(self._read_when(name, entry.get("when", {}))) for name, entry in entries.items()}

    def parameters(self) -> Iterator[Parameter]:
        """Each parameter after those it depends on, else in the order given."""
        found: list[Parameter] = []
        for name, p in self.parsed.items():
            for index in range(1, self.blocks + 1) if name in self.per_block else (0,):
                when = self._conditions(name, index)
                if when is not None:
                    found.append(replace(p, name=f"{name}.{index}" if index else name, when=when))
        return _ordered(found)

    def _max_blocks(self) -> int:
        if not self.per_block:
            return 0
        if "model.blocks" not in self.fixed:
            raise UserError("space: per_block needs a model with a key `blocks`")
        if "model.blocks" in self.per_block:
            raise _one_for_all("model.blocks")
        if "model.blocks" not in self.entries:
            return int(self.fixed["model.blocks"])
        return max(_whole(self.parsed["model.blocks"]), default=0)

    def _read_when(self, name: str, conditions: object) -> Iterator[tuple[str, tuple[Value, ...]]]:
        """Each key that a `when` names, with the values under which the entry counts, as the config holds them."""
        where = f"space.{name}.when"
        if not isinstance(conditions, Mapping):
            raise UserError(f"{where}: expected {{key: [values]}}, got '{conditions}'")
        for other, allowed in conditions.items():
            if other not in self.fixed and other not in self.parsed:
                raise UserError(f"{where}: there is no key '{other}'{nearest_key(other, self.fixed)}")
            values = allowed if isinstance(allowed, (list, tuple)) else [allowed]
            if not values:
                raise UserError(f"{where}.{other}: names no value; without a condition leave it out")
            try:
                yield other, tuple(held(self.config, other, value) for value in values)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error

    def _conditions(self, name: str, index: int) -> tuple[tuple[str, tuple[Value, ...]], ...] | None:
        """The conditions of one parameter (of block `index`, 0: of all); None where a fixed key rules it out."""
        when: list[tuple[str, tuple[Value, ...]]] = []
        if index and "model.blocks" in self.parsed:
            counts = _whole(self.parsed["model.blocks"])
            enough = tuple(count for count in counts if count >= index)
            if len(enough) < len(counts):
                when.append(("model.blocks", enough))
        for other, allowed in self.when[name].items():
            if other in self.parsed:
                _check_when(f"space.{name}.when", self.parsed[other], allowed)
                if other in self.per_block and not index:
                    one = f"'{other}' has a value for each block; give {name} `per_block: true` too"
                    raise UserError(f"space.{name}.when: {one}")
                when.append((f"{other}.{index}" if other in self.per_block else other, allowed))
            elif not _fixed_allows(self.fixed[other], allowed, index):
                return None
        return (*when, *self._owners(name))

    def _owners(self, name: str) -> Iterator[tuple[str, tuple[Value, ...]]]:
        """The condition of a setting that not all optimizers, or schedules, have among which the search chooses."""
        _, _, rest = name.partition(".")
        group, _, setting = rest.partition(".")
        if group in SETTINGS:
            key, members = SETTINGS[group]
            searched = self.parsed.get(f"training.{key}")
            have = tuple(v for v in (searched.grid or ()) if setting in members.get(str(v), ())) if searched else ()
            if searched and len(have) < len(searched.grid or ()):
                yield searched.name, have


def _check_settings(config: Config, space: Space) -> None:
    """Raise for a setting that no optimizer, or schedule, of the space has."""
    for group, (key, _) in SETTINGS.items():
        plain, own = config.training.plain(), space.by_name.get(f"training.{key}")
        prefix = f"training.{group}."
        searched = [p.name.removeprefix(prefix) for p in space.parameters if p.name.startswith(prefix)]
        names = [str(value) for value in own.grid or ()] if own else [plain[key]]
        check_used(group, names, [*plain[group], *searched])


def _entries(tree: object, prefix: str = "") -> Iterator[tuple[str, Entry]]:
    """Each searched key with its description; null removes a key, or one of an entry's words."""
    if not isinstance(tree, Mapping):
        raise UserError(f"space.{prefix.rstrip('.')}: expected {{values: [...]}} or {{min: .., max: ..}}, got '{tree}'")
    for name, entry in tree.items():
        dotted = f"{prefix}{name}"
        if entry is None:
            continue
        # A group of keys may have one of such a name: {step: {min: 1, max: 5}}.
        if isinstance(entry, Mapping) and any(k in ENTRY_KEYS and not isinstance(v, Mapping) for k, v in entry.items()):
            yield dotted, {key: value for key, value in entry.items() if value is not None}
        elif entry == {}:
            raise UserError(f"space.{dotted}: is empty; give it {{values: [...]}} or {{min: .., max: ..}}, or null")
        else:
            yield from _entries(entry, f"{dotted}.")


def _whole(p: Parameter) -> list[int]:
    """Its whole numbers; others are refused when all values are checked."""
    return [value for value in p.grid or () if isinstance(value, int)]


def _check_when(where: str, other: Parameter, allowed: tuple[Value, ...]) -> None:
    """Raise where a condition on another searched key can never have been meant."""
    if other.grid is None:
        raise UserError(f"{where}: '{other.name}' is a continuous range; it must have values")
    words = {str(value).casefold(): value for value in other.grid}
    for value in allowed:
        kinds = {bool if isinstance(v, bool) else str if isinstance(v, str) else float for v in (value, other.grid[0])}
        same = words.get(str(value).casefold(), value)
        if len(kinds) > 1 or (isinstance(value, str) and value not in other.grid and same != value):
            close = f", did you mean '{same}'?" if same != value else ""
            raise UserError(f"{where}.{other.name}: '{value}' is none of its values{close} ({other.describe()})")


def _fixed_allows(value: Any, allowed: tuple[Value, ...], index: int) -> bool:
    if not isinstance(value, list):
        return value in allowed
    return value[index - 1] in allowed if 0 < index <= len(value) else any(v in allowed for v in value)


def _ordered(parameters: list[Parameter]) -> Iterator[Parameter]:
    """Each parameter after those it depends on, else in the order given, without those that depend on a missing one."""
    names = {p.name for p in parameters}
    waiting = [p for p in parameters if all(name in names for name, _ in p.when)]
    if len(waiting) < len(parameters):
        yield from _ordered(waiting)
        return
    while waiting:
        missing = {p.name for p in waiting}
        ready = next((p for p in waiting if not any(name in missing for name, _ in p.when)), None)
        if ready is None:
            raise UserError(f"space: the `when` of {', '.join(p.name for p in waiting)} form a circle")
        waiting.remove(ready)
        yield ready


def _check_values(config: Config, space: Space) -> None:
    """Put values into the config and check it: no drawn value can have a wrong type or be out of bounds later."""
    firsts: dict[str, Parameter] = {}
    for p in space.parameters:
        firsts.setdefault(p.key, p)
    for name, p in firsts.items():
        for value in extremes(p):
            try:
                check_value(config, name, value)
            except UserError as error:
                text = str(error)
                raise UserError(f"space.{text}" if text.startswith(name) else f"space.{name}: {text}") from error
        if p.block:
            try:
                check_value(config, name, [p.at(0)])
            except UserError as error:
                raise _one_for_all(name) from error


def extremes(p: Parameter) -> tuple[Value, ...]:
    """All words; of numbers, which are of one type, the ends and one between that is not whole."""
    if p.categorical:
        return p.choices or ()
    every = p.grid or (p.low, p.high, p.at(0.4))
    numbers = [value for value in every if isinstance(value, (int, float))]
    return (min(numbers), max(numbers), *[value for value in numbers if value % 1][:1])


def _one_for_all(name: str) -> UserError:
    return UserError(f"space.{name}.per_block: {name} is one for the whole network, not for each block")

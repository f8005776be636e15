"""The config of an application with `@hydra.main` under each option of its groups that is searched."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cnnsweep.config.compose import flat, quoted
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import short
from cnnsweep.errors import UserError, unknown
from cnnsweep.search_space.parsing import ENTRY_KEYS

Compose = Callable[[Sequence[str]], tuple[Plain, dict[str, str | None]]]
"""From overrides to the application's config and the options that are chosen in its groups."""

MOST_WORDS = 20


@dataclass(frozen=True)
class Variant:
    """The application's config with some overrides."""

    overrides: Sequence[str]
    config: Plain
    groups: Mapping[str, str | None]

    @cached_property
    def keys(self) -> frozenset[str]:
        """As they stand below `job`."""
        return frozenset((*(f"config.{key}" for key, _ in flat(self.config)), *(f"groups.{n}" for n in self.groups)))


Variants = Mapping[tuple[str, str], Variant]
"""By a group and its option; the empty names without a group that is searched."""


def variants(compose: Compose, overrides: Sequence[str], searched: Mapping[str, object]) -> Variants:
    """The config with each option of the searched groups; a group that another's option brings, with that option.

    Raises UserError where the application has no such group or option.
    """
    left = {group: entry for group, entry in searched.items() if entry is not None}
    base = _composed(compose, overrides, searched)
    found: dict[tuple[str, str], Variant] = {}
    while left:
        every = [base, *found.values()]
        group, holder = next(((n, each) for n in left for each in every if n in each.groups), ("", base))
        if not group:
            raise unknown("group of the application", next(iter(left)), {n: 0 for each in every for n in each.groups})
        for option in _options(group, left.pop(group)):
            found[group, option] = _composed(compose, [*holder.overrides, f"{group}={option}"], searched)
    return found or {("", ""): base}


def _composed(compose: Compose, overrides: Sequence[str], searched: Mapping[str, object]) -> Variant:
    """The config with some overrides, and with the first option of a group that has none without a choice."""
    from hydra.errors import ConfigCompositionException

    try:
        return Variant(overrides, *compose(overrides))
    except ConfigCompositionException as error:
        missing = re.match(r"You must specify '([^']+)'", str(error))
        if not missing or missing[1] not in searched or any(o.startswith(f"{missing[1]}=") for o in overrides):
            raise
        first = _options(missing[1], searched[missing[1]])[0]
        return _composed(compose, [*overrides, f"{missing[1]}={first}"], searched)


def _options(group: str, entry: object) -> list[str]:
    """The options of a group that are searched. Raises UserError where there is no such option."""
    from hydra.core.global_hydra import GlobalHydra

    known = GlobalHydra.instance().config_loader().get_group_options(group.partition("@")[0])
    values = entry["values"] if isinstance(entry, Mapping) and set(entry) == {"values"} else None
    if not isinstance(values, list):
        raise UserError(f"space.job.groups.{group}: expected {{values: [{', '.join(known)}]}}, got '{short(entry)}'")
    for value in values:
        if value not in known:
            raise unknown(f"option of the application's group {group}", value, known)
    return values


def give(
    compose: Compose, found: Variants, given: Mapping[str, object]
) -> tuple[list[str], Variants, dict[str, Plain]]:
    """Give values to keys: by overrides where a key is there under all options, else by an entry of a space.

    Returns these overrides, the variants with all of the values, and these entries.
    """
    always, entries = [], {}
    for name, value in given.items():
        if when := conditions(f"config.{name}", found):
            entries[f"config.{name}"] = {"values": [value], "when": when}
        else:
            always.append(f"{name}={override_value(value)}")
    done: dict[tuple[str, str], Variant] = {}
    for place, each in found.items():
        own = [
            f"{name}={override_value(given[name])}" for name in given if f"config.{name}" in entries.keys() & each.keys
        ]
        done[place] = Variant(each.overrides, *compose([*each.overrides, *always, *own]))
    return always, done, entries


def try_values(compose: Compose, found: Variants, entries: Mapping[str, object]) -> None:
    """Compose the config with the ends of what is searched: a typed one takes no other kinds of values."""
    searched = {name: _entry(entries, name) for name in searched_names(entries)}
    for variant in found.values():
        tried = {name: _ends(entry) for name, entry in searched.items() if f"config.{name}" in variant.keys}
        for row in range(max(map(len, tried.values()), default=0)):
            own = [f"{name}={override_value(ends[row])}" for name, ends in tried.items() if row < len(ends)]
            compose([*variant.overrides, *own])


def _entry(entries: Mapping[str, object], name: str) -> object:
    found: object = entries
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _ends(entry: object) -> Sequence[object]:
    """Some words of an entry, or its smallest and largest number and one between, all of one type as in a trial.

    >>> _ends({"values": [2, 1.5]}), _ends({"min": 1, "max": 6, "log": True}), _ends({"values": ["a", "b"]})
    ([1.5, 2.0, 1.7], [1, 6], ['a', 'b'])
    """
    given = entry if isinstance(entry, Mapping) else {}
    values = given.get("values", [given.get("min"), given.get("max")])
    if not isinstance(values, list):
        return []
    if not all(type(value) in (int, float) for value in values):
        return [value for value in values if isinstance(value, str)][:MOST_WORDS]
    low, high = min(values), max(values)
    if all(type(value) is int for value in values):
        return [low, high]
    return [float(low), float(high), low + 0.4 * (high - low)]


def conditions(key: str, found: Variants) -> dict[str, list[str]]:
    """The options under which a key is there, of the groups in which it is not there under all."""
    options: dict[str, list[str]] = {}
    for group, option in found:
        options.setdefault(group, []).append(option)
    have = {group: [o for o in each if key in found[group, o].keys] for group, each in options.items()}
    return {f"job.groups.{group}": some for group, some in have.items() if 0 < len(some) < len(options[group])}


def searched_names(entries: Mapping[str, object]) -> list[str]:
    """The keys of a space's entries.

    >>> searched_names({"model": {"C": {"min": 1, "max": 9, "when": {"job.groups.model": ["svm"]}}}, "steps": None})
    ['model.C', 'steps']
    """
    ends = re.compile(rf"\.(?:{'|'.join(ENTRY_KEYS)})(?:\.|$)")
    return [*dict.fromkeys(ends.split(name)[0] for name, _ in flat(entries))]


def common(trees: Sequence[Mapping[str, object]], kept: Collection[str], prefix: str = "") -> Plain:
    """What trees have in common, and the keys that are kept, with the value of the first that has them.

    >>> common([{"kind": "svm", "C": 1, "seed": 0}, {"kind": "forest", "seed": 0}], ["C"])
    {'C': 1, 'seed': 0}
    """
    found: Plain = {}
    for name in dict.fromkeys(name for tree in trees for name in tree):
        values, key = [tree[name] for tree in trees if name in tree], f"{prefix}{name}"
        same = len(values) == len(trees) and all(value == values[0] for value in values)
        groups = [value for value in values if isinstance(value, dict)]
        if same or key in kept:
            found[name] = values[0]
        elif groups and (inner := common([*groups, *({} for _ in range(len(trees) - len(groups)))], kept, f"{key}.")):
            found[name] = inner
    return found


def override_value(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list():
            return f"[{','.join(map(override_value, value))}]"
        case dict():
            return f"{{{','.join(f'{name}:{override_value(each)}' for name, each in value.items())}}}"
    return repr(value)


def known(found: Variants, names: Iterable[str]) -> Collection[str]:
    """The names, or where one is of no key all keys, so that an error can name the nearest."""
    every = {key.removeprefix("config.") for each in found.values() for key in each.keys if key.startswith("config.")}
    names = [*names]
    return names if all(any(f"{key}.".startswith(f"{n}.") for key in every) for n in names) else every

"""The entries of the `space` group: the description of one key each."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsweep.config.schema import Config, check_value
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import KEY_RULE, is_key
from cnnsweep.errors import UserError, nearest
from cnnsweep.search_space.space import Parameter, Value

ENTRY_KEYS = ("values", "min", "max", "log", "step", "per_block", "when")
MAX_VALUES = 100_000
"""Of a range."""
Entry = Plain
"""The description of one key: {values: [16, 32], per_block: true}."""


def read_entry(config: Config, name: str, entry: Entry, current: object) -> Parameter:
    """The parameter that an entry describes, with its values as the config holds them.

    A key holds fractions by its type, or, where it has none, by its `current` value. Raises `UserError`; values that
    the key cannot have are found when all are checked.
    """
    if not is_key(name):
        raise UserError(f"space.{name}: MLflow takes no param with this name ({KEY_RULE})")
    for key in entry:
        if key not in ENTRY_KEYS:
            one_of = ", ".join(ENTRY_KEYS)
            raise UserError(f"space.{name}: unknown '{key}'{nearest(key, ENTRY_KEYS)} (one of: {one_of})")
    for key in ("per_block", "log"):
        if not isinstance(entry.get(key, False), bool):
            raise UserError(f"space.{name}.{key}: '{entry[key]}' (true or false)")
    if "values" not in entry:
        return _range(config, name, entry, current)
    for word in ("min", "max", "step", "log"):
        if entry.get(word, False) is not False:
            raise UserError(f"space.{name}: has both values and {word}; leave out one of them (null removes a key)")
    choices = _choices(name, entry["values"])
    try:
        as_held = [held(config, name, value) for value in choices]
    except UserError:
        as_held = list(choices)
    return Parameter(name, choices=_of_one_kind(name, as_held))


def _range(config: Config, name: str, entry: Entry, current: object) -> Parameter:
    for key in ("min", "max"):
        if not _is_number(entry.get(key)):
            raise UserError(f"space.{name}.{key}: needs a number, got '{entry.get(key)}'")
    low, high, step, log = entry["min"], entry["max"], entry.get("step"), entry.get("log", False)
    if low >= high:
        raise UserError(f"space.{name}: min {low} is not below max {high}")
    if log and low <= 0:
        raise UserError(f"space.{name}: a log range cannot start at {low}; min must be above 0")
    if step is not None and not (_is_number(step) and 0 < step <= high - low):
        raise UserError(f"space.{name}.step: '{step}' (a number above 0 and at most {high - low:g})")
    integer = _is_whole(config, name, (low, high), current) and (step or 1) % 1 == 0
    if integer:
        low, high, step = int(low), int(high), step and int(step)
    if (integer or step is not None) and (high - low) / (step or 1) >= MAX_VALUES:
        raise UserError(f"space.{name}: {low} to {high} has more than {MAX_VALUES:,} values; give it a larger `step`")
    return Parameter(name, None, low, high, step, log, integer)


def _is_whole(config: Config, name: str, ends: Sequence[float], current: object) -> bool:
    """True where a range has whole numbers alone, as the key has, and not fractions between whole ends."""
    try:
        as_held = [check_value(config, name, end) for end in ends]
    except UserError:
        as_held = list(ends)
    return all(isinstance(end, int) for end in as_held) and not isinstance(current, float)


def _choices(name: str, values: object) -> tuple[Value, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"space.{name}.values: needs a list with at least one value, got '{values}'")
    if not all(isinstance(value, (str, bool)) or _is_number(value) for value in values):
        raise UserError(f"space.{name}.values: holds '{values}'; each must be a number, a word, true or false")
    if {type(value) for value in values} == {int, float}:
        values = [float(value) for value in values]
    return _of_one_kind(name, values)


def _of_one_kind(name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        words = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(f"space.{name}.values: {values} mixes {words}; use one kind")
    if len(set(values)) < len(values):
        raise UserError(f"space.{name}.values: {values} holds a value twice")
    return tuple(values)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def held(config: Config, name: str, value: Value) -> Value:
    """A value as the config holds it, but for whole numbers, which may stand where it holds fractions."""
    found = check_value(config, name, value)
    return found if isinstance(found, (str, bool, int, float)) and not isinstance(value, int) else value

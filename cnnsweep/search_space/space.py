"""The searched part of the config: which keys may vary, how, and when; drawing from it uniformly."""

from __future__ import annotations

import copy
import itertools
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from cnnsweep.config.compose import check_component, check_training, flat
from cnnsweep.errors import UserError, nearest

Values = dict[str, Any]
SEARCHABLE = ("model.", "training.", "data.augment.")
RANGE_KEYS = ("values", "min", "max", "log", "step", "per_block", "when")
LONGEST = 100_000
"""So many values a range may have."""
_INACTIVE = object()


@dataclass(frozen=True)
class Parameter:
    """One searched key: either `choices`, or a range from `low` to `high`, both included."""

    name: str
    choices: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """Active only while each of these other parameters has one of these values."""

    @cached_property
    def grid(self) -> tuple[Any, ...] | None:
        """All its values, or None where it is continuous."""
        if self.choices is not None:
            return self.choices
        if self.step is None and not self.integer:
            return None
        if self.integer:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(float(round(self.low + i * step, 12)) for i in range(count))

    def at(self, quantile: float) -> Any:
        """The value at a quantile in [0, 1) of its distribution: uniform, or log-uniform where `log` is set."""
        if self.grid is not None and not self.log:
            return self.grid[min(int(quantile * len(self.grid)), len(self.grid) - 1)]
        if not self.log:
            return self.low + quantile * (self.high - self.low)
        value = math.exp(math.log(self.low) + quantile * (math.log(self.high) - math.log(self.low)))
        if self.grid is None:
            return value
        above = min(bisect(self.grid, value), len(self.grid) - 1)
        return min(self.grid[max(0, above - 1) : above + 1], key=lambda v: abs(math.log(v / value)))

    def quantile(self, value: Any) -> float:
        """The inverse of `at`, in [0, 1]; the middle of its interval for a value of a grid."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        if self.grid is not None:
            return (self.grid.index(value) + 0.5) / len(self.grid)
        return (value - self.low) / (self.high - self.low)

    def allows(self, value: Any) -> bool:
        if self.grid is not None:
            return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.grid)
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def typed(self, value: Any) -> Any:
        """The space's own spelling of a value that it allows: 1 is 1.0 where the key holds fractions."""
        return float(value) if self.grid is None else next(v for v in self.grid if v == value)

    def describe(self) -> str:
        """What is allowed, in words: "one of 16, 32" or "0.0001 to 0.01, log"."""
        if self.choices is not None:
            return f"one of {', '.join(str(c) for c in self.choices)}"
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Branch:
    """A parameter that others depend on, with what each of its values leads to."""

    parameter: Parameter
    values: tuple[Any, ...]
    factors: tuple[Factors, ...]
    ends: tuple[int, ...]
    """The running total of the number of configurations under each value."""


Factors = tuple[Parameter | Branch, ...]
"""Independent of each other: the numbers of their configurations multiply."""


@dataclass(frozen=True)
class Space:
    """The searched parameters, each after those that its `when` names."""

    parameters: tuple[Parameter, ...]

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        return {p.name: p for p in self.parameters}

    def active(self, values: Mapping[str, Any]) -> list[Parameter]:
        """The parameters that count under these values of the parameters that others depend on."""
        on: list[Parameter] = []
        names: set[str] = set()
        for p in self.parameters:
            if all(name in names and values[name] in allowed for name, allowed in p.when):
                on.append(p)
                names.add(p.name)
        return on

    @cached_property
    def factors(self) -> Factors:
        """The space as a tree: what is independent stands side by side, what depends on a value stands under it."""
        return _factors(self.parameters, {})

    @cached_property
    def size(self) -> int:
        """How many configurations there are, continuous parameters counted as one value; inactive ones not at all."""
        return _count(self.factors)

    @cached_property
    def continuous(self) -> bool:
        return any(p.grid is None for p in self.parameters)

    def draw(self, rng: np.random.Generator) -> Values:
        """Draw active values, uniformly over all configurations (log-uniformly where a range says so)."""
        drawn: Values = {}
        _draw(self.factors, rng, drawn)
        return {p.name: drawn[p.name] for p in self.parameters if p.name in drawn}

    def enumerate(self) -> Iterator[Values]:
        """Every configuration, the last parameter varying fastest. Continuous parameters raise `UserError`."""
        for p in self.parameters:
            if p.grid is None:
                raise UserError(f"space.{p.name}: a continuous range has no grid; give it `values` or a `step`")
        yield from self._enumerate({}, 0)

    def _enumerate(self, values: Values, index: int) -> Iterator[Values]:
        if index == len(self.parameters):
            yield dict(values)
            return
        p = self.parameters[index]
        if not all(name in values and values[name] in allowed for name, allowed in p.when):
            yield from self._enumerate(values, index + 1)
            return
        for value in p.grid or ():
            yield from self._enumerate({**values, p.name: value}, index + 1)

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Raise `UserError` where values are not a configuration of this space."""
        for name, value in values.items():
            if name not in self.by_name:
                raise UserError(f"'{name}' is not searched{nearest(name, self.by_name)}")
            if not self.by_name[name].allows(value):
                raise UserError(f"{name}: {value} is outside the space ({self.by_name[name].describe()})")


def _factors(parameters: Sequence[Parameter], given: Values) -> Factors:
    """Split what is left, once the values `given` are chosen (inactive parameters have none)."""
    found: list[Parameter | Branch] = []
    for first, *rest in _independent(parameters, given):
        if not all(given[name] in allowed for name, allowed in first.when):
            found += _factors(rest, {**given, first.name: _INACTIVE})
        elif not rest:
            found.append(first)
        else:
            under = tuple(_factors(rest, {**given, first.name: value}) for value in first.grid or ())
            ends = itertools.accumulate(_count(factors) for factors in under)
            found.append(Branch(first, first.grid or (), under, tuple(ends)))
    return tuple(found)


def _independent(parameters: Sequence[Parameter], given: Values) -> list[list[Parameter]]:
    """Group parameters that depend on each other through one that is not given; each group keeps the order."""
    groups: list[list[Parameter]] = []
    for p in parameters:
        needed = {name for name, _ in p.when if name not in given}
        linked = [g for g in groups if any(q.name in needed for q in g)] if needed else []
        groups = [g for g in groups if g not in linked] if linked else groups
        groups.append([*itertools.chain(*linked), p])
    return groups


def _count(factors: Factors) -> int:
    return math.prod(f.ends[-1] if isinstance(f, Branch) else len(f.grid or (None,)) for f in factors)


def _draw(factors: Factors, rng: np.random.Generator, drawn: Values) -> None:
    for factor in factors:
        if isinstance(factor, Branch):
            # In integers: a large space has more configurations than a float can count.
            index = bisect(factor.ends, int(rng.random() * 2**53) * factor.ends[-1] >> 53)
            drawn[factor.parameter.name] = factor.values[index]
            _draw(factor.factors[index], rng, drawn)
        else:
            drawn[factor.name] = factor.at(rng.random())


def is_word(p: Parameter) -> bool:
    """Whether its values have no order: words, or true and false."""
    return p.choices is not None and isinstance(p.choices[0], (str, bool))


def apply(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the config with the values put in; `model.filters.2` is block 2's entry of a list.

    >>> base = {"model": {"blocks": 1, "filters": 8}}
    >>> apply(base, {"model.blocks": 2, "model.filters.1": 16, "model.filters.2": 32})["model"]["filters"]
    [16, 32]
    """
    result = copy.deepcopy(dict(config))
    lists: dict[str, dict[int, Any]] = {}
    for name, value in values.items():
        head, _, tail = name.rpartition(".")
        if tail.isdigit():
            lists.setdefault(head, {})[int(tail)] = value
        else:
            _put(result, name, value)
    for name, entries in lists.items():
        base = _get(result, name)
        count = int(result["model"]["blocks"])
        _put(
            result,
            name,
            [
                entries.get(i, base[min(i, len(base)) - 1] if isinstance(base, list) else base)
                for i in range(1, count + 1)
            ],
        )
    return result


def read(config: Mapping[str, Any]) -> Space:
    """Read the `space` group of a checked config. Raises `UserError` for the first fault."""
    fixed = dict(flat({k: config[k] for k in ("model", "training", "data")}))
    found: dict[str, Mapping[str, Any]] = dict(_leaves(config["space"]))
    for name in found:
        allowed = [k for k in fixed if k.startswith(SEARCHABLE) and not k.endswith(("_target_", "model.layers"))]
        if name not in allowed:
            raise UserError(f"space.{name}: the config has no key '{name}' to search{nearest(name, allowed)}")
    blocks = _block_count(found, config)
    parsed = {name: _parameter(name, entry) for name, entry in found.items()}
    per_block = {n for n, entry in found.items() if entry.get("per_block")}
    parameters: list[Parameter] = []
    for name, entry in found.items():
        for index in range(1, blocks + 1) if name in per_block else [None]:
            when = _conditions(name, entry, index, parsed, per_block, fixed)
            if when is not None:
                parameters.append(replace(parsed[name], name=f"{name}.{index}" if index else name, when=when))
    space = Space(tuple(_ordered(_possible(parameters))))
    _check_each(config, space)
    return space


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(tree, Mapping):
        raise UserError(f"space.{prefix.rstrip('.')}: expected {{values: [...]}} or {{min: .., max: ..}}, got '{tree}'")
    for name, entry in tree.items():
        dotted = f"{prefix}{name}"
        if entry is None:
            continue
        if isinstance(entry, Mapping) and any(k in RANGE_KEYS for k in entry):
            yield dotted, {k: v for k, v in entry.items() if v is not None}
        elif isinstance(entry, Mapping) and not entry:
            raise UserError(f"space.{dotted}: is empty; give it {{values: [...]}} or {{min: .., max: ..}}, or null")
        else:
            yield from _leaves(entry, f"{dotted}.")


def _parameter(name: str, entry: Mapping[str, Any]) -> Parameter:
    for word in entry:
        if word not in RANGE_KEYS:
            one_of = ", ".join(RANGE_KEYS)
            raise UserError(f"space.{name}: unknown '{word}'{nearest(word, RANGE_KEYS)} (one of: {one_of})")
    if not isinstance(entry.get("per_block", False), bool):
        raise UserError(f"space.{name}.per_block: '{entry['per_block']}' (true or false)")
    if "values" in entry:
        if "min" in entry or "max" in entry:
            raise UserError(f"space.{name}: has both values and min/max; give one of them (null removes a key)")
        return Parameter(name, choices=_choices(name, entry["values"]))
    for word in ("min", "max"):
        value = entry.get(word)
        if not _is_number(value):
            raise UserError(f"space.{name}.{word}: needs a number, got '{value}'")
    low, high, step, log = entry["min"], entry["max"], entry.get("step"), entry.get("log", False)
    if low >= high:
        raise UserError(f"space.{name}: min {low} is not below max {high}")
    if not isinstance(log, bool):
        raise UserError(f"space.{name}.log: '{log}' (true or false)")
    if log and low <= 0:
        raise UserError(f"space.{name}: a log range cannot start at {low}; min must be above 0")
    if step is not None and not (_is_number(step) and 0 < step <= high - low):
        raise UserError(f"space.{name}.step: '{step}' (a number above 0 and at most {high - low:g})")
    integer = all(isinstance(v, int) for v in (low, high, step if step is not None else 1))
    if (integer or step is not None) and (high - low) / (step or 1) >= LONGEST:
        raise UserError(f"space.{name}: {low} to {high} has more than {LONGEST:,} values; give it a larger `step`")
    return Parameter(name, None, low, high, step, log, integer)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _choices(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"space.{name}.values: needs a list with at least one value, got '{values}'")
    if not all(isinstance(v, (str, bool)) or _is_number(v) for v in values):
        raise UserError(f"space.{name}.values: holds '{values}'; each must be a number, a word, true or false")
    if any(isinstance(v, float) for v in values) and all(type(v) in (int, float) for v in values):
        values = [float(v) for v in values]
    kinds = {type(v).__name__ for v in values}
    if len(kinds) > 1:
        raise UserError(f"space.{name}.values: {values} mixes {' and '.join(sorted(kinds))}; use one kind")
    if len(set(values)) < len(values):
        raise UserError(f"space.{name}.values: {values} holds a value twice")
    return tuple(values)


def _block_count(found: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]) -> int:
    if not any(entry.get("per_block") for entry in found.values()):
        return 0
    if "blocks" not in config["model"]:
        raise UserError("space: per_block needs a model with a key `blocks`")
    blocks = found.get("model.blocks")
    if blocks and blocks.get("per_block"):
        raise _one_for_all("model.blocks")
    return int(max(_parameter("model.blocks", blocks).grid or (0,))) if blocks else int(config["model"]["blocks"])


def _conditions(
    name: str,
    entry: Mapping[str, Any],
    index: int | None,
    parsed: Mapping[str, Parameter],
    per_block: set[str],
    fixed: Mapping[str, Any],
) -> tuple[tuple[str, tuple[Any, ...]], ...] | None:
    """The conditions of one parameter; None where what is fixed rules it out for good."""
    when: list[tuple[str, tuple[Any, ...]]] = []
    if index and "model.blocks" in parsed:
        counts = parsed["model.blocks"].grid or ()
        enough = tuple(b for b in counts if b >= index)
        if len(enough) < len(counts):
            when.append(("model.blocks", enough))
    for other, allowed in _mapping(f"space.{name}.when", entry.get("when", {})).items():
        allowed = tuple(allowed) if isinstance(allowed, (list, tuple)) else (allowed,)
        if other in parsed and parsed[other].grid is None:
            raise UserError(f"space.{name}.when: '{other}' is a continuous range; only keys with values will do")
        if other in per_block:
            if index:
                when.append((f"{other}.{index}", allowed))
        elif other in parsed:
            when.append((other, allowed))
        elif other not in fixed:
            raise UserError(f"space.{name}.when: there is no key '{other}'{nearest(other, fixed)}")
        elif not _fixed_allows(fixed[other], allowed, index):
            return None
    return tuple(when)


def _fixed_allows(value: Any, allowed: tuple[Any, ...], index: int | None) -> bool:
    if not isinstance(value, list):
        return value in allowed
    return value[index - 1] in allowed if index and index <= len(value) else any(v in allowed for v in value)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: expected {{key: [values]}}, got '{value}'")
    return value


def _possible(parameters: list[Parameter]) -> list[Parameter]:
    """Leave out what depends on a parameter that was ruled out for good."""
    names = {p.name for p in parameters}
    kept = [p for p in parameters if all(name in names for name, _ in p.when)]
    return kept if len(kept) == len(parameters) else _possible(kept)


def _ordered(parameters: list[Parameter]) -> Iterator[Parameter]:
    """Each parameter after those it depends on, else in the order given."""
    placed: set[str] = set()
    waiting = list(parameters)
    while waiting:
        ready = next((p for p in waiting if all(n in placed for n, _ in p.when)), None)
        if ready is None:
            raise UserError(f"space: the `when` of {', '.join(p.name for p in waiting)} form a circle")
        waiting.remove(ready)
        placed.add(ready.name)
        yield ready


def _check_each(config: Mapping[str, Any], space: Space) -> None:
    """Put values into the config and check it: later none can have a wrong type or be out of bounds."""
    checked: set[str] = set()
    for p in space.parameters:
        head, _, tail = p.name.rpartition(".")
        name = head if tail.isdigit() else p.name
        if name in checked:
            continue
        checked.add(name)
        for value in _extremes(p):
            _check_value(config, name, value)
        if name == head:
            try:
                _check_value(config, name, [p.at(0)])
            except UserError as error:
                raise _one_for_all(name) from error


def _extremes(p: Parameter) -> tuple[Any, ...]:
    """All words; of numbers, which are of one type, the ends."""
    if p.choices is None:
        return (p.low, p.high)
    return p.choices if isinstance(p.choices[0], (str, bool)) else (min(p.choices), max(p.choices))


def _check_value(config: Mapping[str, Any], name: str, value: Any) -> None:
    group = name.partition(".")[0]
    changed = {group: copy.deepcopy(config[group])}
    _put(changed, name, value)
    try:
        check_training(changed[group]) if group == "training" else check_component(group, changed[group])
    except UserError as error:
        text = str(error)
        raise UserError(f"space.{text}" if text.startswith(name) else f"space.{name}: {text}") from error


def _one_for_all(name: str) -> UserError:
    return UserError(f"space.{name}.per_block: {name} is one for the whole network, not for each block")


def _get(tree: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        tree = tree[part]
    return tree


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for part in parents:
        tree = tree[part]
    tree[last] = value

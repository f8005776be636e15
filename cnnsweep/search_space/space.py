"""The search space: which keys of the config may vary, how, and when."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cnnsweep.errors import UserError

Value = str | bool | int | float
Values = dict[str, Any]
"""Searched keys and their values: {"model.filters.1": 32}; a key that is inactive is absent."""
_INACTIVE = object()


@dataclass(frozen=True)
class Parameter:
    """One searched key: either `choices`, or a range from `low` to `high`, both included."""

    name: str
    choices: tuple[Value, ...] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Active only while each of these other parameters has one of these values."""

    @property
    def key(self) -> str:
        """The config key: the name without the block's number."""
        return self.name if self.block is None else self.name.rpartition(".")[0]

    @cached_property
    def block(self) -> int | None:
        """The number of the block, from 1; None for a parameter of the whole network."""
        tail = self.name.rpartition(".")[2]
        return int(tail) if tail.isdigit() else None

    @cached_property
    def grid(self) -> tuple[Value, ...] | None:
        """All its values, or None where it is continuous."""
        return self._steps if self.choices is None else self.choices

    @cached_property
    def _ranked(self) -> tuple[Value, ...] | None:
        """All its values, numbers from the least to the largest."""
        return self.grid if self.grid is None or self.categorical else tuple(sorted(self.grid))

    @cached_property
    def _steps(self) -> tuple[float, ...] | None:
        if self.integer:
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        digits = 12 - math.floor(math.log10(self.step))
        steps = (round(self.low + i * self.step, digits) for i in range(count))  # 0.1 + 0.2 is 0.3
        return tuple(float(f"{value:.15g}") + 0.0 for value in steps)  # -0.0 + 0.0 is 0.0

    @property
    def categorical(self) -> bool:
        """True where its values have no order: words, or true and false."""
        return self.choices is not None and isinstance(self.choices[0], (str, bool))

    def at(self, quantile: float) -> Any:
        """The value at a quantile in [0, 1) of its distribution: uniform, or log-uniform where `log` is set."""
        if self.log:
            value = math.exp(math.log(self.low) + quantile * (math.log(self.high) - math.log(self.low)))
            if self._steps is None:
                return self._inside(value)
            above = min(bisect(self._steps, value), len(self._steps) - 1)
            return min(self._steps[max(0, above - 1) : above + 1], key=lambda v: abs(math.log(v / value)))
        if self._ranked is None:
            return self._inside(self.low + quantile * (self.high - self.low))
        return self._ranked[min(int(quantile * len(self._ranked)), len(self._ranked) - 1)]

    def _inside(self, value: float) -> float:
        """The value without the last digit by which rounding may have put it outside the range."""
        return float(min(max(value, self.low), self.high))

    def quantile(self, value: Any) -> float:
        """The inverse of `at`, in [0, 1]; the middle of its interval for a value of a grid."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        if self._ranked is not None:
            return (self._ranked.index(value) + 0.5) / len(self._ranked)
        return float((value - self.low) / (self.high - self.low))

    def allows(self, value: object) -> bool:
        """True for one of its values; 1 and 1.0 are one value, 1 and true are two."""
        if self.grid is not None:
            return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.grid)
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def typed(self, value: Any) -> Value:
        """The space's own form of a value that it allows: 1 is 1.0 where the key holds fractions."""
        return float(value) if self.grid is None else next(v for v in self.grid if v == value)

    def describe(self) -> str:
        """The values in words: "one of 16, 32" or "0.0001 to 0.01, log"."""
        if self.choices is not None:
            return f"one of {', '.join(str(c) for c in self.choices)}"
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Branch:
    """A parameter that others depend on."""

    parameter: Parameter
    factors: tuple[Factors, ...]
    """For each of its values the parameters that depend on it."""
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
        """The parameters that count under these values; a parameter without a value rules out no other."""
        on: dict[str, Parameter] = {}
        for p in self.parameters:
            if all(n in on and (n not in values or values[n] in allowed) for n, allowed in p.when):
                on[p.name] = p
        return list(on.values())

    def ordered(self, values: Mapping[str, Any]) -> Values:
        """The values in the order of the parameters."""
        return {p.name: values[p.name] for p in self.parameters if p.name in values}

    @cached_property
    def factors(self) -> Factors:
        """The space as a tree: independent parameters stand side by side, dependent ones under each value."""
        return _factors(self.parameters, {})

    @cached_property
    def size(self) -> int:
        """The number of configurations; a continuous parameter counts as one value, an inactive one not at all."""
        return _count(self.factors)

    @cached_property
    def continuous(self) -> bool:
        return any(p.grid is None for p in self.parameters)

    def draw(self, rng: np.random.Generator) -> Values:
        """Draw each key uniformly from its values (log-uniformly where a range says so), then those that depend on it.

        So each number of blocks is as likely as any other, although most configurations have the most blocks.
        """
        return self.ordered(dict(_draw(self.factors, rng, evenly=False)))

    def draw_evenly(self, rng: np.random.Generator) -> Values:
        """Draw uniformly over all configurations: most of them have the most blocks."""
        return self.ordered(dict(_draw(self.factors, rng, evenly=True)))

    def preference(self, values: Values) -> float:
        """How much likelier `draw` is to choose a configuration than `draw_evenly`, as far as `values` say which."""
        return _preference(self.factors, values)

    def enumerate(self) -> Iterator[Values]:
        """Every configuration, the last parameter varying fastest. Continuous parameters raise `UserError`."""
        for p in self.parameters:
            if p.grid is None:
                raise UserError(f"space.{p.name}: a continuous range has no grid; give it `values` or a `step`")
        return combinations(self.parameters)


def combinations(parameters: Sequence[Parameter]) -> Iterator[Values]:
    """Every assignment of these parameters, of which a continuous one has none, without inactive ones.

    A condition on a parameter that is not among them is taken to hold.
    """
    return _extend(tuple(parameters), {p.name for p in parameters}, {})


def _extend(parameters: Sequence[Parameter], names: set[str], values: Values) -> Iterator[Values]:
    if not parameters:
        yield values
        return
    p, *rest = parameters
    if all(name in values and values[name] in allowed for name, allowed in p.when if name in names):
        for value in p.grid or ():
            yield from _extend(rest, names, {**values, p.name: value})
    else:
        yield from _extend(rest, names, values)


def _factors(parameters: Sequence[Parameter], given: Values) -> Factors:
    """Split the other parameters, once the values `given` are chosen (inactive parameters have none)."""
    found: list[Parameter | Branch] = []
    for first, *rest in _independent(parameters, given):
        if not all(given[name] in allowed for name, allowed in first.when):
            found += _factors(rest, {**given, first.name: _INACTIVE})
        elif not rest:
            found.append(first)
        else:
            under = tuple(_factors(rest, {**given, first.name: value}) for value in first.grid or ())
            found.append(Branch(first, under, tuple(itertools.accumulate(map(_count, under)))))
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


def _draw(factors: Factors, rng: np.random.Generator, evenly: bool) -> Iterator[tuple[str, Value]]:
    for factor in factors:
        if isinstance(factor, Branch):
            # In integers: a large space has more configurations than a float can count.
            ends = factor.ends if evenly else range(1, len(factor.ends) + 1)
            index = bisect(ends, int(rng.random() * 2**53) * ends[-1] >> 53)
            yield factor.parameter.name, (factor.parameter.grid or ())[index]
            yield from _draw(factor.factors[index], rng, evenly)
        else:
            yield factor.name, factor.at(rng.random())


def _preference(factors: Factors, values: Values) -> float:
    found = 1.0
    for branch in factors:
        if isinstance(branch, Branch) and branch.parameter.name in values:
            index = (branch.parameter.grid or ()).index(values[branch.parameter.name])
            under = branch.factors[index]
            found *= branch.ends[-1] / (len(branch.ends) * _count(under)) * _preference(under, values)
    return found

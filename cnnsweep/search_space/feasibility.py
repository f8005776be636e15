"""Whether a space holds anything to train; where not, which constraint rules everything out, told before training."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Network
from cnnsweep.search_space.counting import COLUMNS, Lattice, TooLarge, lattice
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values

LOOKS = 300
MOST = 20_000
VALUES = 100
NOUNS = {"parameters": "parameters", "mmacs": "million multiply-adds", "activation_mb": "MB of activations"}


def check(problem: Problem) -> None:
    """Raise `UserError` for a value that no network can have, and where no configuration meets the limits.

    Costs milliseconds where some do; a few seconds where that has to be found out by counting.
    """
    rng = np.random.default_rng(0)
    _check_values(problem, rng)
    faults: Counter[str] = Counter()
    for tried in range(1, MOST + 1):
        fault = problem.judge(problem.space.draw(rng)).fault
        if fault is None:
            return
        faults[fault] += 1
        if tried == LOOKS:
            try:
                found = lattice(problem)
            except TooLarge:
                found = None
            if found is not None and found.valid:
                return
            if found is not None:
                raise UserError(_why(problem, faults.most_common(1)[0][0]))
    example = next((f for f in faults if f.startswith("limits.")), faults.most_common(1)[0][0])
    raise UserError(f"none of {MOST:,} configurations drawn from the space is valid, for example {example}")


def _check_values(problem: Problem, rng: np.random.Generator) -> None:
    """Raise for the first value of a key of the model that is wrong wherever it stands."""
    space = problem.space
    for p in space.parameters or [None]:
        for value in (p.grid or ())[:VALUES] if p and p.name.startswith("model.") else [None]:
            drawn = {q.name: q.at(rng.random()) for q in space.parameters}
            if p:
                drawn |= {name: allowed[0] for name, allowed in p.when} | {p.name: value}
            values = {q.name: drawn[q.name] for q in space.active(drawn)}
            verdict = problem.judge(values)
            if verdict.mistake and (p is None or value is None or p.name in values):
                raise UserError(verdict.fault)


def _why(problem: Problem, example: str) -> str:
    """Which constraint rules everything out, with the number that would have to change."""
    one = not problem.space.parameters
    if not _under(problem, []).valid:
        return example if one else f"no configuration of the space can be built; for example\n{example}"
    limits = [name for name, limit in problem.config["limits"].items() if limit is not None]
    alone = [name for name in limits if not _under(problem, [name]).valid]
    if alone:
        return "\n".join(_too_small(problem, name, []) for name in alone)
    words = " and ".join(f"limits.{name}={problem.config['limits'][name]:,.6g}" for name in limits)
    lines = [_too_small(problem, name, [n for n in limits if n != name]) for name in limits]
    return "\n".join([f"{words} together rule out every configuration:", *lines])


def _too_small(problem: Problem, name: str, others: list[str]) -> str:
    limit = problem.config["limits"][name]
    found = _under(problem, others, also=name)
    if not found.valid:
        return f"limits.{name}: {limit:,.6g}, and without it the others still rule everything out"
    values = found.extreme(name, largest=False)
    network = _network(problem, values)
    least = f"the least is {getattr(network, name):,.6g} {NOUNS[name]}"
    if others:
        return f"limits.{name}: {limit:,.6g}, but within the other limits {least}"
    return f"limits.{name}: {limit:,.6g} rules out every configuration: {least}\n{network.table()}"


def _under(problem: Problem, names: list[str], also: str | None = None) -> Lattice:
    """The same problem with these limits only."""
    limits = {name: problem.config["limits"][name] if name in names else None for name in COLUMNS}
    posed = dataclasses.replace(problem, config={**problem.config, "limits": limits}, _verdicts={})
    found = lattice(posed, [also] if also else [])
    assert found is not None
    return found


def _network(problem: Problem, values: Values) -> Network:
    unlimited = dict.fromkeys(problem.config["limits"])
    network = dataclasses.replace(problem, config={**problem.config, "limits": unlimited}, _verdicts={}).judge(values)
    assert network.network is not None
    return network.network

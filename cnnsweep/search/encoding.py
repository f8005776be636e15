"""Configurations as points of a unit cube, and steps in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnsweep.search_space.space import Space, Values, is_word


class Cube:
    """A number is its quantile, a word has a dimension for each choice; true and false are one dimension."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._widths = [
            len(p.choices or ()) if is_word(p) and len(p.choices or ()) > 2 else 1 for p in space.parameters
        ]
        self.dimensions = max(2, sum(self._widths))
        """At least two, as CMA-ES wants it."""

    def encode(self, values: Mapping[str, Any]) -> np.ndarray:
        """An inactive key is in the middle."""
        point: list[float] = []
        for p, width in zip(self._space.parameters, self._widths, strict=True):
            if p.name not in values:
                point += [0.5] * width
            elif is_word(p) and width > 1:
                point += [0.8 if values[p.name] == choice else 0.2 for choice in p.choices or ()]
            elif is_word(p):
                point.append(((p.choices or ()).index(values[p.name]) + 0.5) / len(p.choices or ()))
            else:
                point.append(p.quantile(values[p.name]))
        return np.array(point + [0.5] * (self.dimensions - len(point)))

    def decode(self, point: np.ndarray) -> Values:
        found: Values = {}
        start = 0
        for p, width in zip(self._space.parameters, self._widths, strict=True):
            part = np.clip(point[start : start + width], 0.0, 1.0)
            found[p.name] = (p.choices or ())[int(part.argmax())] if width > 1 else p.at(float(part[0]))
            start += width
        return {p.name: found[p.name] for p in self._space.active(found)}


def neighbour(space: Space, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
    """Change one or two keys: a number by a normal step, a word to any other; keys that become active are drawn."""
    changed = dict(values)
    for name in rng.choice(list(values), size=min(len(values), int(rng.integers(1, 3))), replace=False):
        p = space.by_name[str(name)]
        step = rng.normal(0, 0.2)
        near = rng.random() if is_word(p) else float(np.clip(p.quantile(values[p.name]) + step, 0, 1 - 1e-9))
        changed[p.name] = p.at(near)
    drawn = {p.name: p.at(rng.random()) for p in space.parameters}
    complete = {**drawn, **changed}
    return {p.name: complete[p.name] for p in space.active(complete)}

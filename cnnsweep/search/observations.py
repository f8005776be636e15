"""What a sampler learns from, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cnnsweep.config.components import locate
from cnnsweep.errors import unknown
from cnnsweep.search_space.space import Space, Values

SAMPLERS = {
    "random": None,
    "tpe": "cnnsweep.search.tpe.Tpe",
    "gp": "cnnsweep.search.gp.Gp",
    "cmaes": "cnnsweep.search.cmaes.Cmaes",
    "qmc": "cnnsweep.search.qmc.Qmc",
    "nsga2": "cnnsweep.search.nsga2.Nsga2",
}

SLOW = ("gp",)
"""Those that take longer than 100 ms after 200 trials (experiments/benchmarks/ask.py)."""


@dataclass(frozen=True)
class Observation:
    """A configuration with what came of it."""

    values: Mapping[str, Any]
    """Of the space's keys; one of another space may lack some."""
    scores: tuple[float, ...]
    """One for each objective; the smaller, the better."""


@dataclass(frozen=True)
class History:
    """All that is known when a configuration is asked for."""

    space: Space
    seen: Sequence[Observation] = ()
    """In the order in which they were started."""
    pending: Sequence[Mapping[str, Any]] = ()
    """Configurations that were proposed and are not known yet."""
    most: int | None = None
    """So many configurations the search is to try."""
    allows: Callable[[Values], bool] = lambda _: True
    """Whether a configuration is valid and new."""


class Sampler(Protocol):
    """An algorithm: history in, decision out. It keeps nothing that the history does not say."""

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        """Configurations, the best first; the oracle takes the first that is valid and new."""


def make(name: str, seed: int, settings: Mapping[str, Any]) -> Sampler | None:
    """The sampler of that name; None for random, which every oracle can do. Raises `UserError`."""
    if name not in SAMPLERS:
        raise unknown("search.sampler", name, list(SAMPLERS))
    path = SAMPLERS[name]
    return locate("search.sampler", path)(seed=seed, **settings) if path else None


@dataclass
class Curves:
    """The objective's values of each configuration, by epoch, the smaller the better."""

    by_id: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, id_: str, epoch: int, value: float) -> None:
        self.by_id.setdefault(id_, {})[epoch] = value

    def best(self, id_: str, until: float = np.inf) -> float | None:
        """The best value until an epoch; None where there is none."""
        values = [value for epoch, value in self.by_id.get(id_, {}).items() if epoch <= until]
        return min(values, default=None)

    def until(self, epochs: Mapping[str, int]) -> Curves:
        """The curves as they were when these configurations had so many epochs."""
        cut = {
            id_: {epoch: value for epoch, value in self.by_id.get(id_, {}).items() if epoch <= most}
            for id_, most in epochs.items()
        }
        return Curves({**self.by_id, **cut})

    def reached(self, id_: str) -> int:
        return max(self.by_id.get(id_, {}), default=0)

    def level(self, ids: Sequence[str], rungs: Sequence[int], enough: int) -> dict[str, float]:
        """Values as of the highest rung that `enough` configurations have reached (as in BOHB, Falkner et al. 2018).

        A configuration that was not trained so far is taken to gain what the median of those gained that were.
        """
        known = [id_ for id_ in ids if self.reached(id_) >= min(rungs)]
        counts = {rung: sum(self.reached(id_) >= rung for id_ in known) for rung in rungs}
        rung = max((r for r in rungs if counts[r] >= enough), default=min(rungs))
        there = {
            id_: value for id_ in known if self.reached(id_) >= rung and (value := self.best(id_, rung)) is not None
        }
        found = dict(there)
        for id_ in known:
            if id_ in there:
                continue
            below = max(r for r in rungs if r <= self.reached(id_))
            gains = [there[other] - (self.best(other, below) or 0.0) for other in there if other != id_]
            if (value := self.best(id_, below)) is not None:
                found[id_] = value + float(np.median(gains) if gains else 0.0)
        return found

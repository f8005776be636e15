"""Asynchronous successive halving (Li et al. 2018): many configurations for a few epochs, the best of them for more."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.config.validation import Int
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted
from cnnsweep.search.oracle import Oracle, Proposal, Task
from cnnsweep.search.registry import SamplerName, sampler_named
from cnnsweep.statistics import Ranking


class AshaConfig(SearchConfig):
    factor: Int = Field(ge=2)
    min_epochs: Int = Field(ge=1)
    variant: Literal["promotion", "stopping"]
    sampler: SamplerName
    startup: Int | None = Field(ge=1)


@dataclass
class _Rung:
    """The trials that have ended at a rung (promotion), and the values of those that reached it (stopping)."""

    ended: int = 0
    completed: Ranking[str] = field(default_factory=Ranking)
    waiting: Ranking[str] = field(default_factory=Ranking)
    """Completed trials that have not been promoted."""
    seen: dict[str, float] = field(default_factory=dict)


@configured_by(AshaConfig)
class AshaOracle(Oracle):
    """No worker waits for the others as long as there is something to draw.

    promotion: a trial ends at its rung, and continues from its checkpoint once it is among the best 1/`factor` there.
    stopping: a trial goes on to its end unless it is not among the best 1/`factor` of those seen at a rung so far.
    """

    def __init__(
        self,
        task: Task,
        *,
        factor: int,
        min_epochs: int,
        variant: Literal["promotion", "stopping"],
        sampler: str = "random",
        startup: int | None = None,
    ) -> None:
        super().__init__(task, sampler=sampler_named(sampler), startup=startup)
        if min_epochs > self.full_epochs:
            epochs = counted(self.full_epochs, "epoch")
            raise UserError(f"search.min_epochs: {min_epochs} exceeds the {epochs} of a trial: none could be stopped")
        self.factor, self.promotes = factor, variant == "promotion"
        self.rungs = ladder(min_epochs, factor, self.full_epochs)
        self._rungs = {epochs: _Rung() for epochs in self.rungs}
        self._promotable: set[str] = set()

    def next(self, id_: str) -> Proposal | Literal["wait", "done"]:
        """Promote where a rung has a trial to promote, the highest rung first; else start a new configuration."""
        if not self.promotes:
            return super().next(id_)
        found = self._promotion(id_) or self._start(id_) or self._promotion(id_, last=True)
        if found is None:
            return "wait" if self.running else "done"
        if found.epochs != self.rungs[-1]:
            self._promotable.add(id_)
        return found

    def keep_on(self, id_: str, epoch: int) -> bool:
        """Stopping: compare with all that were seen at this rung and have not failed."""
        value = None if self.promotes or epoch not in self.rungs[:-1] else self.curves.best(id_, epoch)
        if value is None:
            return True
        seen = self._rungs[epoch].seen
        seen[id_] = value
        return sum(other < value for other in seen.values()) < max(1, len(seen) // self.factor)

    def next_rung(self, id_: str, epoch: int) -> int:
        return min((rung for rung in self.rungs if rung > epoch), default=super().next_rung(id_, epoch))

    def promotable(self) -> set[str]:
        """Those below the last rung that were not promoted; trials to come decide which of them will be."""
        return self._promotable

    def end(self, id_: str, succeeded: bool, finished: bool = True) -> None:
        super().end(id_, succeeded, finished)
        if self.trials[id_].status == "FAILED":
            for below in self._rungs.values():
                below.seen.pop(id_, None)
        if not self.promotes:
            return
        epochs = self._target(id_)
        rung = self._rungs[epochs]
        rung.ended += 1
        if self.trials[id_].status == "COMPLETED":
            value = self.curves.best(self.origin(id_), epochs)
            for ranking in (rung.completed, rung.waiting):
                ranking.put(id_, float("inf") if value is None else value)

    def reopen(self, id_: str) -> None:
        super().reopen(id_)
        if self.promotes:
            rung = self._rungs[self._target(id_)]
            rung.ended -= 1
            for ranking in (rung.completed, rung.waiting):
                ranking.put(id_, None)

    def _promotion(self, id_: str, last: bool = False) -> Proposal | None:
        """Promote the best of a rung; with `last`, where nothing new can be drawn, an idle rung rounds up."""
        running = [self._target(other) for other in self.running] if last else []
        for epochs, above in reversed(list(itertools.pairwise(self.rungs))):
            rung = self._rungs[epochs]
            settled = last and all(target > epochs for target in running)
            places = -(-rung.ended // self.factor) if settled else rung.ended // self.factor
            for best in rung.waiting.first(1):
                if rung.completed.place(best) < places:
                    rung.waiting.put(best, None)
                    self._promotable.discard(best)
                    return Proposal(id_, self.values_of(best), above, continues=best)
        return None

    def _start(self, id_: str) -> Proposal | None:
        values = None if self.exhausted() else self.propose()
        return None if values is None else Proposal(id_, values, self.rungs[0])


def ladder(least: int, factor: int, most: int) -> list[int]:
    """Epochs of the rungs.

    >>> ladder(1, 3, 10), ladder(2, 3, 10), ladder(4, 3, 4)
    ([1, 3, 10], [2, 10], [4])
    """
    rungs = [least]
    while rungs[-1] * factor <= most:
        rungs.append(rungs[-1] * factor)
    return [*rungs[:-1], most] if len(rungs) > 1 or least >= most else [least, most]

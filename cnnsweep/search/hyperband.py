"""Hyperband (Li et al. 2017) with KerasTuner's brackets, corrected for failures, small spaces and parallel workers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.config.validation import Int
from cnnsweep.search.oracle import Oracle, Proposal, Task
from cnnsweep.search.registry import SamplerName, sampler_named

if TYPE_CHECKING:
    from cnnsweep.search.hyperband_engine import HyperbandEngine


class HyperbandConfig(SearchConfig):
    factor: Int = Field(ge=2)
    iterations: Int | None = Field(ge=1)
    sampler: SamplerName
    startup: Int | None = Field(ge=1)


@dataclass
class _Bracket:
    number: int
    rounds: list[list[str]] = field(default_factory=list)
    """The proposals of each rung."""
    closed: bool = False
    """True where no more configurations can be started in its first rung."""


@configured_by(HyperbandConfig)
class HyperbandOracle(Oracle):
    """Brackets of successive halving; a promoted trial continues from its last epoch.

    A failed trial counts as one that was not promoted. Where the space or the budget of trials ends within a first
    rung, the bracket shrinks to what there is.
    """

    promotes = True
    engine: HyperbandEngine

    def __init__(
        self, task: Task, *, factor: int, iterations: int | None, sampler: str = "random", startup: int | None = None
    ) -> None:
        self.factor, self._iterations = factor, iterations
        super().__init__(task, sampler=sampler_named(sampler), startup=startup)
        brackets = range(self.engine._get_num_brackets())
        self.rungs = sorted({self._epochs(b, r) for b in brackets for r in range(self.engine._get_num_rounds(b))})
        self._brackets = [self._next_bracket()]
        self._over: list[_Bracket] = []

    def make_engine(self) -> HyperbandEngine:
        from cnnsweep.search.hyperband_engine import HyperbandEngine

        schedule = {"factor": self.factor, "hyperband_iterations": self._iterations, "max_epochs": self.full_epochs}
        return HyperbandEngine(self.objective, self._populate, **schedule)

    def next(self, id_: str) -> Proposal | Literal["wait", "done"]:
        """Promote where a rung has a winner, else start a new configuration, in this bracket or the next."""
        self._over += [b for b in self._brackets if self._is_over(b)]
        self._brackets = [b for b in self._brackets if not self._is_over(b)]
        for bracket in self._brackets:
            if found := self._promote(id_, bracket) or self._start(id_, bracket):
                return found
        if self._has_next() and not any(b.closed for b in self._brackets):
            self.engine._increment_bracket_num()
            self._brackets.append(self._next_bracket())
            if found := self._start(id_, self._brackets[-1]):
                return found
        return "wait" if self.running else "done"

    def reopen(self, id_: str) -> None:
        """Its bracket has a place more in the rungs above."""
        super().reopen(id_)
        self._brackets = [*self._over, *self._brackets]
        self._over = []

    def promotable(self) -> set[str]:
        """Those of the brackets that are not over, except where they are in the last rung or promoted already."""
        found: set[str] = set()
        for bracket in self._brackets:
            for here, above in itertools.pairwise([] if self._is_over(bracket) else bracket.rounds):
                found |= set(here) - self._continued(above)
        return found

    def _next_bracket(self) -> _Bracket:
        number = self.engine._current_bracket
        return _Bracket(number, [[] for _ in range(self.engine._get_num_rounds(number))])

    def _has_next(self) -> bool:
        last = self.engine._current_bracket == 0 and self.engine._current_iteration + 1 == self._iterations
        return not last and not self.exhausted()

    def _epochs(self, bracket: int, number: int) -> int:
        return self.engine._get_epochs(bracket, number)

    def _continued(self, rung: list[str]) -> set[str | None]:
        return {self.proposals[id_].continues for id_ in rung}

    def _sizes(self, bracket: _Bracket) -> list[int]:
        """The number of trials of each rung: fewer where the bracket was closed early, or too many below failed."""
        full = [self.engine._get_size(bracket.number, number) for number in range(len(bracket.rounds))]
        sizes = [len(bracket.rounds[0]) if bracket.closed else full[0]]
        for below, size in zip(bracket.rounds, full[1:], strict=False):
            wanted = math.ceil(sizes[-1] / self.factor) if bracket.closed else size
            failed = sum(self.trials[id_].status == "FAILED" for id_ in below)
            sizes.append(min(wanted, size, sizes[-1] - failed))
        return sizes

    def _start(self, id_: str, bracket: _Bracket) -> Proposal | None:
        first = bracket.rounds[0]
        if bracket.closed or len(first) >= self._sizes(bracket)[0]:
            return None
        values = None if self.exhausted() else self.propose()
        if values is None:
            bracket.closed = True
            return self._promote(id_, bracket)
        first.append(id_)
        return Proposal(id_, values, self._epochs(bracket.number, 0))

    def _promote(self, id_: str, bracket: _Bracket) -> Proposal | None:
        sizes = self._sizes(bracket)
        for number, (past, here) in enumerate(itertools.pairwise(bracket.rounds), start=1):
            waiting = [self.trials[other] for other in past if other not in self._continued(here)]
            ended = [trial for trial in waiting if trial.status in ("COMPLETED", "FAILED")]
            scored = [trial for trial in ended if trial.status == "COMPLETED"]
            if scored and len(here) < sizes[number] and len(ended) > sizes[number - 1] - sizes[number]:
                pick = max if self.objective.direction == "max" else min
                best = pick(scored, key=lambda trial: trial.score).trial_id
                here.append(id_)
                return Proposal(id_, self.values_of(best), self._epochs(bracket.number, number), continues=best)
        return None

    def _is_over(self, bracket: _Bracket) -> bool:
        return all(len(rung) >= size for rung, size in zip(bracket.rounds, self._sizes(bracket), strict=True))

"""Asynchronous successive halving (Li et al. 2018): many configurations for a few epochs, the best of them for more."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Any

import keras_tuner

from cnnsweep.ranking import Ranking
from cnnsweep.search.oracle import Proposing
from cnnsweep.search_space.space import Values


class AshaOracle(Proposing, keras_tuner.Oracle):
    """No worker waits for the others as long as there is something to draw.

    promotion: a trial ends at its rung, and goes on from its checkpoint once it is among the best 1/`factor` there.
    stopping: a trial goes on to its end unless it is not among the best 1/`factor` of those seen at a rung so far.
    """

    def __init__(self, *args: Any, factor: int, min_epochs: int, variant: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.factor, self.promotes = factor, variant == "promotion"
        self.rungs = ladder(min_epochs, factor, self.full_epochs)
        self._at: dict[int, list[float]] = {rung: [] for rung in self.rungs}
        """stopping: the values seen at each rung, in order."""
        self._ended = dict.fromkeys(self.rungs, 0)
        """promotion: how many trials have ended at each rung."""
        self._scored = {rung: Ranking[str]() for rung in self.rungs}
        """Those of them that did not fail."""
        self._waiting = {rung: Ranking[str]() for rung in self.rungs}
        """Those of these that were not promoted."""
        self._open: set[str] = set()

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Promote where a rung has someone to, the highest first; else start a new configuration."""
        if not self.promotes:
            values = self.propose()
            return {"status": "RUNNING", "values": values} if values is not None else {"status": "STOPPED"}
        found = self._promotion() or self._start(trial_id) or self._promotion(last=True)
        if found is not None:
            return {"status": "RUNNING", "values": found}
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}

    def observe(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        super().observe(trial_id, epoch, metrics)
        rungs = [rung for rung in self.rungs[:-1] if rung == epoch]
        if self.promotes or not rungs:
            return
        value = self.curves.best(trial_id, epoch)
        if value is None:
            return
        there = self._at[epoch]
        insort(there, value)
        if bisect_left(there, value) >= max(1, len(there) // self.factor):
            self.trials[trial_id].status = "STOPPED"

    def next_rung(self, trial_id: str, epoch: int) -> int:
        return min((rung for rung in self.rungs if rung > epoch), default=super().next_rung(trial_id, epoch))

    def promotable(self) -> set[str]:
        """Those below the last rung that were not promoted; which of them will be, more trials decide."""
        return self._open

    def end_trial(self, trial: Any) -> None:
        super().end_trial(trial)
        if self.promotes:
            id_, rung = trial.trial_id, self._target(trial.trial_id)
            self._ended[rung] += 1
            if trial.status == "COMPLETED":
                value = self.curves.best(self.origin(id_), rung)
                for ranking in (self._scored[rung], self._waiting[rung]):
                    ranking.put(id_, float("inf") if value is None else value)

    def _record_values(self, trial: Any) -> None:
        super()._record_values(trial)
        if self.promotes and trial.status == "RUNNING":
            if self._target(trial.trial_id, trial) < self.rungs[-1]:
                self._open.add(trial.trial_id)
            if before := trial.hyperparameters.values.get("tuner/trial_id"):
                self._open.discard(before)
                self._waiting[self._target(before)].put(before, None)

    def _target(self, id_: str, trial: Any = None) -> int:
        return int((trial or self.trials[id_]).hyperparameters.values["tuner/epochs"])

    def _promotion(self, last: bool = False) -> Values | None:
        """Who goes on; with `last`, when nothing new can be drawn, a rung in which nothing runs promotes rounded up."""
        running = [t.trial_id for t in self.ongoing_trials.values()] if last else []
        for number in range(len(self.rungs) - 2, -1, -1):
            rung = self.rungs[number]
            settled = last and not any(self._target(id_) <= rung for id_ in running)
            places = -(-self._ended[rung] // self.factor) if settled else self._ended[rung] // self.factor
            for id_ in self._waiting[rung].first(1):
                if self._scored[rung].place(id_) < places:
                    return self.values_of(id_) | {"tuner/trial_id": id_} | self._budget(number + 1)
        return None

    def _start(self, trial_id: str) -> Values | None:  # noqa: ARG002
        values = None if self.exhausted() else self.propose()
        return None if values is None else {**values, **self._budget(0)}

    def _budget(self, number: int) -> Values:
        before = self.rungs[number - 1] if number else 0
        return {"tuner/epochs": self.rungs[number], "tuner/initial_epoch": before, "tuner/round": number}


def ladder(least: int, factor: int, most: int) -> list[int]:
    """Epochs of the rungs.

    >>> ladder(1, 3, 10), ladder(2, 3, 10), ladder(5, 3, 4)
    ([1, 3, 10], [2, 10], [4])
    """
    rungs = [least]
    while rungs[-1] * factor <= most:
        rungs.append(rungs[-1] * factor)
    return [*rungs[:-1], most] if len(rungs) > 1 or least >= most else [least, most]

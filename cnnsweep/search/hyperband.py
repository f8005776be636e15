"""Hyperband (Li et al. 2017) as KerasTuner has it, mended where failures, small spaces and parallel asks broke it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import keras_tuner

from cnnsweep.search.oracle import Proposing
from cnnsweep.search_space.space import Values


class HyperbandOracle(Proposing, keras_tuner.oracles.HyperbandOracle):
    """Brackets of successive halving; a promoted trial goes on from its last epoch.

    A failed trial counts as one that was not promoted. Where the space or the budget of trials ends within a first
    rung, the bracket shrinks to what there is.
    """

    promotes = True
    _brackets: list[dict[str, Any]]

    def __init__(self, *args: Any, factor: int, iterations: int | None, **settings: Any) -> None:
        super().__init__(*args, factor=factor, hyperband_iterations=iterations, **settings)
        brackets = range(self._get_num_brackets())
        self.rungs = sorted({self._get_epochs(b, r) for b in brackets for r in range(self._get_num_rounds(b))})

    @property
    def max_epochs(self) -> int:
        """Epochs of the last rung: those of the config, which KerasTuner's constructor is not to overrule."""
        return self.full_epochs

    @max_epochs.setter
    def max_epochs(self, value: int) -> None:
        pass

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Promote where a rung has a winner, else start a new configuration, in this bracket or the next."""
        self._brackets = [b for b in self._brackets if not self._is_over(b)]
        for bracket in self._brackets:
            found = self._promote(trial_id, bracket) or self._start(trial_id, bracket)
            if found:
                return found
        if self._has_next() and not any(b.get("closed") for b in self._brackets):
            self._increment_bracket_num()
            self._start_new_bracket()
            found = self._start(trial_id, self._brackets[-1])
            if found:
                return found
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}

    def promotable(self) -> set[str]:
        """Those of the brackets that still go on, except where they are in the last rung or promoted already."""
        found: set[str] = set()
        for bracket in self._brackets:
            rounds = bracket["rounds"] if not self._is_over(bracket) else []
            for here, above in itertools.pairwise(rounds):
                found |= {entry["id"] for entry in here} - {entry["past_id"] for entry in above}
        return found

    def _has_next(self) -> bool:
        last = self._current_bracket == 0 and self._current_iteration + 1 == self.hyperband_iterations
        return not last and not self.exhausted()

    def _sizes(self, bracket: dict[str, Any]) -> list[int]:
        """How many trials each rung takes: fewer where the bracket was closed early, or too many below failed."""
        number, rounds = bracket["bracket_num"], bracket["rounds"]
        closed = bracket.get("closed", False)
        sizes = [len(rounds[0]) if closed else self._get_size(number, 0)]
        for r in range(1, len(rounds)):
            size = math.ceil(sizes[-1] / self.factor) if closed else self._get_size(number, r)
            failed = sum(self.trials[e["id"]].status == "FAILED" for e in rounds[r - 1] if e["id"] in self.trials)
            sizes.append(min(size, self._get_size(number, r), sizes[-1] - failed))
        return sizes

    def _start(self, trial_id: str, bracket: dict[str, Any]) -> dict[str, Any] | None:
        first = bracket["rounds"][0]
        if bracket.get("closed") or len(first) >= self._sizes(bracket)[0]:
            return None
        values: Values | None = None if self.exhausted() else self.propose()
        if values is None:
            bracket["closed"] = True
            return self._promote(trial_id, bracket)
        first.append({"past_id": None, "id": trial_id})
        return self._run(values, bracket, 0)

    def _promote(self, trial_id: str, bracket: dict[str, Any]) -> dict[str, Any] | None:
        sizes = self._sizes(bracket)
        for number in range(1, len(sizes)):
            past, here = bracket["rounds"][number - 1], bracket["rounds"][number]
            taken = {entry["past_id"] for entry in here}
            ended = [self.trials[e["id"]] for e in past if e["id"] not in taken]
            ended = [t for t in ended if t.status in ("COMPLETED", "FAILED")]
            scored = [t for t in ended if t.status == "COMPLETED"]
            if scored and len(here) < sizes[number] and len(ended) > sizes[number - 1] - sizes[number]:
                best = self._best(scored)
                here.append({"past_id": best.trial_id, "id": trial_id})
                values = {k: v for k, v in best.hyperparameters.values.items() if not k.startswith("tuner/")}
                return self._run({**values, "tuner/trial_id": best.trial_id}, bracket, number)
        return None

    def _best(self, trials: list[Any]) -> Any:
        pick = max if self.objective.direction == "max" else min
        return pick(trials, key=lambda t: t.score)

    def _run(self, values: Values, bracket: dict[str, Any], number: int) -> dict[str, Any]:
        values["tuner/epochs"] = self._get_epochs(bracket["bracket_num"], number)
        values["tuner/initial_epoch"] = self._get_epochs(bracket["bracket_num"], number - 1) if number else 0
        values["tuner/bracket"] = bracket["bracket_num"]
        values["tuner/round"] = number
        return {"status": "RUNNING", "values": values}

    def _is_over(self, bracket: dict[str, Any]) -> bool:
        return all(len(rung) >= most for rung, most in zip(bracket["rounds"], self._sizes(bracket), strict=True))

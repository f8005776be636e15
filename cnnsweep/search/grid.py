"""Grid search: every valid configuration once, the last searched key varying fastest."""

from __future__ import annotations

from typing import Any

import keras_tuner

from cnnsweep.errors import UserError
from cnnsweep.search.oracle import ENUMERABLE, Proposing
from cnnsweep.search_space.counting import listed


class GridOracle(Proposing, keras_tuner.Oracle):
    """Walks through the space in order.

    KerasTuner's own grid search waits for results that may change the space; ours cannot change, so it never waits.
    """

    several = True

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for p in self.problem.space.parameters:
            if p.grid is None:
                advice = "give it `values` or a `step`"
                raise UserError(f"search=grid cannot walk through space.{p.name} ({p.describe()}): {advice}")
        found = listed(self.problem, ENUMERABLE)
        self._walk = self.problem.space.enumerate() if found is None else iter(found)

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002
        if (first := self.first()) is not None:
            return {"status": "RUNNING", "values": first}
        for values in self._walk:
            if self.is_fresh(values):
                return {"status": "RUNNING", "values": values}
        return {"status": "STOPPED"}

"""Grid search: every valid configuration once, the last searched key varying fastest."""

from __future__ import annotations

from cnnsweep.errors import UserError
from cnnsweep.search.observations import ENUMERABLE
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.counting import list_valid
from cnnsweep.search_space.space import Values


class GridOracle(Oracle):
    """Walks through the space in order."""

    several = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        space = self.problem.space
        for p in space.parameters:
            if p.grid is None:
                advice = "give it `values` or a `step`"
                raise UserError(f"search=grid cannot walk through space.{p.name} ({p.describe()}): {advice}")
        found = list_valid(self.problem, ENUMERABLE)
        self._walk = space.enumerate() if found is None else iter(found)
        different = {self.problem.validate(values).signature for values in found or ()}
        if (most := task.max_trials) and (found is None or most < len(different)):
            total = f"more than {ENUMERABLE:,}" if found is None else f"{len(different):,}"
            only = f"the first {most} of {total} configurations in order, so that the first keys hardly vary"
            self.notes = [*self.notes, f"search=grid: budget.trials={most}: {only}; budget.trials=null: all"]

    def draw(self) -> Values | None:
        return next((values for values in self._walk if values in self.untried), None)

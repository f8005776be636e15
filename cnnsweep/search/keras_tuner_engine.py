"""KerasTuner's oracles as the record keepers of every search: trials, their states, scores and running workers.

Four surprises of KerasTuner 1.4.8 are closed here: consecutive failures do not end a search, no files are rewritten in
place, a seed of 0 is not replaced, and a report does not take longer with every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cnnsweep.config.objective import Objective
from cnnsweep.config.section import Plain
from cnnsweep.search import lean_keras_tuner


class Engine(lean_keras_tuner.Oracle):
    """Asks `populate` for each trial, as KerasTuner asks `populate_space`: a trial's id in, status and values out."""

    def __init__(self, objective: Objective, populate: Callable[[str], Plain], **settings: Any) -> None:
        self.populate_space = populate
        super().__init__(
            objective=lean_keras_tuner.Objective(objective.metric, objective.direction),
            max_consecutive_failed_trials=None,
            seed=1,  # 0 and None mean "any"; nothing is drawn here
            **settings,
        )
        self.verbose = 0

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record an epoch; KerasTuner's own method also computes the best of all epochs so far, and does not use it."""
        found = self.trials[trial_id].metrics
        for name, value in metrics.items():
            if not found.exists(name):
                found.register(name, self.objective.direction)
            found.metrics[name].update(value, step)

    def _record_values(self, trial: Any) -> None:
        """Our own oracle knows which configurations were proposed."""

    def update_space(self, hyperparameters: Any) -> None:
        """The space is our own, and declared nowhere in KerasTuner."""

    def _check_consecutive_failures(self) -> None:
        """The sweep's loop counts failures."""

    def save(self) -> None:
        """The journal is the only state on disk."""

    def _save_trial(self, trial: Any) -> None:
        pass

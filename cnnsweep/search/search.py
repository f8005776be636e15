"""Ask and tell: KerasTuner's Oracle is the interface of every search algorithm; `Search` is the loop's view of it.

All calls come from one thread. What is surprising in KerasTuner 1.4.8 is closed here and in `oracle.Proposing`:
a failed trial never ends the search, state is not written by the oracle, Hyperband's budget is no hyperparameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnsweep.config.components import locate
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import COSTS
from cnnsweep.errors import UserError
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search_space.problem import Problem


@dataclass(frozen=True)
class Proposal:
    """A configuration to train, or to train further."""

    id: str
    """The oracle's own name for it."""
    values: Mapping[str, Any]
    epochs: int | None = None
    """Train until so many epochs are done in all; None: as many as the config says."""
    continues: str | None = None
    """The proposal that this one goes on with, from its last epoch."""


class Search:
    """Drives one oracle by ask and tell."""

    def __init__(self, oracle: Any, objective: Objective) -> None:
        self.oracle = oracle
        self.objective = objective

    def ask(self, worker: str) -> Proposal | Literal["wait", "done"]:
        """What to run next on a worker that has nothing to do.

        "wait" until another trial has ended; "done" may turn into a proposal again once one has.
        """
        trial = self.oracle.create_trial(worker)
        if trial.status != "RUNNING":
            return "wait" if trial.status == "IDLE" else "done"
        return _proposal(trial)

    def prepare(self) -> None:
        """Make the next proposal of a slow search while workers are busy; it is no trial before it is asked for."""
        if hasattr(self.oracle, "prepare"):
            self.oracle.prepare()

    def repeat(self, id_: str, values: Mapping[str, Any]) -> Proposal | None:
        """Ask for a proposal that the journal says was made at this point: None where the oracle makes another.

        Every oracle proposes the same from the same history; should one not do so with the values (another version of
        a library), the journal's count.
        """
        self.oracle.forced = dict(values)
        trial = self.oracle.create_trial(f"resumed {id_}")
        self.oracle.forced = None
        if trial.status != "RUNNING" or trial.trial_id != id_:
            return None
        proposal = _proposal(trial)
        if proposal.values != dict(values):
            budget = {k: v for k, v in trial.hyperparameters.values.items() if k.startswith("tuner/")}
            trial.hyperparameters.values = {**values, **budget}
        return _proposal(trial)

    def extend(self, trials: int | None) -> None:
        """Take note of another budget of trials."""
        if hasattr(self.oracle, "most"):
            self.oracle.most = trials

    def learn(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Have the search know the trials of another sweep from the start. Raises `UserError` where it cannot."""
        if not hasattr(self.oracle, "learn"):
            raise UserError(f"search.learn_from: {type(self.oracle).__name__} has no `learn`")
        self.oracle.learn(earlier)

    def promotable(self) -> set[str]:
        """The proposals that may yet be continued, so that their checkpoints are needed."""
        found = getattr(self.oracle, "promotable", None)
        return found() if found else set(self.oracle.trials)

    def left_at(self, epochs: int) -> str | None:
        """Why a trial that has reached its proposal's epochs is no complete one, unless it is promoted."""
        full = self.oracle.full_epochs if getattr(self.oracle, "promotes", False) else epochs
        return f"left after epoch {epochs} of {full}" if epochs < full else None

    def next_rung(self, proposal: str, epoch: int) -> float:
        """The epoch at which the trial is next compared with others, or ends; infinite where it does not say."""
        found = getattr(self.oracle, "next_rung", None)
        return found(proposal, epoch) if found else math.inf

    def report(self, proposal: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Tell of an epoch; the answer is whether the trial should keep on."""
        name = self.objective.metric
        if hasattr(self.oracle, "observe"):
            self.oracle.observe(proposal, epoch, metrics)
        if math.isfinite(metrics[name]):
            self.oracle.update_trial(proposal, {name: metrics[name]}, step=epoch)
        return self.oracle.trials[proposal].status != "STOPPED"

    def end(self, proposal: str, succeeded: bool) -> None:
        """Tell how a trial ended; one that never reported a finite value counts as failed."""
        trial = self.oracle.trials[proposal]
        trial.status = "COMPLETED" if succeeded and trial.metrics.exists(self.objective.metric) else "FAILED"
        self.oracle.end_trial(trial)


def _proposal(trial: Any) -> Proposal:
    values = dict(trial.hyperparameters.values)
    budget = {name: values.pop(name) for name in list(values) if name.startswith("tuner/")}
    return Proposal(trial.trial_id, values, budget.get("tuner/epochs"), budget.get("tuner/trial_id"))


def build(config: Mapping[str, Any], problem: Problem, objective: Objective) -> Search:
    """Make the search that the config names. Raises `UserError`."""
    made = locate("search._target_", config["search"]["_target_"])
    _check_objectives(made, config, problem, objective)
    settings = {k: v for k, v in config["search"].items() if k not in ("_target_", "max_failures", "learn_from")}
    oracle = made(
        problem,
        objective,
        seed=config["seed"],
        max_trials=config["budget"]["trials"],
        max_epochs=total_epochs(config["training"]),
        **settings,
    )
    return Search(oracle, objective)


SEVERAL = ("random", "grid", "qmc", "tpe", "nsga2")


def _check_objectives(made: Any, config: Mapping[str, Any], problem: Problem, objective: Objective) -> None:
    """Raise `UserError` where a search knows one objective only, or a cost cannot be known beforehand."""
    if not objective.also:
        return
    given = ", ".join(o.metric for o in objective.all)
    if not getattr(made, "several", False):
        name = config["search"]["_target_"].split(".")[-2]
        able = ", ".join(SEVERAL)
        raise UserError(f"objective: [{given}]: search={name} serves one objective only; for several: {able}")
    for cost in (o.metric for o in objective.also if o.metric in COSTS):
        if problem.layers is None:
            raise UserError(f"objective: {cost} of these networks is not known beforehand: the model has no `layers`")

"""The searches that are compared: ours by name, KerasTuner's and Optuna's as they come, and the simplest there is."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import keras_tuner
import numpy as np
import optuna
from problem import EPOCHS, OBJECTIVE, problem, search_config

from cnnsweep.search.oracle import Oracle, Proposal, Task
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter, Space

WAVE, KEPT = 27, 3
TRIES = 1_000


class OneEpochOracle(Oracle):
    """Train 27 configurations for one epoch, continue the best 3 of all so far to the end, and so on."""

    promotes = True

    def next(self, id_: str) -> Proposal | Literal["wait", "done"]:
        first = [p.id for p in self.proposals.values() if not p.continues]
        continued = {p.continues for p in self.proposals.values() if p.continues}
        waves, rest = divmod(len(first), WAVE)
        if rest or len(continued) >= KEPT * waves:
            return Proposal(id_, self.propose() or {}, 1)
        if set(first) & set(self.running):
            return "wait"
        ended = [t for t in self.trials.values() if t.status == "COMPLETED" and t.trial_id in first]
        best = max((t for t in ended if t.trial_id not in continued), key=lambda t: t.score).trial_id
        return Proposal(id_, self.values_of(best), EPOCHS, continues=best)


class RayAshaOracle(Oracle):
    """Ray Tune's ASHA as it comes: random draws, grace period 1, reduction factor 4 (`_Bracket.on_result`)."""

    def __init__(self, task: Task, factor: int = 4) -> None:
        super().__init__(task)
        self._factor = factor
        levels = int(np.log(self.full_epochs) / np.log(factor) + 1)
        self._recorded: dict[int, dict[str, float]] = {factor**level: {} for level in reversed(range(levels))}

    def keep_on(self, id_: str, epoch: int) -> bool:
        value = self.curves.by_id[id_][epoch]
        for milestone, recorded in self._recorded.items():
            if epoch >= milestone and id_ not in recorded:
                cut = np.percentile(list(recorded.values()), 100 / self._factor) if recorded else np.inf
                recorded[id_] = value
                return bool(value <= cut)
        return True


class Contender:
    """What the sweep's loop asks of a search from elsewhere; a subclass has `ask`, `report` and `end`."""

    objective = OBJECTIVE
    promotes = False
    rungs = ()
    untried = SimpleNamespace()
    """Where the loop says what fits in the time left, of which other searches know nothing."""

    def prepare(self) -> None:
        """Nothing is made ahead."""

    def next_rung(self, proposal: str, epoch: int) -> float:  # noqa: ARG002
        return math.inf

    def left_at(self, epochs: int) -> str | None:  # noqa: ARG002
        return None


class KerasTuner(Contender):
    """One of KerasTuner's oracles, driven as its Tuner does, with a favour: no network that cannot be built costs it.

    Random draws are repeated until one can be, since each that cannot would lose its Hyperband a promotion.
    """

    def __init__(self, oracle: Any, posed: Problem) -> None:
        self._oracle, self._problem, self._draw = oracle, posed, oracle._random_values
        oracle.verbose = 0
        oracle._random_values = self._valid
        self._folder = tempfile.TemporaryDirectory()
        oracle._set_project_dir(self._folder.name, "search")
        oracle.save = oracle._save_trial = lambda *_: None

    def ask(self, worker: str) -> Proposal | Literal["wait", "done"]:
        for _ in range(TRIES):
            trial = self._oracle.create_trial(worker)
            if trial.status != "RUNNING":
                return "wait" if trial.status == "IDLE" else "done"
            chosen = trial.hyperparameters.values
            values = self._active(chosen)
            if self._problem.validate(values).fault is None:
                return Proposal(trial.trial_id, values, chosen.get("tuner/epochs"), chosen.get("tuner/trial_id"))
            trial.status = "INVALID"
            self._oracle.end_trial(trial)
        return "done"

    def _valid(self) -> dict[str, Any] | None:
        drawn = (self._draw() for _ in range(TRIES))
        return next((v for v in drawn if v is None or self._problem.validate(self._active(v)).fault is None), None)

    def _active(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        active = self._problem.space.active(chosen)  # among its choices KerasTuner makes 0 of False
        return {p.name: chosen[p.name] if p.grid is None else p.grid[p.grid.index(chosen[p.name])] for p in active}

    def report(self, proposal: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._oracle.update_trial(proposal, dict(metrics), step=epoch).status != "STOPPED"

    def end(self, proposal: str, succeeded: bool, finished: bool) -> None:  # noqa: ARG002
        trial = self._oracle.trials[proposal]
        trial.status = "COMPLETED"
        self._oracle.end_trial(trial)


class Optuna(Contender):
    """An Optuna study used directly: suggestions by condition, a pruner; what cannot be built is pruned at once."""

    def __init__(self, study: optuna.Study, posed: Problem) -> None:
        self._study, self._problem = study, posed
        self._trials: dict[str, optuna.Trial] = {}

    def ask(self, worker: str) -> Proposal | Literal["wait", "done"]:  # noqa: ARG002
        for _ in range(TRIES):
            trial = self._study.ask()
            values: dict[str, Any] = {}
            for p in self._problem.space.parameters:
                if all(values.get(name) in allowed for name, allowed in p.when):
                    values[p.name] = suggest(trial, p)
            if self._problem.validate(values).fault is None:
                self._trials[str(trial.number)] = trial
                return Proposal(str(trial.number), values)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return "done"

    def report(self, proposal: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        trial = self._trials[proposal]
        trial.report(metrics[OBJECTIVE.metric], epoch)
        if epoch < EPOCHS and trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return False
        if epoch == EPOCHS:
            self._study.tell(trial, metrics[OBJECTIVE.metric])
        return True

    def end(self, proposal: str, succeeded: bool, finished: bool) -> None:
        pass


def suggest(trial: optuna.Trial, p: Any) -> Any:
    if p.choices is not None:
        return trial.suggest_categorical(p.name, p.choices)
    if p.integer:
        return trial.suggest_int(p.name, int(p.low), int(p.high), log=p.log)
    return trial.suggest_float(p.name, p.low, p.high, log=p.log)


Make = Callable[[int], Oracle | Contender]


def ours(*overrides: str) -> Make:
    """A search of this project: `ours("search=hyperband", "search.factor=2")`."""

    def make(seed: int) -> Oracle | Contender:
        config = problem().config.replace(seed=seed, search=search_config(overrides))
        return build(config, replace(problem(), config=config), OBJECTIVE)

    return make


def simplest(seed: int) -> Oracle | Contender:
    return OneEpochOracle(Task(problem(), OBJECTIVE, seed=seed, max_trials=None, max_epochs=EPOCHS))


def rays(seed: int) -> Oracle | Contender:
    return RayAshaOracle(Task(problem(), OBJECTIVE, seed=seed, max_trials=None, max_epochs=EPOCHS))


def declare(space: Space) -> keras_tuner.HyperParameters:
    """A space as KerasTuner's hyperparameters, with its conditions."""
    hp = keras_tuner.HyperParameters()
    for p in space.parameters:
        with contextlib.ExitStack() as scopes:
            for name, allowed in p.when:
                scopes.enter_context(hp.conditional_scope(name, list(allowed)))
            _declare(hp, p)
    return hp


def _declare(hp: keras_tuner.HyperParameters, p: Parameter) -> None:
    if p.grid is not None and not p.log:
        hp.Choice(p.name, list(p.grid), ordered=not isinstance(p.grid[0], (str, bool)))
    elif p.integer:
        hp.Int(p.name, int(p.low), int(p.high), sampling="log")
    else:
        hp.Float(p.name, p.low, p.high, sampling="log" if p.log else "linear")


def keras_tuners(name: str, **settings: Any) -> Make:
    def make(seed: int) -> Oracle | Contender:
        oracle = getattr(keras_tuner.oracles, name)(
            objective=keras_tuner.Objective(OBJECTIVE.metric, OBJECTIVE.direction),
            hyperparameters=declare(problem().space),
            seed=1_000 * seed + 1,  # the draws of seed 2 are those of seed 1 but for the first
            max_consecutive_failed_trials=10**9,
            **settings,
        )
        return KerasTuner(oracle, problem())

    return make


def optunas(seed: int) -> Oracle | Contender:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3)
    # The pruner draws each trial's bracket from the study's name, which would be another one in every run.
    study = optuna.create_study(study_name="comparison", direction="maximize", sampler=sampler, pruner=pruner)
    return Optuna(study, problem())


MOST = 10_000
OTHERS: dict[str, Make] = {
    "KerasTuner random": keras_tuners("RandomSearchOracle", max_trials=MOST),
    "KerasTuner Bayesian": keras_tuners("BayesianOptimizationOracle", max_trials=MOST),
    "KerasTuner Hyperband": keras_tuners("HyperbandOracle", max_epochs=EPOCHS, factor=3, hyperband_iterations=100),
    "Optuna TPE + Hyperband": optunas,
    "Ray Tune ASHA": rays,
    "one epoch, then the best": simplest,
}


def contender(name: str) -> Make:
    """One of `OTHERS`, else a search of ours by its name and settings: "hyperband", "hyperband search.factor=2"."""
    if name in OTHERS:
        return OTHERS[name]
    search, *settings = name.split()
    return ours(f"search={search}", *settings)

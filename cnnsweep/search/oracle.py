"""What all our oracles share: only valid configurations, none twice, and proposals that a seed reproduces."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from typing import Any

import keras_tuner
import numpy as np

from cnnsweep.lattice import Lattice, TooLarge, lattice, listed
from cnnsweep.objective import Objective
from cnnsweep.problem import Problem
from cnnsweep.space import Parameter, Space, Values

ENUMERABLE = 20_000
FEW = 100
TRIES = 2_000


class Proposing(keras_tuner.Oracle):
    """Put before one of KerasTuner's oracles, this replaces how it draws, hashes and saves.

    The random numbers of a proposal depend on the seed and on how many proposals came before, on nothing else, so an
    oracle that is fed the same history proposes the same.
    """

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        *,
        seed: int,
        max_trials: int | None,
        max_epochs: int,
        **settings: Any,
    ) -> None:
        self.problem = problem
        self.most = max_trials
        self.full_epochs = max_epochs
        self.forced: Values | None = None
        """While a journal is replayed: what was proposed then, to be proposed again without working it out."""
        self._seen: dict[Hashable, str] = {}
        self._left: list[tuple[Values, Hashable]] | None = None
        self._lattice: Lattice | None = None
        self._listable = True
        super().__init__(
            objective=keras_tuner.Objective(objective.metric, objective.direction),
            hyperparameters=hyperparameters(problem.space),
            allow_new_entries=False,
            tune_new_entries=False,
            max_consecutive_failed_trials=None,
            seed=seed or 1,
            **settings,
        )
        self.seed = seed  # KerasTuner's constructor takes 0 for "any"
        self.max_trials = None  # the sweep's budget counts
        self.verbose = 0

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(self.trials)])

    def fresh(self, rng: np.random.Generator) -> Values | None:
        """Draw from the valid configurations that were not proposed yet, all alike; None where none is left.

        Rejection keeps the distribution of the space. Where hardly anything is valid, or left, it is looked up instead.
        """
        if self.forced is not None:
            return self.forced
        space = self.problem.space
        for _ in range(FEW if not space.continuous and space.size <= ENUMERABLE else TRIES):
            values = space.draw(rng)
            if self.is_fresh(values):
                return values
        if self._left is None and self._listable:
            found = listed(self.problem, ENUMERABLE)
            self._listable = found is not None
            self._left = [(values, self.problem.judge(values).signature) for values in found or []]
        if not self._listable:
            return self._rare(rng)
        self._left = [(values, signature) for values, signature in self._left or [] if signature not in self._seen]
        return dict(self._left[rng.integers(len(self._left))][0]) if self._left else None

    def _rare(self, rng: np.random.Generator) -> Values | None:
        """Draw where the valid configurations are too rare to be met by chance and too many to list."""
        if self._lattice is None:
            with contextlib.suppress(TooLarge):
                self._lattice = lattice(self.problem)
        draw = self._lattice.draw if self._lattice else self.problem.space.draw
        for _ in range(TRIES):
            values = draw(rng)
            if values is not None and self.is_fresh(values):
                return values
        return None

    def is_fresh(self, values: Values) -> bool:
        verdict = self.problem.judge(values)
        return verdict.fault is None and verdict.signature not in self._seen

    def promotable(self) -> set[str]:
        """The ids of proposals that may yet be continued, so that their checkpoints are needed."""
        return set(self.trials) if getattr(self, "promotes", False) else set()

    def _random_values(self) -> Values | None:
        return self.fresh(self.rng())

    def _record_values(self, trial: Any) -> None:
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        self._seen.setdefault(self.problem.judge(values).signature, trial.trial_id)

    def update_space(self, hyperparameters: Any) -> None:
        """Everything is declared from the start."""

    def save(self) -> None:
        """The journal is the only state on disk: KerasTuner rewrites its files in place."""

    def _save_trial(self, trial: Any) -> None:
        pass


class Declared(keras_tuner.HyperParameters):
    """A space that does not change: every trial's copy shares it, where KerasTuner's would rebuild it."""

    def copy(self) -> Declared:
        twin = Declared()
        twin._hps, twin._space, twin.values = self._hps, self._space, dict(self.values)
        return twin


def hyperparameters(space: Space) -> Declared:
    """Declare a space to KerasTuner, with its conditions."""
    hp = Declared()
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

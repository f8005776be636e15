"""What all our oracles share: only valid configurations, none twice, and proposals that a seed reproduces."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import COSTS
from cnnsweep.search import warm_start as begin
from cnnsweep.search.observations import SLOW, Curves, History, Observation, make
from cnnsweep.search_space.counting import Lattice, TooLarge, lattice, listed
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter, Space, Values

ENUMERABLE = 20_000
FEW = 100
TRIES = 2_000
AHEAD_FROM = 30
"""Trials from which on a slow search proposes ahead."""


class Proposing(keras_tuner.Oracle):
    """Put before one of KerasTuner's oracles, this replaces how it draws, hashes and saves.

    The random numbers of a proposal depend on the seed and on how many proposals came before, on nothing else, so an
    oracle that is fed the same history proposes the same.
    """

    several = False
    """Whether it can serve several objectives."""
    promotes = False
    """Whether trials end at rungs and are continued later."""
    rungs: Sequence[int] = ()
    """Epochs at which trials are compared; none where each is trained to its end."""
    learns = True
    """Whether its sampler is of any use only after some trials."""
    slow = False
    """Whether a proposal takes long to make once there is much to learn from."""

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        *,
        seed: int,
        max_trials: int | None,
        max_epochs: int,
        sampler: str = "random",
        startup: int | None = None,
        population: int | None = None,
        start_with: Sequence[Mapping[str, Any]] = (),
        **settings: Any,
    ) -> None:
        self.problem, self.goal = problem, objective
        self.most = max_trials
        self.full_epochs = max_epochs
        self.forced: Values | None = None
        """While a journal is replayed: what was proposed then, to be proposed again without working it out."""
        self.curves = Curves()
        self._sampler = make(sampler, seed, {"population": population} if population else {})
        self.slow = self.slow or sampler in SLOW
        self._out: dict[str, int] = {}
        """Configurations that were running when the last trial was started, with the epochs that each had by then."""
        self._stock: tuple[Values | None] | None = None
        """What a slow search proposes next; None: not made yet."""
        self._startup = startup
        self._seen: dict[Hashable, str] = {}
        self._first, self.notes = begin.read(problem, start_with)
        self._started: dict[str, str] = {}
        self._earlier: dict[str, Values] = {}
        self._rows: dict[tuple[str, int], Mapping[str, float]] = {}
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

    def create_trial(self, tuner_id: str) -> Any:
        trial = super().create_trial(tuner_id)
        out = {id_: self.curves.reached(id_) for id_ in self._running()}
        if trial.status == "RUNNING" or out.keys() != self._out.keys():
            self._out, self._stock = out, None
        return trial

    def propose(self) -> Values | None:
        """The next configuration; None where none is left."""
        if (found := self.first()) is not None:
            return found
        if not self.ahead:
            return self.draw()
        if self._stock is None:
            self._stock = (self.draw(),)
        return self._stock[0]

    def prepare(self) -> None:
        """Make the next proposal of a slow search before a worker is free for it."""
        if self.ahead and not self.exhausted():
            self.propose()

    @property
    def ahead(self) -> bool:
        """Whether a proposal is made of what was known when the last trial was started.

        Then there is time for it while workers are busy, and when that is makes no difference to what is proposed. It
        lacks the newest result, which is worth more than a tenth of a second as long as there are few.
        """
        return self.slow and len(self._earlier) + len(self.trials) >= AHEAD_FROM

    def draw(self) -> Values | None:
        """Make a proposal: by the sampler once it has something to learn from, before that at random."""
        rng = self.rng()
        if self._sampler is not None:
            history = self.history()
            if not self.learns or len(history.seen) >= self.startup:
                for values in self._sampler.propose(history, rng):
                    if self.is_fresh(values):
                        return values
        return self.fresh(rng)

    def first(self) -> Values | None:
        """What is to be tried before all else, if it was not yet."""
        if self.forced is not None:
            return self.forced
        return next((dict(values) for values in self._first if self.is_fresh(values)), None)

    @property
    def startup(self) -> int:
        """So many configurations must be known before a model is made of them."""
        return self._startup or min(5, max(3, (self.most or 30) // 3))

    def history(self) -> History:
        """What the sampler learns from: a failed trial counts as bad as the worst that did not fail."""
        origins = [*self._earlier, *(id_ for id_ in self.start_order if self.origin(id_) == id_)]
        running = set(self._out) if self.ahead else self._running()
        curves = self.curves.until(self._out) if self.ahead else self.curves
        if self.rungs:
            values = curves.level(origins, self.rungs, self.startup)
        else:
            known = [id_ for id_ in origins if id_ not in running]
            values = {id_: value for id_ in known if (value := curves.best(id_)) is not None}
        failed = {self.origin(t.trial_id) for t in self.trials.values() if t.status == "FAILED"} - running
        values = {id_: value for id_, value in values.items() if id_ not in failed}
        scores = {id_: self._scores(id_, value) for id_, value in values.items()}
        nothing = (0.0,) * len(self.goal.all)
        worst = tuple(max(column) for column in zip(*scores.values(), strict=True)) if scores else nothing
        seen = [
            Observation(self.values_of(id_), scores.get(id_, worst))
            for id_ in origins
            if id_ in scores or id_ in failed
        ]
        pending = [self.values_of(id_) for id_ in origins if id_ in running and id_ not in values]
        return History(self.problem.space, seen, pending, self.most, self.is_fresh)

    def learn(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Take in the trials of another sweep: values, which may lack keys, and the curve's rows by epoch."""
        sign = -1.0 if self.objective.direction == "max" else 1.0
        for number, trial in enumerate(earlier, start=1):
            id_ = f"earlier {number}"
            self._earlier[id_] = dict(trial["values"])
            for epoch, row in trial["curve"].items():
                self.curves.add(id_, int(epoch), sign * row[self.objective.name])
                self._rows[id_, int(epoch)] = row

    def _running(self) -> set[str]:
        return {self.origin(t.trial_id) for t in self.ongoing_trials.values()}

    def _scores(self, id_: str, value: float) -> tuple[float, ...]:
        if not self.goal.also:
            return (value,)
        epochs = self.curves.by_id[id_]
        row = self._rows[id_, min(epochs, key=lambda epoch: epochs[epoch])]
        network = self.problem.judge(self.values_of(id_)).network
        point = self.goal.point({**row, **{cost: getattr(network, cost) for cost in COSTS if network}})
        return point or (value, *[1e30] * len(self.goal.also))

    def values_of(self, id_: str) -> Values:
        """The configuration of a proposal, without the budget."""
        if id_ in self._earlier:
            return self._earlier[id_]
        return {k: v for k, v in self.trials[id_].hyperparameters.values.items() if not k.startswith("tuner/")}

    def parent(self, id_: str) -> str | None:
        """The proposal that this one continues."""
        return self.trials[id_].hyperparameters.values.get("tuner/trial_id")

    def origin(self, id_: str) -> str:
        """The proposal with which a configuration began."""
        return self._started.get(id_, id_)

    def observe(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of an epoch."""
        name = self.objective.name
        if math.isfinite(metrics[name]):
            sign = -1.0 if self.objective.direction == "max" else 1.0
            self.curves.add(self.origin(trial_id), epoch, sign * metrics[name])
            if self.goal.also:
                self._rows[self.origin(trial_id), epoch] = metrics

    def next_rung(self, trial_id: str, epoch: int) -> int:  # noqa: ARG002
        """The epoch at which the trial is next compared with others, or ends."""
        return int(self.trials[trial_id].hyperparameters.values.get("tuner/epochs") or self.full_epochs)

    def exhausted(self) -> bool:
        """Whether as many configurations were proposed as the budget has trials."""
        return self.most is not None and self.configurations() >= self.most

    def configurations(self) -> int:
        return len(self.trials) - len(self._started)

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
        return set(self.trials) if self.promotes else set()

    def _random_values(self) -> Values | None:
        return self.propose()

    def _record_values(self, trial: Any) -> None:
        if before := trial.hyperparameters.values.get("tuner/trial_id"):
            self._started[trial.trial_id] = self.origin(before)
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        self._seen.setdefault(self.problem.judge(values).signature, trial.trial_id)

    def update_space(self, hyperparameters: Any) -> None:
        """Everything is declared from the start."""

    def _check_consecutive_failures(self) -> None:
        """The loop counts failures; KerasTuner's own count goes through all trials at each end."""

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

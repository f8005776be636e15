"""The base class of every search: proposes configurations, none invalid and none twice, as a seed reproduces them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import SearchConfig
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search.observations import Curves, History, Observation, Sampler, Untried
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values

if TYPE_CHECKING:
    from cnnsweep.search.keras_tuner_engine import Engine

AHEAD_FROM = 30  # trials from which on a slow search makes its proposals ahead


@dataclass(frozen=True)
class Task:
    """The problem that a search is to solve."""

    problem: Problem
    objective: Objective
    seed: int
    max_trials: int | None
    max_epochs: int
    start_with: Sequence[Values] = ()
    """Configurations to try first."""
    notes: Sequence[str] = ()
    """On those that were ignored."""


@dataclass(frozen=True)
class Proposal:
    """A configuration to train, or to train further."""

    id: str
    values: Mapping[str, Any]
    epochs: int | None = None
    """Train until so many epochs are done in all; None: as many as the config says."""
    continues: str | None = None
    """The proposal that this one continues from its last epoch."""


@configured_by(SearchConfig)
class Oracle:
    """Ask, report, end: the sweep's loop calls these on one thread.

    An algorithm overrides `draw`, or passes a sampler; `next` too where trials are continued later, `keep_on` where
    they are stopped. A proposal's random numbers depend on the seed and the number of proposals before it alone, so
    the same history gives the same proposals.
    """

    several: ClassVar[bool] = False
    """True where it can serve several objectives."""
    sampler_type: ClassVar[type[Sampler] | None] = None
    """The sampler that `search.sampler` finds under this search's name."""
    promotes = False
    """True where trials end at rungs and the best are continued later."""
    rungs: Sequence[int] = ()
    """Epochs at which trials are compared; none where each is trained to its end."""
    seconds_left = math.inf  # until the sweep's time is spent, as the loop says

    def __init__(self, task: Task, *, sampler: Sampler | None = None, startup: int | None = None) -> None:
        self.problem, self.objective, self.seed = task.problem, task.objective, task.seed
        self.max_trials, self.full_epochs = task.max_trials, task.max_epochs
        self.curves = Curves()
        self.proposals: dict[str, Proposal] = {}
        self.untried = Untried(task.problem)
        self._sampler, self._startup = sampler, startup
        self._first, self.notes = task.start_with, task.notes
        self._origins: dict[str, str] = {}
        self._earlier: dict[str, Values] = {}
        self._rows: dict[tuple[str, int], Mapping[str, float]] = {}
        self._repeated: Values | None = None
        """While a journal is replayed: the values that were proposed then."""
        self._before: dict[str, int] = {}
        """Configurations that were running when the last trial was started, with the epochs that each had by then."""
        self._ahead: tuple[Values | None] | None = None  # the next proposal of a slow search, once it is made
        self.engine = self.make_engine()

    def make_engine(self) -> Engine:
        """KerasTuner's record of the trials."""
        from cnnsweep.search.keras_tuner_engine import Engine

        return Engine(self.objective, self._populate)

    # What an algorithm overrides

    def draw(self) -> Values | None:
        """The next configuration; None where none is left.

        Here: by the sampler once it has enough observations, before that at random.
        """
        rng = self.rng()
        if self._sampler is not None:
            history = self.history()
            if len(history.seen) >= self.startup:
                proposed = self._sampler.propose(history, rng)
                if (values := self.untried.first_of(proposed, rng)) is not None:
                    return values
        return self.untried.draw(rng)

    def next(self, id_: str) -> Proposal | Literal["wait", "done"]:
        """Decide what the next trial is, to be known by this id."""
        return "done" if (values := self.propose()) is None else Proposal(id_, values)

    def keep_on(self, id_: str, epoch: int) -> bool:  # noqa: ARG002
        """Decide after an epoch if a trial goes on."""
        return True

    def next_rung(self, id_: str, epoch: int) -> int:  # noqa: ARG002
        """The epoch at which a trial is next compared with others, or ends."""
        return self._target(id_)

    def promotable(self) -> set[str]:
        """The ids of proposals that may yet be continued, so that their checkpoints are needed."""
        return set(self.proposals) if self.promotes else set()

    @property
    def startup(self) -> int:
        """The number of observations that the sampler needs."""
        return min(5, max(3, (self.max_trials or 30) // 3)) if self._startup is None else self._startup

    # What the loop calls

    def ask(self, worker: str) -> Proposal | Literal["wait", "done"]:
        """The next proposal for a worker, or the one that it has not ended yet.

        "wait" until another trial has ended; "done" may become a proposal again once one has.
        """
        trial = self.engine.create_trial(worker)
        running = {id_: self.curves.reached(id_) for id_ in self._running()}
        if trial.status == "RUNNING" or running.keys() != self._before.keys():
            self._before, self._ahead = running, None
        if trial.status == "RUNNING":
            return self.proposals[trial.trial_id]
        return "wait" if trial.status == "IDLE" else "done"

    def report(self, id_: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Report an epoch; the answer is True where the trial is to go on."""
        value = metrics[self.objective.metric]
        if math.isfinite(value):
            self._record(self.origin(id_), epoch, metrics)
            self.engine.update_trial(id_, {self.objective.metric: value}, step=epoch)
        return self.keep_on(id_, epoch)

    def end(self, id_: str, succeeded: bool, finished: bool = True) -> None:  # noqa: ARG002
        """End a trial; one that never reported a finite value counts as failed. `finished`: it could not go on."""
        trial = self.engine.trials[id_]
        trial.status = "COMPLETED" if succeeded and trial.metrics.exists(self.objective.metric) else "FAILED"
        self.engine.end_trial(trial)

    def reopen(self, id_: str) -> None:
        """Take back the end of a trial that failed, and is trained again, or that a budget cut off, and goes on."""
        trial = self.engine.trials[id_]
        if trial.status == "FAILED":  # it begins again
            trial.metrics.metrics.clear()
            self.curves.by_id.pop(self.origin(id_), None)
        trial.status = "RUNNING"
        self.engine.ongoing_trials[f"again {id_}"] = trial

    def prepare(self) -> None:
        """Make the next proposal of a slow search while workers are busy; it is no trial before it is asked for."""
        if self.ahead and not self.exhausted():
            self.propose()

    def repeat(self, id_: str, values: Mapping[str, Any], continues: str | None = None) -> Proposal | None:  # noqa: ARG002
        """Make a proposal again that the journal says was made at this point; None where the oracle makes another.

        The journal's values count, since another version of a library might propose others.
        """
        self._repeated = dict(values)
        found = self.ask(f"resumed {id_}")
        self._repeated = None
        return None if isinstance(found, str) or found.id != id_ else found

    def learn(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Learn from the trials of another sweep: `values`, which may lack keys, and `curve`, metrics by epoch."""
        for number, trial in enumerate(earlier, start=1):
            id_ = f"earlier {number}"
            self._earlier[id_] = dict(trial["values"])
            for epoch, row in trial["curve"].items():
                self._record(id_, int(epoch), row)

    def left_at(self, epochs: int) -> str | None:
        """The reason why a trial that has reached its proposal's epochs is not complete, unless it is promoted."""
        full = self.full_epochs if self.promotes else epochs
        return f"left after epoch {epochs} of {full}" if epochs < full else None

    # What algorithms build on

    @property
    def trials(self) -> dict[str, Any]:
        """KerasTuner's trials by id, with `status` (RUNNING, COMPLETED, FAILED) and `score`."""
        return self.engine.trials

    @property
    def running(self) -> list[str]:
        """The ids of proposals that have not ended."""
        return [trial.trial_id for trial in self.engine.ongoing_trials.values()]

    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(self.proposals)])

    def propose(self) -> Values | None:
        """A configuration to start, the configurations of `start_with` first; None where none is left."""
        if self._repeated is not None:
            return self._repeated
        if (first := next((values for values in self._first if values in self.untried), None)) is not None:
            return dict(first)
        if not self.ahead:
            return self.draw()
        if self._ahead is None:
            self._ahead = (self.draw(),)
        return self._ahead[0]

    @property
    def ahead(self) -> bool:
        """True where a proposal is made of what was known when the last trial was started.

        Then there is time to make it while workers are busy, and the moment does not change it. It lacks the newest
        result, which is worth more than a tenth of a second as long as there are few.
        """
        known = len(self._earlier) + len(self.proposals)
        return self._sampler is not None and self._sampler.slow and known >= AHEAD_FROM

    def exhausted(self) -> bool:
        """True where as many configurations were proposed as the budget has trials."""
        return self.max_trials is not None and len(self.proposals) - len(self._origins) >= self.max_trials

    def origin(self, id_: str) -> str:
        """The proposal with which a configuration began."""
        return self._origins.get(id_, id_)

    def values_of(self, id_: str) -> Mapping[str, Any]:
        """The configuration of a proposal, or of a trial of another sweep."""
        return self._earlier[id_] if id_ in self._earlier else self.proposals[id_].values

    def history(self) -> History:
        """The observations for the sampler: a failed trial counts as bad as the worst that did not fail."""
        origins = [*self._earlier, *(id_ for id_ in self.proposals if self.origin(id_) == id_)]
        running = set(self._before) if self.ahead else self._running()
        curves = self.curves.until(self._before) if self.ahead else self.curves
        if self.rungs:
            values = curves.level(origins, self.rungs, self.startup)
        else:
            ended = [id_ for id_ in origins if id_ not in running]
            values = {id_: value for id_ in ended if (value := curves.best(id_)) is not None}
        failed = {self.origin(id_) for id_, trial in self.trials.items() if trial.status == "FAILED"} - running
        scores = {id_: self._scores(id_, value) for id_, value in values.items() if id_ not in failed}
        none = (0.0,) * len(self.objective.all)
        worst = tuple(max(column) for column in zip(*scores.values(), strict=True)) if scores else none
        known = [id_ for id_ in origins if id_ in scores or id_ in failed]
        seen = [Observation(self.values_of(id_), scores.get(id_, worst)) for id_ in known]
        pending = [self.values_of(id_) for id_ in origins if id_ in running and id_ not in scores]
        return History(self.problem.space, seen, pending, self.max_trials, self.seed, self.untried.__contains__)

    def _populate(self, id_: str) -> dict[str, Any]:
        """Answer KerasTuner's `populate_space`."""
        found = self.next(id_)
        if isinstance(found, str):
            return {"status": "IDLE" if found == "wait" else "STOPPED"}
        if self._repeated is not None:
            found = replace(found, values=self._repeated)
        if found.continues:
            self._origins[id_] = self.origin(found.continues)
        self.proposals[id_] = found
        self.untried.remove(dict(found.values))
        return {"status": "RUNNING", "values": dict(found.values)}

    def _target(self, id_: str) -> int:
        """The epochs of a proposal: those that it says, else all of its own configuration."""
        found = self.proposals[id_]
        return found.epochs or total_epochs(self.problem.config.with_values(found.values).training)

    def _running(self) -> set[str]:
        return {self.origin(id_) for id_ in self.running}

    def _record(self, origin: str, epoch: int, metrics: Mapping[str, float]) -> None:
        sign = -1.0 if self.objective.direction == "max" else 1.0
        self.curves.add(origin, epoch, sign * metrics[self.objective.metric])
        if self.objective.also:
            self._rows[origin, epoch] = metrics

    def _scores(self, id_: str, value: float) -> tuple[float, ...]:
        if not self.objective.also:
            return (value,)
        row = self._rows[id_, self.curves.best_epoch(id_)]
        network = self.problem.validate(self.values_of(id_)).network
        point = self.objective.point({**row, **(network.sizes if network else {})})
        return point or (value, *[1e30] * len(self.objective.also))

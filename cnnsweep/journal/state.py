"""The state of a sweep and of its trials, derived from the journal's events alone: a replay gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnsweep.config.objective import Objective, front
from cnnsweep.config.schema import Budget
from cnnsweep.journal.events import (
    BestTested,
    EpochEnded,
    Event,
    ReplicateEnded,
    SweepResumed,
    SweepStarted,
    SweepStopped,
    TrialEnded,
    TrialStarted,
    WinnerChosen,
)
from cnnsweep.statistics import Ranking
from cnnsweep.trial import Rival, Status

RESUMED = 0
"""Stands among the numbers of ended trials where the sweep was resumed: failures before it no longer count."""


@dataclass
class TrialState:
    """One trial."""

    number: int
    name: str
    values: Mapping[str, Any]
    proposal: str
    target: int
    """Epochs it is to reach; grows when the trial is promoted."""
    worker: str = ""
    status: Status = "running"
    reason: str | None = None
    started: float = 0.0
    seconds: float = 0.0
    """Wall time of its runs so far."""
    curve: list[Mapping[str, float]] = field(default_factory=list)
    """The metrics of each epoch, from the first."""
    summary: Mapping[str, float] = field(default_factory=dict)
    since: int = 0
    """Epochs that were done when it was promoted; 0 before."""
    replicates: dict[int, float | None] = field(default_factory=dict)
    """The objective's best value of each further training with another seed; None where it failed."""
    rival: Rival | None = None
    """The trial that it is compared with between folds."""
    retried: bool = False
    """It ran out of memory once and was started again with a smaller batch."""

    @property
    def has_ended(self) -> bool:
        """Neither running nor interrupted."""
        return self.status in ("completed", "pruned", "failed")

    @property
    def done(self) -> int:
        """The epoch from which it would go on: where it failed, from the start."""
        return 0 if self.status == "failed" else len(self.curve)

    def best(self, objective: Objective) -> float | None:
        """The objective's best value over all epochs."""
        index = self.best_epoch(objective)
        return None if index is None else self.curve[index - 1][objective.metric]

    def best_epoch(self, objective: Objective) -> int | None:
        """Counted from 1."""
        index = objective.best(m[objective.metric] for m in self.curve)
        return None if index is None else index + 1

    def point(self, objective: Objective) -> tuple[float, ...] | None:
        """Its values of all objectives, of the epoch that is best by the first."""
        index = self.best_epoch(objective)
        return None if index is None else objective.point({**self.summary, **self.curve[index - 1]})

    def succeeded(self, status: Status, objective: Objective) -> bool:
        """Whether it counts as a success for the search: not failed, with a value since it was last proposed."""
        return status != "failed" and len(self.curve) > self.since and self.best(objective) is not None


@dataclass
class SweepState:
    """All trials by number, and the results of the sweep as a whole."""

    objective: Objective
    trials: dict[int, TrialState] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    """Numbers in the order in which trials ended; a promoted one stands there again."""
    final: BestTested | None = None
    stop: SweepStopped | None = None
    winner: WinnerChosen | None = None
    began: float = 0.0
    """When it began, in seconds since 1970, moved forward by the time in which it was not running."""
    last: float = 0.0
    """When the last event was written."""
    epochs: int = 0
    """Epochs trained so far, summed over all trials."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many trials have each status."""
    ranking: Ranking[int] = field(default_factory=Ranking)
    """Trials that did not fail and have a value, by their own training."""
    by_proposal: dict[str, int] = field(default_factory=dict)
    """The trial that each proposal began or continued."""

    def apply(self, event: Event) -> None:
        """Take in one event of the journal."""
        match event:
            case SweepStarted():
                self.began = event.time
            case TrialStarted():
                self._start(event)
            case EpochEnded():
                self._add_epoch(event)
            case TrialEnded():
                trial = self.trials[event.trial]
                self._set_status(trial, event.status)
                trial.reason, trial.summary = event.reason, event.summary
                trial.seconds += event.time - trial.started
                self.ended.append(trial.number)
            case ReplicateEnded():
                self.trials[event.trial].replicates[event.replicate] = event.value
            case WinnerChosen():
                self.winner = event
            case BestTested():
                self.final = event
            case SweepStopped():
                self.stop = event
            case SweepResumed():
                self._resume(event.time)
        self.last = event.time

    def _start(self, event: TrialStarted) -> None:
        trial = self.trials.get(event.trial)
        if trial is None:
            trial = TrialState(event.trial, event.title, event.values, event.proposal, event.epochs)
            self.trials[trial.number] = trial
            trial.rival = Rival(**event.rival) if event.rival else None
            self.counts[trial.status] += 1
        if trial.proposal != event.proposal:
            trial.since = len(trial.curve)
        if trial.status == "failed":
            trial.curve = []  # it begins again, once the cause is repaired
        trial.replicates = {}  # they had fewer epochs
        self._set_status(trial, "running")
        self.by_proposal[event.proposal] = trial.number
        trial.reason, trial.proposal, trial.target = None, event.proposal, event.epochs
        trial.started, trial.worker, trial.summary = event.time, event.worker, event.network
        trial.values, trial.retried = event.values, trial.retried or event.retry is not None

    def _add_epoch(self, event: EpochEnded) -> None:
        trial = self.trials[event.trial]
        before = len(trial.curve)
        del trial.curve[event.epoch - 1 :]
        trial.curve.append(event.metrics)
        self.epochs += len(trial.curve) - before
        self._rank(trial)

    def _resume(self, now: float) -> None:
        self.began += now - self.last
        self.stop = self.winner = None
        self.ended.append(RESUMED)
        for trial in self.trials.values():
            if trial.status == "running":
                trial.seconds += self.last - trial.started
                self._set_status(trial, "interrupted")
            if trial.status == "interrupted":
                trial.started = now

    def _set_status(self, trial: TrialState, status: Status) -> None:
        self.counts[trial.status] -= 1
        self.counts[status] += 1
        trial.status = status
        self._rank(trial)

    def _rank(self, trial: TrialState) -> None:
        value = trial.best(self.objective) if trial.status != "failed" else None
        self.ranking.put(trial.number, None if value is None else self.objective.sign * value)

    def ranked(self, count: int | None = None) -> list[TrialState]:
        """Trials with a value that did not fail, the best first, `count` at most.

        Trials with replicates come first, by their mean: it says more than one training.
        """
        if self.winner is None:
            return [self.trials[number] for number in self.ranking.first(count)]
        means = {int(n): self.objective.sign * found["mean"] for n, found in self.winner.results.items()}
        finalists = sorted((n for n in means if n in self.ranking), key=lambda n: (means[n], n))
        others = [n for n in self.ranking.first() if n not in means]
        return [self.trials[number] for number in [*finalists, *others][:count]]

    def tested(self) -> BestTested | None:
        """The final evaluation, where it is that of the best trial as it is now."""
        best = self.ranked(1)
        if not best or self.final is None:
            return None
        mark = (best[0].number, best[0].best_epoch(self.objective))
        return self.final if (self.final.trial, self.final.epoch) == mark else None

    def finalists(self, budget: Budget) -> list[TrialState]:
        """The trials to train again with other seeds, the best by their own training first; none without replicates."""
        if not budget.replicates:
            return []
        ranked = (self.trials[number] for number in self.ranking.first())
        ended = [trial for trial in ranked if trial.status in ("completed", "pruned")]
        return ended[: budget.finalists or 1]

    def missing_replicates(self, budget: Budget) -> list[tuple[TrialState, int]]:
        """The finalists' trainings that are still to be done, with the number of each."""
        numbers = range(1, (budget.replicates or 0) + 1)
        return [(t, number) for t in self.finalists(budget) for number in numbers if number not in t.replicates]

    def spread(self, trial: TrialState) -> Mapping[str, float] | None:
        """Mean, standard deviation and count of a finalist's replicates."""
        return self.winner.results.get(str(trial.number)) if self.winner else None

    def front(self) -> list[TrialState]:
        """The Pareto front of the trials that ended well, the best by the first objective first."""
        if not self.objective.also:
            return []
        ended = [t for t in self.ranked() if t.status in ("completed", "pruned")]
        points = [(t, point) for t in ended if (point := t.point(self.objective)) is not None]
        return [points[index][0] for index in front([point for _, point in points])]

    def with_status(self, *statuses: Status) -> list[TrialState]:
        """Trials with one of these statuses, by number."""
        return [t for t in self.trials.values() if t.status in statuses]

    def failures_in_a_row(self) -> int:
        """How many trials failed one after another up to now."""
        count = 0
        for number in reversed(self.ended):
            if number == RESUMED or self.trials[number].status != "failed":
                break
            count += 1
        return count

    def reasons(self, count: int) -> str:
        """Why the last `count` trials failed, each reason once: "3 × loss is nan in epoch 1; killed by SIGKILL"."""
        reasons = Counter(self.trials[n].reason or "for no known reason" for n in self.ended[-count:])
        several = [f"{times} × {reason}" if times > 1 else reason for reason, times in reasons.most_common(3)]
        return "; ".join(several) + (" …" if len(reasons) > 3 else "")


def replay(events: Iterable[Event], objective: Objective) -> SweepState:
    """Return the state after these events."""
    state = SweepState(objective)
    for event in events:
        state.apply(event)
    return state

"""The sweep so far, one entry a trial: derived from the journal's events alone, so a replay gives the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnsweep.config.objective import Objective, front
from cnnsweep.ranking import Ranking
from cnnsweep.trial import Status

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
    retried: bool = False
    """It ran out of memory once and was started again with a smaller batch."""

    def best(self, objective: Objective) -> float | None:
        index = self.best_epoch(objective)
        return None if index is None else self.curve[index - 1][objective.metric]

    def point(self, objective: Objective) -> tuple[float, ...] | None:
        """Its values of all objectives, of the epoch that is best by the first."""
        index = self.best_epoch(objective)
        return None if index is None else objective.point({**self.summary, **self.curve[index - 1]})

    def counts(self, status: str, objective: Objective) -> bool:
        """Whether the search is told that it succeeded: it did not fail and has a value since it was last proposed."""
        return status != "failed" and len(self.curve) > self.since and self.best(objective) is not None

    def best_epoch(self, objective: Objective) -> int | None:
        """Counted from 1."""
        index = objective.best(m[objective.metric] for m in self.curve)
        return None if index is None else index + 1


@dataclass
class SweepState:
    """All trials by number, and what the sweep as a whole has come to."""

    objective: Objective
    entries: dict[int, TrialState] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    """Numbers in the order in which trials ended; a promoted one stands there again."""
    final: Mapping[str, Any] | None = None
    stop: Mapping[str, Any] | None = None
    winner: Mapping[str, Any] | None = None
    """What the replicates of the finalists came to, by trial: mean, std and count."""
    began: float = 0.0
    """When it began, in seconds since 1970, moved forward by the time in which it was not running."""
    last: float = 0.0
    """When the last event was written."""
    epochs: int = 0
    """Epochs trained so far, summed over all trials."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many trials have each status."""
    _ranking: Ranking[int] = field(default_factory=Ranking)
    _by_proposal: dict[str, int] = field(default_factory=dict)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the journal."""
        match event["event"]:
            case "sweep":
                self.began = event["time"]
            case "trial":
                self._start(event)
            case "epoch":
                entry = self.entries[event["trial"]]
                before = len(entry.curve)
                del entry.curve[event["epoch"] - 1 :]
                entry.curve.append(event["metrics"])
                self.epochs += len(entry.curve) - before
                self._place(entry)
            case "end":
                entry = self.entries[event["trial"]]
                self._turn(entry, event["status"])
                entry.reason, entry.summary = event["reason"], event["summary"]
                entry.seconds += event["time"] - entry.started
                self.ended.append(entry.number)
            case "replicate":
                self.entries[event["trial"]].replicates[event["replicate"]] = event["value"]
            case "winner":
                self.winner = event
            case "final":
                self.final = event
            case "stop":
                self.stop = event
            case "resume":
                self._resume(event["time"])
        self.last = event["time"]

    def _resume(self, now: float) -> None:
        self.began += now - self.last
        self.stop = self.winner = None
        self.ended.append(RESUMED)
        for entry in self.entries.values():
            if entry.status == "running":
                entry.seconds += self.last - entry.started
                self._turn(entry, "interrupted")
            if entry.status == "interrupted":
                entry.started = now

    def _start(self, event: Mapping[str, Any]) -> None:
        entry = self.entries.get(event["trial"])
        if entry is None:
            entry = TrialState(event["trial"], event["name"], event["values"], event["proposal"], event["epochs"])
            self.entries[entry.number] = entry
            self.counts[entry.status] += 1
        if entry.proposal != event["proposal"]:
            entry.since = len(entry.curve)
        self._turn(entry, "running")
        self._by_proposal[event["proposal"]] = entry.number
        entry.reason, entry.proposal, entry.target = None, event["proposal"], event["epochs"]
        entry.started, entry.worker = event["time"], event.get("worker", "")
        entry.summary = event.get("network", {})
        entry.values, entry.retried = event["values"], entry.retried or "retry" in event

    def _turn(self, entry: TrialState, status: Status) -> None:
        self.counts[entry.status] -= 1
        self.counts[status] += 1
        entry.status = status
        self._place(entry)

    def _place(self, entry: TrialState) -> None:
        value = entry.best(self.objective) if entry.status != "failed" else None
        self._ranking.put(entry.number, None if value is None else self._sign * value)

    @property
    def _sign(self) -> int:
        return -1 if self.objective.direction == "max" else 1

    def ranked(self, count: int | None = None) -> list[TrialState]:
        """Trials with a value, the best first, `count` at most; those that failed are left out.

        Trials with replicates come first, by their mean: it says more than one training.
        """
        if self.winner is None:
            return [self.entries[number] for number in self._ranking.first(count)]
        means = {int(n): self._sign * told["mean"] for n, told in self.winner["results"].items()}
        finalists = sorted((n for n in means if n in self._ranking), key=lambda n: (means[n], n))
        others = [n for n in self._ranking.first() if n not in means]
        return [self.entries[number] for number in [*finalists, *others][:count]]

    def best_of(self, numbers: Iterable[int], count: int) -> list[int]:
        """The best of some trials by their own training; those that failed or have no value are left out."""
        return self._ranking.first_of(numbers, count)

    def number_of(self, proposal: str) -> int:
        """The trial that a proposal began or continued."""
        return self._by_proposal[proposal]

    def spread(self, entry: TrialState) -> Mapping[str, float] | None:
        """Mean, standard deviation and count of a finalist's replicates."""
        return self.winner["results"].get(str(entry.number)) if self.winner else None

    def front(self) -> list[TrialState]:
        """The Pareto front of the trials that ended well, the best by the first objective first."""
        if not self.objective.also:
            return []
        ended = [e for e in self.ranked() if e.status in ("completed", "pruned")]
        points = [(e, point) for e in ended if (point := e.point(self.objective)) is not None]
        return [points[index][0] for index in front([point for _, point in points])]

    def with_status(self, *statuses: Status) -> list[TrialState]:
        return [e for e in self.entries.values() if e.status in statuses]

    def failures_in_a_row(self) -> int:
        count = 0
        for number in reversed(self.ended):
            if number == RESUMED or self.entries[number].status != "failed":
                break
            count += 1
        return count

    def reasons(self, count: int) -> str:
        """Why the last `count` trials failed, each reason once: "3 × loss is nan in epoch 1; killed by SIGKILL"."""
        reasons = Counter(self.entries[n].reason or "for no known reason" for n in self.ended[-count:])
        several = [f"{times} × {reason}" if times > 1 else reason for reason, times in reasons.most_common(3)]
        return "; ".join(several) + (" …" if len(reasons) > 3 else "")


def replay(events: Iterable[Mapping[str, Any]], objective: Objective) -> SweepState:
    ledger = SweepState(objective)
    for event in events:
        ledger.apply(event)
    return ledger

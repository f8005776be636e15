"""The loop of a sweep: ask, train, tell, record, until the budget is spent; then the winner meets the test set."""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cnnsweep.executors.base import Event, Executor
from cnnsweep.executors.batch import run_all
from cnnsweep.journal.journal import Journal
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search import search as searches
from cnnsweep.search_space import space as spaces
from cnnsweep.search_space.problem import Problem, short_name, trial_seed
from cnnsweep.sweep import replicates
from cnnsweep.sweep.budget import spent, used_up
from cnnsweep.sweep.failures import is_full_disk, is_out_of_memory
from cnnsweep.sweep.limits import Watchdog
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.gallery import GallerySpec, draw_gallery
from cnnsweep.training.pricing import Pricer
from cnnsweep.training.train import stopped_after, train
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec

INTERRUPT = "interrupted"
GRACE = 0.1
"""The share of budget.minutes by which running trials may go beyond it, to reach their next rung or their end."""
FULL_DISK = "the disk is full; free some of it, then resume"
BATCH = "training.batch_size"
_log = logging.getLogger("cnnsweep.sweep")


class Listener(Protocol):
    """Someone who follows the events: the tracker, the display."""

    def log(self, event: Mapping[str, Any]) -> None: ...


@dataclass
class Sweep:
    """Everything that one sweep consists of, and its state while it runs."""

    folder: Path
    problem: Problem
    search: searches.Search
    executor: Executor
    journal: Journal
    ledger: SweepState
    listeners: list[Listener]
    pending: dict[int, bool] = field(default_factory=dict)
    """Trials that an earlier run of the sweep left unfinished; whether the search wanted to see more of each."""
    stopping: str | None = None
    """Why no new trial is started: the budget that is spent, too many failures, an interrupt."""
    halt: bool = False
    """Running trials are to stop at the end of their epoch."""
    interrupted: bool = False
    """Someone asked for it, or the disk is full: what runs is to be resumed."""
    abandoned: bool = False
    """Someone asked twice."""
    job: Any = train
    pricer: Pricer | None = None
    """Predicts how long trials take; without one every proposal is started."""
    _running: dict[str, int] = field(default_factory=dict)
    _waiting: bool = False

    def begin(self, event: str = "sweep", **fields: Any) -> None:
        """Write the journal's first line, or the first one after a `resume`."""
        self._record(event, pid=os.getpid(), host=platform.node(), **fields)

    def run(self) -> None:
        """Search until the budget is spent, the space is exhausted, failures are too many or someone interrupts.

        Raises KeyboardInterrupt where someone asked twice.
        """
        watchdog = self._watchdog
        while True:
            self._check_budget()
            self._fill()
            if not self._running:
                self.stopping = self.stopping or used_up(self.problem.config["budget"], len(self.ledger.entries))
                return
            event = self._wait(0.0)
            if event is None:
                if not self.stopping:
                    self.search.prepare()
                event = self._wait()
            if event is not None:
                self._handle(event)
            for worker in getattr(self.executor, "notes", ()):  # what it waits for has an end of its own
                watchdog.heard(worker)
            for worker, reason in watchdog.overdue():
                self.executor.kill(worker, reason)

    def finish(self) -> None:
        """Train the finalists again, evaluate the best trial on the test set, once, and close the sweep."""
        self._replicate()
        ranked = self.ledger.ranked()
        if ranked and not self.interrupted and not self._evaluated(ranked[0]):
            self._evaluate(ranked[0])
        if not self.interrupted:
            self._show(ranked[: self.problem.config["tracking"]["gallery"]])
        self._stop("interrupted" if self.interrupted else "completed" if ranked else "failed")

    def interrupt(self, reason: str = INTERRUPT) -> None:
        """No new trials; running ones stop at the end of their epoch."""
        self.stopping, self.halt, self.interrupted = reason, True, True

    def abandon(self) -> None:
        """Do not wait for running trials: `run` raises KeyboardInterrupt, between two events."""
        self.abandoned = True
        if self._waiting:
            raise KeyboardInterrupt

    def give_up(self) -> None:
        """Write down that running trials were left where they are."""
        self.interrupt()
        for worker in list(self._running):
            self._end(worker, TrialResult(self._running[worker], "interrupted", "stopped at once"))
        self._stop("interrupted")

    @cached_property
    def _watchdog(self) -> Watchdog:
        return Watchdog.of(self.problem.config["executor"])

    def _record(self, event: str, **fields: Any) -> None:
        record = self.journal.append(event, **fields)
        self.ledger.apply(record)
        for listener in self.listeners:
            listener.log(record)

    def _stop(self, status: str) -> None:
        front = {"front": [e.number for e in self.ledger.front()]} if self.ledger.objective.also else {}
        self._record("stop", status=status, reason=self.stopping, summary=self._summary(), **front)

    def _wait(self, timeout: float | None = None) -> Event | None:
        self._waiting = True
        try:
            if self.abandoned:
                raise KeyboardInterrupt
            return self.executor.wait(timeout=self._patience() if timeout is None else timeout)
        finally:
            self._waiting = False

    def _fill(self) -> None:
        for worker in [worker for worker in self.executor.workers if worker not in self._running]:
            while self.pending and worker not in self._running:
                number = next(iter(self.pending))
                self._continue(worker, self.ledger.entries[number], self.pending.pop(number))
            if self.stopping:
                continue
            if worker not in self._running:
                proposal = self.search.ask(worker)
                if isinstance(proposal, str):
                    return
                if self._is_too_long(proposal):
                    continue
                self._start(worker, proposal)
                self._check_budget()

    def _is_too_long(self, proposal: searches.Proposal) -> bool:
        """Whether the time left is not enough for it, after which nothing more is started.

        A promoted trial is started all the same: each epoch more of a good network is worth having.
        """
        minutes = self.problem.config["budget"]["minutes"]
        if not minutes or self.pricer is None or not self.ledger.ended or proposal.continues:
            return False
        seconds = self.pricer.seconds(proposal.values, proposal.epochs or self.problem.config["training"]["epochs"])
        left = self.ledger.began + 60 * minutes - time.time()
        if seconds is None or seconds <= left:
            return False
        self.stopping = (
            f"budget.minutes ({minutes:g}): the next trial would take {seconds:.0f} s, {left:.0f} s are left"
        )
        return True

    def _start(self, worker: str, proposal: searches.Proposal) -> None:
        entries = self.ledger.entries
        number = self.ledger.number_of(proposal.continues) if proposal.continues else len(entries) + 1
        done = len(entries[number].curve) if number in entries else 0
        self._submit(worker, number, proposal, done, since=done)

    def _continue(self, worker: str, entry: TrialState, keep_on: bool) -> None:
        """Go on with a trial that an earlier run of the sweep left behind, or write the end that it had reached."""
        done = len(entry.curve)
        if done > entry.since and not (keep_on and not self.halt):
            result = TrialResult(entry.number, "pruned", stopped_after(done), done)
            self._running[worker] = entry.number
            self._end(worker, result)
        elif not self.interrupted:
            again = searches.Proposal(entry.proposal, entry.values, entry.target)
            self._submit(worker, entry.number, again, done, since=entry.since)

    def _submit(self, worker: str, number: int, proposal: searches.Proposal, done: int, since: int, **why: Any) -> None:
        spec = self._spec(number, proposal, done, since)
        self.executor.submit(worker, self.job, spec)
        self._running[worker] = number
        if self.pricer:
            self.pricer.start(number, spec.values)
        self._watchdog.started(worker, self.ledger.entries[number].seconds if number in self.ledger.entries else 0)
        self._record(
            "trial",
            trial=number,
            name=short_name(number, spec.config["model"], spec.values),
            values=spec.values,
            seed=spec.seed,
            epochs=spec.epochs,
            proposal=proposal.id,
            worker=worker,
            config=spec.config,
            network=self._costs(spec.values),
            **why,
        )

    def _spec(self, number: int, proposal: searches.Proposal, done: int, since: int) -> TrialSpec:
        config = spaces.apply(self.problem.config, proposal.values)
        return TrialSpec(
            number=number,
            values=dict(proposal.values),
            config=config,
            seed=trial_seed(config["seed"], number),
            folder=self.folder / "trials" / f"{number:03d}",
            data=self.folder / "data",
            epochs=proposal.epochs or total_epochs(config["training"]),
            initial_epoch=done,
            since=since,
        )

    def _costs(self, values: Mapping[str, Any]) -> dict[str, float]:
        network = self.problem.judge(values).network
        return {"parameters": network.parameters, "mmacs": round(network.mmacs, 4)} if network else {}

    def _handle(self, event: Event) -> None:
        number = self._running[event.worker]
        entry = self.ledger.entries[number]
        if event.kind == "report":
            self._watchdog.heard(event.worker)
            report, keep_on = event.value, True
            if report.epoch > len(entry.curve):  # else it is told again, by a trial that had to begin again
                keep_on = self.search.report(entry.proposal, report.epoch, report.metrics)
                self._record("epoch", trial=number, epoch=report.epoch, metrics=dict(report.metrics))
                self._check_budget()
            if self.pricer and "epoch_seconds" in report.metrics:
                self.pricer.epoch(number, report.metrics["epoch_seconds"])
            event.answer(keep_on and not self._halts(entry))
        elif event.kind == "lost" and self._retries(entry, str(event.value)):
            self._retry(event.worker, entry, str(event.value))
        else:
            lost = TrialResult(number, "failed", str(event.value))
            self._end(event.worker, event.value if event.kind == "result" else lost)

    def _end(self, worker: str, result: TrialResult) -> None:
        entry = self.ledger.entries[self._running.pop(worker)]
        self._watchdog.ended(worker)
        status, reason = result.status, result.reason
        if status == "failed" and is_full_disk(reason, self.folder):
            self.interrupt(f"{FULL_DISK} ({reason})")
            status = "interrupted"
        elif status == "pruned" and self.halt:
            status, reason = ("interrupted" if self.interrupted else "completed"), self.stopping
        elif status == "completed" and len(entry.curve) == entry.target and (left := self.search.left_at(entry.target)):
            status, reason = "pruned", left
        if status != "interrupted":
            self.search.end(entry.proposal, entry.counts(status, self.ledger.objective))
        timing = self.pricer.end(entry.number, time.time() - entry.started) if self.pricer else {}
        summary = {**self._costs(entry.values), **result.summary, **timing}
        self._record("end", trial=entry.number, status=status, reason=reason, epochs=len(entry.curve), summary=summary)
        most = self.problem.config["search"].get("max_failures")
        if most and self.ledger.failures_in_a_row() >= most and not self.stopping:
            self.stopping = f"{most} trials in a row failed (search.max_failures): {self.ledger.reasons(most)}"

    def _retries(self, entry: TrialState, reason: str) -> bool:
        training = spaces.apply(self.problem.config, entry.values)["training"]
        wanted = training["retry_smaller_batch"] and training["batch_size"] > 1 and not self.halt
        return bool(wanted and not entry.retried and is_out_of_memory(reason))

    def _retry(self, worker: str, entry: TrialState, reason: str) -> None:
        """Start a trial that ran out of memory again, once, with half the batch."""
        batch = spaces.apply(self.problem.config, entry.values)["training"]["batch_size"] // 2
        smaller = searches.Proposal(entry.proposal, {**entry.values, BATCH: batch}, entry.target)
        self._watchdog.ended(worker)
        self._submit(worker, entry.number, smaller, len(entry.curve), entry.since, retry=reason)

    def _check_budget(self) -> None:
        promotes = getattr(self.search.oracle, "promotes", False)
        if not self.stopping and (reached := spent(self.problem.config["budget"], self.ledger, promotes)):
            self.stopping, self.halt = reached

    def _replicate(self) -> None:
        config, ledger = self.problem.config, self.ledger
        if not config["budget"]["replicates"] or self.interrupted:
            return
        entries = replicates.finalists(config["budget"], ledger)
        todo = replicates.wanted(config, ledger)
        specs = [replicates.spec(config, self.folder, entry, number) for entry, number in todo]
        values: list[list[float]] = [[] for _ in specs]

        def report(index: int, told: EpochReport) -> bool:
            values[index].append(told.metrics[ledger.objective.metric])
            return not self.interrupted

        def end(index: int, event: Event) -> None:
            replicates.clear(specs[index])
            if self.interrupted:
                return
            entry, number = todo[index]
            lost = TrialResult(entry.number, "failed", str(event.value))
            result = event.value if event.kind == "result" else lost
            best = ledger.objective.best(values[index]) if result.status != "failed" else None
            value = None if best is None else values[index][best]
            told = {"trial": entry.number, "replicate": number, "seed": specs[index].seed, "value": value}
            self._record("replicate", **told, epochs=len(values[index]), reason=result.reason)

        tasks = [(self.job, spec) for spec in specs]
        run_all(self.executor, tasks, report, self._wait, end, lambda: not self.interrupted)
        if not self.interrupted and (won := replicates.outcome(entries, ledger)):
            self._record("winner", **won)

    def _halts(self, entry: TrialState) -> bool:
        """Whether a running trial is to stop now. Time that is up leaves it a chance to reach its next rung."""
        minutes = self.problem.config["budget"]["minutes"]
        late = minutes and time.time() >= self.ledger.began + 60 * minutes
        if not self.halt or self.interrupted or not late or not entry.curve:
            return self.halt
        epoch = len(entry.curve)
        left = min(self.search.next_rung(entry.proposal, epoch), entry.target) - epoch
        seconds = left * entry.curve[-1].get("epoch_seconds", math.inf) if left > 0 else 0.0
        return time.time() + seconds > self.ledger.began + 60 * minutes * (1 + GRACE)

    def _evaluated(self, best: TrialState) -> bool:
        """Whether the test set has met this very network: one look is enough."""
        final = self.ledger.final
        return final is not None and (final["trial"], final["epoch"]) == (
            best.number,
            best.best_epoch(self.ledger.objective),
        )

    def _patience(self) -> float | None:
        minutes = self.problem.config["budget"]["minutes"]
        return max(0.05, self.ledger.began + 60 * minutes - time.time()) if minutes and not self.stopping else 1.0

    def _evaluate(self, best: TrialState) -> None:
        config = spaces.apply(self.problem.config, best.values)
        seed = trial_seed(config["seed"], best.number)
        trial = self.folder / "trials" / f"{best.number:03d}"
        spec = FinalSpec(best.number, config, seed, trial, self.folder / "data", self.folder / "best")
        self.executor.submit(self.executor.workers[0], evaluate_best, spec)
        while (event := self._wait()) is None:
            pass
        if event.kind == "result":
            epoch = best.best_epoch(self.ledger.objective)
            self._record("final", trial=best.number, epoch=epoch, folder=str(spec.output), **event.value)
        elif is_full_disk(str(event.value), self.folder):
            self.interrupt(f"{FULL_DISK} ({event.value})")
        else:
            self.stopping = f"{self.stopping}; the best model could not be evaluated: {event.value}"

    def _show(self, best: list[TrialState]) -> None:
        """Pictures of the best networks. They are extras: one that fails is left out."""
        tasks = []
        for entry in best:
            config = spaces.apply(self.problem.config, entry.values)
            trial = self.folder / "trials" / f"{entry.number:03d}"
            seed = trial_seed(config["seed"], entry.number)
            tasks.append((draw_gallery, GallerySpec(entry.number, config, seed, trial, self.folder / "data")))
        for entry, event in zip(best, run_all(self.executor, tasks, wait=self._wait), strict=True):
            if event.kind == "result":
                self._record("gallery", trial=entry.number, folder=event.value)
            else:
                _log.warning("no pictures of trial %d: %s", entry.number, event.value)

    def _summary(self) -> dict[str, float]:
        ledger = self.ledger
        statuses: tuple[Status, ...] = ("completed", "pruned", "failed", "interrupted")
        counts = {f"trials_{s}": float(ledger.counts[s]) for s in statuses}
        seconds = sum(e.seconds for e in ledger.entries.values())
        return {
            **counts,
            "epochs": float(ledger.epochs),
            "trial_seconds": round(seconds, 3),
            "sweep_seconds": round(time.time() - ledger.began, 3),
            **(self.pricer.summary() if self.pricer else {}),
        }

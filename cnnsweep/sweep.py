"""The loop of a sweep: ask, train, tell, record, until the budget is spent; then the winner meets the test set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cnnsweep import search as searches
from cnnsweep import space as spaces
from cnnsweep.evaluation import FinalSpec, evaluate_best
from cnnsweep.executors import Event, Executor
from cnnsweep.journal import Journal
from cnnsweep.ledger import Entry, Ledger
from cnnsweep.problem import Problem, short_name, trial_seed
from cnnsweep.training import train
from cnnsweep.trial import Status, TrialResult, TrialSpec


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
    ledger: Ledger
    listeners: list[Listener]
    stopping: str | None = None
    """Why no new trial is started: the budget that is spent, too many failures, an interrupt."""
    halt: bool = False
    """Running trials are to stop at the end of their epoch."""
    job: Any = train
    _running: dict[str, int] = field(default_factory=dict)

    def begin(self, **fields: Any) -> None:
        """Write the journal's first line."""
        self._record("sweep", **fields)

    def run(self) -> None:
        """Search until the budget is spent, the space is exhausted, failures are too many or someone interrupts."""
        while True:
            self._check_budget()
            self._fill()
            if not self._running:
                self.stopping = self.stopping or "every valid configuration was tried"
                return
            event = self.executor.wait(timeout=self._patience())
            if event is not None:
                self._handle(event)

    def finish(self) -> None:
        """Evaluate the best trial on the test set, once, and close the sweep."""
        ranked = self.ledger.ranked()
        interrupted = self.halt and self.stopping == INTERRUPT
        if ranked and not interrupted:
            self._evaluate(ranked[0])
        status = "interrupted" if interrupted else "completed" if ranked else "failed"
        self._record("stop", status=status, reason=self.stopping, summary=self._summary())

    def interrupt(self) -> None:
        """No new trials; running ones stop at the end of their epoch."""
        self.stopping, self.halt = INTERRUPT, True

    def _record(self, event: str, **fields: Any) -> None:
        record = self.journal.append(event, **fields)
        self.ledger.apply(record)
        for listener in self.listeners:
            listener.log(record)

    def _fill(self) -> None:
        for slot in self.executor.slots:
            if self.stopping:
                return
            if slot not in self._running:
                proposal = self.search.ask(slot)
                if isinstance(proposal, str):
                    return
                self._start(slot, proposal)
                self._check_budget()

    def _start(self, slot: str, proposal: searches.Proposal) -> None:
        entries = self.ledger.entries
        number = self._number_of(proposal.continues) if proposal.continues else len(entries) + 1
        done = len(entries[number].curve) if number in entries else 0
        spec = self._spec(number, proposal, done)
        self.executor.submit(slot, self.job, spec)
        self._running[slot] = number
        self._record(
            "trial",
            trial=number,
            name=short_name(number, spec.config["model"], spec.values),
            values=spec.values,
            seed=spec.seed,
            epochs=spec.epochs,
            proposal=proposal.id,
            slot=slot,
            config=spec.config,
            network=self._costs(spec.values),
        )

    def _spec(self, number: int, proposal: searches.Proposal, done: int) -> TrialSpec:
        config = spaces.apply(self.problem.config, proposal.values)
        return TrialSpec(
            number=number,
            values=dict(proposal.values),
            config=config,
            seed=trial_seed(config["seed"], number),
            folder=self.folder / "trials" / f"{number:03d}",
            data=self.folder / "data",
            epochs=proposal.epochs or config["training"]["epochs"],
            initial_epoch=done,
        )

    def _costs(self, values: Mapping[str, Any]) -> dict[str, float]:
        network = self.problem.judge(values).network
        return {"parameters": network.parameters, "mflops": round(network.mflops, 4)} if network else {}

    def _number_of(self, proposal: str) -> int:
        return next(e.number for e in self.ledger.entries.values() if e.proposal == proposal)

    def _handle(self, event: Event) -> None:
        number = self._running[event.slot]
        entry = self.ledger.entries[number]
        if event.kind == "report":
            report = event.value
            keep_on = self.search.report(entry.proposal, report.epoch, report.metrics)
            self._record("epoch", trial=number, epoch=report.epoch, metrics=dict(report.metrics))
            self._check_budget()
            event.answer(keep_on and not self.halt)
            return
        del self._running[event.slot]
        result = event.value if event.kind == "result" else TrialResult(number, "failed", str(event.value))
        self.search.end(
            entry.proposal, succeeded=result.status != "failed" and entry.best(self.ledger.objective) is not None
        )
        status, reason = result.status, result.reason
        if status == "pruned" and self.halt:
            status, reason = ("interrupted" if self.stopping == INTERRUPT else "completed"), self.stopping
        summary = {**self._costs(entry.values), **result.summary}
        self._record("end", trial=number, status=status, reason=reason, epochs=len(entry.curve), summary=summary)
        most = self.problem.config["search"].get("max_failures")
        if most and self.ledger.failures_in_a_row() >= most and not self.stopping:
            reasons = sorted({e.reason or "?" for e in self.ledger.with_status("failed")})
            self.stopping = f"{most} trials in a row failed: {'; '.join(reasons[:3])}"

    def _check_budget(self) -> None:
        budget = self.problem.config["budget"]
        if self.stopping:
            return
        if budget["minutes"] and time.time() - self.ledger.began >= 60 * budget["minutes"]:
            self.stopping, self.halt = f"budget.minutes ({budget['minutes']:g}) is spent", True
        elif budget["epochs"] and self.ledger.epochs >= budget["epochs"]:
            self.stopping, self.halt = f"budget.epochs ({budget['epochs']}) is spent", True
        elif budget["trials"] and len(self.ledger.entries) >= budget["trials"] and not self._promotes():
            self.stopping = f"budget.trials ({budget['trials']}) is reached"

    def _promotes(self) -> bool:
        # Such a search stops proposing new configurations by itself, and then finishes its rungs.
        return getattr(self.search.oracle, "promotes", False)

    def _patience(self) -> float | None:
        minutes = self.problem.config["budget"]["minutes"]
        return max(0.05, self.ledger.began + 60 * minutes - time.time()) if minutes and not self.stopping else 1.0

    def _evaluate(self, best: Entry) -> None:
        config = spaces.apply(self.problem.config, best.values)
        seed = trial_seed(config["seed"], best.number)
        trial = self.folder / "trials" / f"{best.number:03d}"
        spec = FinalSpec(best.number, config, seed, trial, self.folder / "data", self.folder / "best")
        self.executor.submit(self.executor.slots[0], evaluate_best, spec)
        while (event := self.executor.wait()) is None:
            pass
        if event.kind == "result":
            self._record("final", trial=best.number, folder=str(spec.output), **event.value)
        else:
            self.stopping = f"{self.stopping}; the best model could not be evaluated: {event.value}"

    def _summary(self) -> dict[str, float]:
        ledger = self.ledger
        statuses: tuple[Status, ...] = ("completed", "pruned", "failed", "interrupted")
        counts = {f"trials_{s}": float(len(ledger.with_status(s))) for s in statuses}
        seconds = sum(e.seconds for e in ledger.entries.values())
        return {
            **counts,
            "epochs": float(ledger.epochs),
            "trial_seconds": round(seconds, 3),
            "sweep_seconds": round(time.time() - ledger.began, 3),
        }


INTERRUPT = "interrupted"

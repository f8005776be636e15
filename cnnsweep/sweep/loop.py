"""The loop of a sweep: ask the search, submit to free workers, handle what they report, until a limit is reached."""

from __future__ import annotations

from dataclasses import asdict

from cnnsweep.executors.base import Event as Message
from cnnsweep.formatting import counted
from cnnsweep.journal.events import EpochEnded, Event, TrialEnded, TrialStarted
from cnnsweep.journal.state import TrialState
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search.oracle import Proposal
from cnnsweep.sweep import limits
from cnnsweep.sweep.folds import rival_of_next
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.training.early_stopping import stopped_after
from cnnsweep.training.folds import FOLDS
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec, trial_seed


def search(sweep: Sweep) -> None:
    """Search until a budget is spent, the space is exhausted, too many trials failed or someone interrupts.

    Raises KeyboardInterrupt where someone asked twice.
    """
    while True:
        _check_budget(sweep)
        _fill_workers(sweep)
        if not sweep.running:
            sweep.stopping = sweep.stopping or limits.used_up(sweep.config.budget, len(sweep.state.trials))
            return
        message = sweep.wait(0.0)
        if message is None:
            if not sweep.stopping:
                sweep.search.prepare()
            message = sweep.wait()
        if message is not None:
            _handle(sweep, message)


def _fill_workers(sweep: Sweep) -> None:
    for worker in [worker for worker in sweep.executor.workers if worker not in sweep.running]:
        while sweep.pending and worker not in sweep.running:
            number = next(iter(sweep.pending))
            _resume(sweep, worker, sweep.state.trials[number], sweep.pending.pop(number))
        if worker in sweep.running or sweep.stopping:
            continue
        known = sweep.forecaster, sweep.config, sweep.state, sweep.now()
        sweep.search.seconds_left = sweep.seconds_left
        sweep.search.untried.fits = limits.fitting(sweep.search.rungs, *known)
        proposal = sweep.search.ask(worker)
        if isinstance(proposal, str):
            return
        if reason := limits.too_late(proposal, *known):
            sweep.stopping = reason
        else:
            _submit(sweep, worker, proposal)
            _check_budget(sweep)


def _resume(sweep: Sweep, worker: str, trial: TrialState, keep_on: bool) -> None:
    """Go on with a trial that an earlier run of the sweep did not finish, or record the end that it had reached."""
    done, has_ended = trial.done, trial.has_ended
    if done > trial.since and (sweep.halt or not keep_on) and not has_ended:
        sweep.running[worker] = trial.number
        if not keep_on:
            sweep.pruned.add(trial.number)
        end(sweep, worker, TrialResult(trial.number, "pruned", stopped_after(done), done))
    elif not sweep.interrupted and not (sweep.halt and has_ended):
        if has_ended:
            sweep.search.reopen(trial.proposal)
        _submit(sweep, worker, Proposal(trial.proposal, trial.values, trial.target), trial)


def _submit(
    sweep: Sweep, worker: str, proposal: Proposal, same: TrialState | None = None, retry: str | None = None
) -> None:
    """Start a proposal as a new trial, as the trial that it continues, or the same trial again."""
    trials, config = sweep.state.trials, sweep.config.with_values(proposal.values)
    trial = same or (trials[sweep.state.by_proposal[proposal.continues]] if proposal.continues else None)
    number, done = (trial.number, trial.done) if trial else (len(trials) + 1, 0)
    rival = trial.rival if trial else rival_of_next(config, sweep.search, sweep.state)
    spec = TrialSpec(
        number, dict(proposal.values), config, trial_seed(config.seed, number),
        folder=sweep.trial_folder(number), data=sweep.folder / "data",
        epochs=proposal.epochs or total_epochs(config.training),
        initial_epoch=done, since=same.since if same else done,
        rival=rival, again=same is not None and same.status != "failed",
        seconds=sum(epoch.get("epoch_seconds", 0.0) for epoch in trial.curve[:done]) if trial else 0.0,
    )  # fmt: skip
    sweep.executor.submit(worker, sweep.job, spec)
    sweep.running[worker], sweep.begun[number] = number, sweep.now()
    sweep.pruned.discard(number)
    if sweep.forecaster:
        sweep.forecaster.start(number, spec.values)
    started = TrialStarted(
        trial=number, title=spec.title, values=spec.values, seed=spec.seed,
        epochs=spec.epochs, proposal=proposal.id, worker=worker, config=config.plain(),
        network=sweep.costs(spec.values), retry=retry, rival=asdict(rival) if rival else None,
    )  # fmt: skip
    sweep.record(started)


def _handle(sweep: Sweep, message: Message) -> None:
    worker, trial = message.worker, sweep.state.trials[sweep.running[message.worker]]
    if message.kind == "report":
        keep_on, recorded = _report(sweep, trial, message.value)
        message.answer(keep_on)
        if recorded:  # after the answer, for which the worker waits
            sweep.notify(recorded)
    elif message.kind == "result":
        end(sweep, worker, message.value)
    else:
        training, reason = sweep.config.with_values(trial.values).training, str(message.value)
        if not sweep.halt and not trial.retried and limits.may_retry(training, reason):
            values = {**trial.values, "training.batch_size": training.batch_size // 2}
            _submit(sweep, worker, Proposal(trial.proposal, values, trial.target), trial, retry=reason)
        else:
            end(sweep, worker, TrialResult(trial.number, "failed", reason))


def _report(sweep: Sweep, trial: TrialState, report: EpochReport) -> tuple[bool, Event | None]:
    """Write an epoch to the journal; return whether the trial is to keep on, and the event."""
    if report.note:
        sweep.say(report.note)
    keep_on, recorded = True, None
    if report.epoch > len(trial.curve):  # else it is repeated, by a trial that had to begin again
        sweep.search.seconds_left = sweep.seconds_left
        keep_on = sweep.search.report(trial.proposal, report.epoch, report.metrics)
        recorded = sweep.write(EpochEnded(trial=trial.number, epoch=report.epoch, metrics=dict(report.metrics)))
        _check_budget(sweep)
        if not keep_on:
            sweep.pruned.add(trial.number)
    if sweep.forecaster and "epoch_seconds" in report.metrics:
        sweep.forecaster.epoch(trial.number, report.metrics["epoch_seconds"])
    if not (sweep.halt and keep_on) or sweep.interrupted:
        return keep_on and not sweep.interrupted, recorded
    rung = sweep.search.next_rung(trial.proposal, len(trial.curve))
    return limits.reaches_rung(trial, rung, sweep.config.budget, sweep.state, sweep.now()), recorded


def end(sweep: Sweep, worker: str, result: TrialResult) -> None:
    """Record the end of a worker's trial."""
    trial, status, reason = sweep.state.trials[sweep.running.pop(worker)], result.status, result.reason
    if status == "failed" and (fault := limits.no_room(reason, sweep.folder)):
        sweep.interrupt(fault)
        status = "interrupted"
    elif status == "pruned" and sweep.halt and trial.number not in sweep.pruned and FOLDS not in result.summary:
        ended: Status = "completed" if trial.curve and not sweep.search.promotes else "pruned"
        status, reason = ("interrupted" if sweep.interrupted else ended), sweep.stopping
    elif status == "completed" and len(trial.curve) == trial.target and (left := sweep.search.left_at(trial.target)):
        status, reason = "pruned", left
    if status != "interrupted":
        sweep.search.end(trial.proposal, trial.succeeded(status, sweep.state.objective), status == "completed")
    timing = sweep.forecaster.end(trial.number, sweep.seconds_of(trial)) if sweep.forecaster else {}
    summary = {**sweep.costs(trial.values), **result.summary, **timing}
    sweep.record(TrialEnded(trial=trial.number, status=status, reason=reason, epochs=len(trial.curve), summary=summary))
    most = sweep.config.search.max_failures
    if most and sweep.state.failures_in_a_row() >= most and not sweep.stopping:
        sweep.stopping = f"{counted(most, 'trial')} in a row failed (search.max_failures): {sweep.state.reasons(most)}"


def _check_budget(sweep: Sweep) -> None:
    reached = limits.spent(sweep.config.budget, sweep.state, sweep.now(), sweep.search.promotes)
    if reached and not sweep.halt and (reached[1] or not sweep.stopping):
        before, reason = sweep.stopping or "", reached[0]
        if not before.startswith(reason):  # it was foreseen then
            sweep.stopping = f"{before}; {reason}" if before else reason
        sweep.halt = reached[1]

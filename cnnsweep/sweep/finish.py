"""The end of a sweep, and of its trials: replicates, the final test, pictures, and the removal of unneeded files."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnnsweep.config.schema import Budget
from cnnsweep.executors.base import Event as Message
from cnnsweep.executors.base import Job, run_all
from cnnsweep.journal.events import (
    BestTested,
    Event,
    GalleryDrawn,
    ReplicateEnded,
    SweepStopped,
    TrialEnded,
    WinnerChosen,
)
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.search.oracle import Oracle
from cnnsweep.sweep import loop
from cnnsweep.sweep.limits import ALL_TRIED, UNTESTED, cut_off, no_room
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.training import checkpoint, own_checkpoints
from cnnsweep.training.early_stopping import without_early_stopping
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.gallery import draw_gallery, gallery_folder
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec, trial_seed

ENDED: tuple[Status, ...] = ("completed", "pruned", "failed")
LEAST, MOST, CAUTION = 2, 10, 0.8
"""Replicates of a finalist that are worth making unasked, and the share of the time left that they may take."""
SHARE = 10
"""One in so many trials that hold files may have ended since all were looked at."""


def finish(sweep: Sweep) -> None:
    """Train the finalists again, evaluate the best trial on the test set, once, and record the sweep's end."""
    replicate(sweep)
    ranked = sweep.state.ranked()
    networks = sweep.config.trains_networks
    if networks and ranked and not sweep.interrupted and not sweep.state.tested():
        test(sweep, ranked[0])
    if networks and not sweep.interrupted:
        draw(sweep, ranked[: sweep.config.tracking.gallery])
    _stop(sweep, "interrupted" if sweep.interrupted else "completed" if ranked else "failed")


def give_up(sweep: Sweep) -> None:
    """Record that running trials were interrupted where they were."""
    sweep.interrupt()
    for worker in list(sweep.running):
        loop.end(sweep, worker, TrialResult(sweep.running[worker], "interrupted", "stopped at once"))
    _stop(sweep, "interrupted")


def replicate(sweep: Sweep) -> None:
    """Train the finalists again with other seeds, so that the winner is not the luckiest."""
    budget, state = with_replicates(sweep), sweep.state
    if not budget.replicates or sweep.interrupted:
        return
    missing = state.missing_replicates(budget)
    specs = [_replicate_spec(sweep, trial, number) for trial, number in missing]
    values: list[list[float]] = [[] for _ in specs]

    def on_report(index: int, report: EpochReport) -> bool:
        values[index].append(report.metrics[state.objective.metric])
        return not sweep.interrupted

    def on_end(index: int, message: Message) -> None:
        spec, found = specs[index], values[index]
        shutil.rmtree(spec.folder, ignore_errors=True)  # its value is all that is kept
        lost = TrialResult(spec.number, "failed", str(message.value))
        result: TrialResult = message.value if message.kind == "result" else lost
        if result.status == "failed" and (fault := no_room(result.reason, sweep.folder)):
            sweep.interrupt(fault)
        best = state.objective.best(found) if result.status != "failed" else None
        value, reason = None if best is None else found[best], result.reason
        again = {"trial": spec.number, "replicate": missing[index][1], "seed": spec.seed, "epochs": len(found)}
        if not sweep.interrupted:
            sweep.record(ReplicateEnded(**again, value=value, reason=reason))

    tasks = [(sweep.job, spec) for spec in specs]
    run_all(sweep.executor, tasks, on_report, sweep.wait, on_end, lambda: not sweep.interrupted)
    if not sweep.interrupted and (winner := choose_winner(state.finalists(budget), state)):
        sweep.record(winner)


def with_replicates(sweep: Sweep) -> Budget:
    """The budget; where everything was tried before budget.minutes were spent, with replicates that fit in the rest."""
    budget = sweep.config.budget
    if budget.replicates or not budget.minutes or sweep.stopping != ALL_TRIED:
        return budget
    seconds = sum(trial.seconds for trial in sweep.state.finalists(budget.replace(replicates=1)))
    fitting = int(len(sweep.executor.workers) * sweep.seconds_left * CAUTION / max(seconds, 1e-3))
    return budget.replace(replicates=min(fitting, MOST)) if fitting >= LEAST else budget


def _spec(sweep: Sweep, trial: TrialState) -> TrialSpec:
    """A trial as it was trained."""
    config = sweep.config.with_values(trial.values)
    seed, folder = trial_seed(config.seed, trial.number), sweep.trial_folder(trial.number)
    return TrialSpec(
        trial.number, dict(trial.values), config, seed, folder, sweep.folder / "data", epochs=len(trial.curve)
    )


def _replicate_spec(sweep: Sweep, trial: TrialState, number: int) -> TrialSpec:
    """As many epochs as the trial had, with a seed of its own."""
    spec = _spec(sweep, trial)
    return replace(spec, seed=trial_seed(spec.seed, number), folder=spec.folder / "replicates" / str(number))


def choose_winner(finalists: Sequence[TrialState], state: SweepState) -> WinnerChosen | None:
    """The finalist with the best mean; None where no replicate has a value.

    The first training does not count in the mean: it is what made a trial a finalist, by luck in part.
    """
    values = {t.number: [v for v in t.replicates.values() if v is not None] for t in finalists}
    means = {number: statistics.fmean(found) for number, found in values.items() if found}
    if not means:
        return None
    best = min(means, key=lambda number: (state.objective.sign * means[number], number))
    deviations = {number: statistics.stdev(found) if len(found) > 1 else 0.0 for number, found in values.items()}
    results = {str(n): {"mean": means[n], "std": deviations[n], "count": len(values[n])} for n in means}
    return WinnerChosen(trial=best, results=results)


def test(sweep: Sweep, best: TrialState) -> None:
    """Evaluate the network that the best trial had after its best epoch on the test set, and save it.

    Without that network's checkpoint (it was not among the best before) the trial is trained again, up to that epoch.
    """
    spec, epoch = _spec(sweep, best), best.best_epoch(sweep.state.objective)
    if sweep.config.data.folds:
        spec = replace(spec, fold=0, config=without_early_stopping(spec.config))
    try:
        checkpoint.read_state(spec.folder / checkpoint.BEST)
    except ValueError:
        reason = "on all folds together" if spec.fold == 0 else "its checkpoint was not kept"
        sweep.say(f"trial {best.number} is trained again up to epoch {epoch}: {reason}")
        _restore(sweep, replace(spec, folder=spec.folder / "again", epochs=epoch or 0))
    if sweep.interrupted:
        return
    output = sweep.folder / "best"
    message = _run(sweep, evaluate_best, FinalSpec(spec, output))
    if message.kind == "result":
        sweep.record(BestTested(trial=best.number, epoch=epoch, folder=output.name, **message.value))
    elif fault := no_room(str(message.value), sweep.folder):
        sweep.interrupt(fault)
    else:
        sweep.stopping = f"{sweep.stopping}; {UNTESTED}: {message.value}"


def _restore(sweep: Sweep, spec: TrialSpec) -> None:
    """Train a trial again in a folder within its own, and move its best checkpoint to where it belongs."""
    end = _run(sweep, sweep.job, spec)
    if end.kind == "lost":
        sweep.say(f"trial {spec.number} could not be trained again: {end.value}")
    with contextlib.suppress(FileNotFoundError):  # then its evaluation fails, which is said
        name = checkpoint.BEST if spec.fold is None else checkpoint.LAST
        os.replace(spec.folder / name, spec.folder.parent / checkpoint.BEST)
    shutil.rmtree(spec.folder, ignore_errors=True)


def _run(sweep: Sweep, job: Job, argument: object) -> Message:
    """Run one job to its end."""
    (message,) = run_all(sweep.executor, [(job, argument)], lambda *_: not sweep.interrupted, sweep.wait)
    return message


def draw(sweep: Sweep, best: Sequence[TrialState]) -> None:
    """Draw pictures of the best networks. They are extras: one that fails is said and skipped."""
    specs = [FinalSpec(_of_first_fold(_spec(sweep, trial))) for trial in best]
    tasks = [(draw_gallery, spec) for spec in specs]
    for spec, message in zip(specs, run_all(sweep.executor, tasks, wait=sweep.wait), strict=True):
        missing = message.value["missing"] if message.kind == "result" else {"pictures": str(message.value)}
        folder = gallery_folder(spec.trial).relative_to(sweep.folder).as_posix()
        sweep.record(GalleryDrawn(trial=spec.trial.number, folder=folder, missing=missing))


def _of_first_fold(spec: TrialSpec) -> TrialSpec:
    """The trial's network; of data in folds that of the first, which has not seen the images that it is shown on."""
    return replace(spec, fold=1, folder=spec.folder / "fold1") if spec.config.data.folds else spec


def _stop(sweep: Sweep, status: Status) -> None:
    state = sweep.state
    front = [t.number for t in state.front()] if state.objective.also else None
    summary = {
        **{f"trials_{s}": float(state.counts[s]) for s in (*ENDED, "interrupted")},
        "epochs": float(state.epochs),
        "trial_seconds": round(sum(t.seconds for t in state.trials.values()), 3),
        "sweep_seconds": round(sweep.now() - state.began, 3),
        **(sweep.forecaster.summary() if sweep.forecaster else {}),
    }
    sweep.record(SweepStopped(status=status, reason=sweep.stopping, summary=summary, front=front))


class Cleanup:
    """Follows a sweep's events; after each end of a trial only needed checkpoints remain.

    The `keep` best ended trials keep their best epoch's, trials that the search may promote keep both files, and so
    do those that are running, interrupted or cut off by a budget. Where many trials hold files, one in ten more may
    until all are looked at again, so that an end costs the same however many there are.
    """

    def __init__(self, folder: Path, state: SweepState, search: Oracle, keep: int) -> None:
        self._folder = folder
        self._state = state
        self._search = search
        self._keep = max(1, keep)
        self._ends = 0
        found = [*(folder / "trials").glob("*/*.npz*"), *(folder / "trials").glob(f"*/{own_checkpoints.FOLDER}")]
        self._holding = {int(path.parent.name) for path in found if path.parent.name.isdigit()}

    def log(self, event: Event) -> None:
        """Clean up where enough trials ended, and at the end of the sweep."""
        match event:
            case TrialEnded():
                self._holding.add(event.trial)
                self._ends += 1
                if self._ends * SHARE >= len(self._holding):
                    self.clean_up()
            case SweepStopped():
                self.clean_up()

    def clean_up(self) -> None:
        """Remove what is not needed now. Where the disk refuses, it stays."""
        self._ends = 0
        trials = self._state.trials
        promotable = self._search.promotable() | self._too_late()
        ended = [n for n in self._holding if n in trials and trials[n].status in ENDED]
        best = self._state.ranking.first_of(ended, self._keep)
        for number in sorted(ended):
            if trials[number].proposal in promotable or cut_off(trials[number]):
                continue
            kept = number in best
            folder = self._folder / "trials" / f"{number:03d}"
            try:
                for place in (folder, *folder.glob("fold*")):
                    checkpoint.clear(place, (checkpoint.LAST,) if kept else (checkpoint.LAST, checkpoint.BEST))
                own_checkpoints.prune(folder, [own_checkpoints.best(folder, self._state.objective)] if kept else ())
            except OSError:
                continue
            if not kept:
                self._holding.discard(number)

    def _too_late(self) -> set[str | None]:
        """What the search wanted to continue when no time was left; with more time it wants that again."""
        asked = [id_ for id_ in self._search.running if id_ not in self._state.by_proposal]
        return {self._search.proposals[id_].continues for id_ in asked}

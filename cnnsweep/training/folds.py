"""Cross-validation: a trial that is trained on all folds of the data in turn, whose metrics are their means."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from cnnsweep.config.objective import Objective
from cnnsweep.training import checkpoint
from cnnsweep.training.pictures import save_curves
from cnnsweep.trial import EpochReport, Status, TrialResult, TrialSpec

Run = Generator[EpochReport, bool, TrialResult]
Metrics = dict[str, float]


def train_folds(
    spec: TrialSpec,
    folds: int,
    train: Callable[[TrialSpec], Run],
    reason_to_stop: Callable[[Sequence[Metrics], Objective], str | None],
) -> Run:
    """Train one network a fold with `train`, all of them by one epoch before the next, and report the means.

    So a trial is stopped, promoted and resumed with all folds. Each keeps its checkpoints in a folder of its
    own. `reason_to_stop` is early stopping, by the means. A fold that fails ends the trial.
    """
    objective = Objective.of(spec.config.objective)
    alone = spec.config.replace(training=spec.config.training.replace(patience=None, target=None))
    parts = [replace(spec, config=alone, fold=fold, folder=spec.folder / f"fold{fold}") for fold in range(1, folds + 1)]
    runs, rows = [_Fold(train(part)) for part in parts], _earlier(parts, objective)
    status: Status = "completed"
    reason = None
    for epoch in range(len(rows) + 1, spec.epochs + 1):
        if epoch - 1 > spec.since and reason_to_stop(rows, objective):
            break
        reports = []
        for number, run in enumerate(runs, start=1):
            if (report := run.advance(epoch)) is None:
                status, reason = run.ended(number)
                break
            reports.append(report)
        if len(reports) < folds:
            break
        rows.append(mean([{**report.metrics} for report in reports], objective))
        notes = [report.note for report in reports if report.note]
        if not (yield EpochReport(spec.number, epoch, rows[-1], "; ".join(notes) or None)):
            status, reason = "pruned", f"stopped by the search after epoch {epoch}"
            break
    results = [run.stop() for run in runs]
    if rows:
        _draw(spec, parts[0], rows, objective)
    summary = next((result.summary for result in results if result), {})
    return TrialResult(spec.number, status, reason or reason_to_stop(rows, objective), len(rows), summary)


class _Fold:
    """One fold's training."""

    def __init__(self, run: Run) -> None:
        self._run, self._begun = run, False
        self.result: TrialResult | None = None

    def advance(self, epoch: int) -> EpochReport | None:
        """Train up to this epoch and return its report; None where it ended before."""
        try:
            report = self._run.send(True) if self._begun else next(self._run)
            self._begun = True
            while report.epoch < epoch:  # it has begun again
                report = self._run.send(True)
        except StopIteration as end:
            self.result = end.value
            return None
        return report

    def ended(self, number: int) -> tuple[Status, str]:
        """What its end makes of the trial: a failure, or no more than an early end, by a callback."""
        status: Status = "failed" if self.result is None or self.result.status == "failed" else "completed"
        return status, f"fold {number}: {self.result.reason if self.result else 'no result'}"

    def stop(self) -> TrialResult | None:
        """End it where it is; None where it has not begun."""
        if self._begun and self.result is None:
            try:
                self._run.send(False)
            except StopIteration as end:
                self.result = end.value
        return self.result


def mean(rows: Sequence[Metrics], objective: Objective) -> Metrics:
    """The means of the folds' metrics, the time of all, and the objective's standard deviation over the folds.

    >>> goal = Objective.of("val_loss")
    >>> mean([{"val_loss": 1.0, "epoch_seconds": 2.0}, {"val_loss": 3.0, "epoch_seconds": 2.0}], goal)
    {'val_loss': 2.0, 'epoch_seconds': 4.0, 'folds_std_val_loss': 1.4142135623730951}
    """
    found = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    found["epoch_seconds"] = sum(row["epoch_seconds"] for row in rows)
    return {**found, f"folds_std_{objective.metric}": statistics.stdev(row[objective.metric] for row in rows)}


def _earlier(parts: Sequence[TrialSpec], objective: Objective) -> list[Metrics]:
    """The means of the epochs that were reported before."""
    done = parts[0].initial_epoch
    if not done:
        return []
    try:
        known = [checkpoint.read_state(part.folder / checkpoint.LAST).epochs for part in parts]
    except ValueError:  # those that begin again give the same numbers
        return [{objective.metric: float("nan")}] * done
    return [mean([rows[i] for rows in known], objective) for i in range(min(done, *map(len, known)))]


def _draw(spec: TrialSpec, first: TrialSpec, rows: Sequence[Metrics], objective: Objective) -> None:
    """Write the curves of the means, and the first fold's layer table, which all have, to the trial's artifacts."""
    artifacts = spec.folder / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    if (table := first.folder / "artifacts" / "model.txt").exists():
        shutil.copyfile(table, artifacts / "model.txt")
    shown = [row for row in rows if "loss" in row]
    if shown:
        start = len(rows) - len(shown) + 1
        columns = {key: [row[key] for row in shown] for key in shown[0]} | {"epoch": range(start, len(rows) + 1)}
        save_curves(columns, artifacts / "curves.png", objective.metric)

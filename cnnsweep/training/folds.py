"""Cross-validation: a trial that is trained on all folds of the data, whose metrics are their means.

Where something decides after each epoch (the rungs of a search, patience, a target) all folds are trained together, an
epoch each. Where nothing does, they are trained one after another, and no further once the trial cannot win.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from cnnsweep.config.objective import Objective
from cnnsweep.formatting import score
from cnnsweep.training import checkpoint
from cnnsweep.training.early_stopping import without_early_stopping
from cnnsweep.training.pictures import save_curves
from cnnsweep.trial import EpochReport, Rival, Status, TrialResult, TrialSpec

Run = Generator[EpochReport, bool, TrialResult]
Metrics = dict[str, float]
FOLDS = "folds"
"""A figure of a trial that was stopped between folds: how many it has."""


def train_folds(
    spec: TrialSpec,
    folds: int,
    train: Callable[[TrialSpec], Run],
    reason_to_stop: Callable[[Sequence[Metrics], Objective], str | None],
) -> Run:
    """Train one network a fold with `train` and report the means; with a rival one after another, else together.

    Each keeps its checkpoints in a folder of its own. `reason_to_stop` is early stopping, by the means. A fold that
    fails ends the trial.
    """
    objective = Objective.of(spec.config.objective)
    alone = without_early_stopping(spec.config)
    parts = [replace(spec, config=alone, fold=fold, folder=spec.folder / f"fold{fold}") for fold in range(1, folds + 1)]
    if spec.rival is not None:
        return (yield from _one_after_another(spec, parts, train, objective, spec.rival))
    return (yield from _together(spec, parts, train, objective, reason_to_stop))


def _one_after_another(
    spec: TrialSpec, parts: Sequence[TrialSpec], train: Callable[[TrialSpec], Run], objective: Objective, rival: Rival
) -> Run:
    """Train each fold to its end before the next. The epochs of the last one report the means.

    Before, each epoch is a report numbered 0, for the answer alone. A trial that cannot reach its rival reports the
    means of the folds that it has, without the seconds of an epoch, which would be those of fewer folds.
    """
    table: list[list[Metrics]] = []
    ends: list[TrialResult | None] = []
    status: Status = "completed"
    reason, until, lost = None, spec.epochs, None
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        table.append(_saved(part)[: spec.initial_epoch if last else until] if spec.again else [])
        run = _Fold(train(replace(part, initial_epoch=len(table[-1]), epochs=until)))
        keep_on = yield from _train_fold(run, spec, table, objective, last)
        ends.append(end := run.stop())
        until = min(until, len(table[-1]))
        if not keep_on:
            status, reason = "pruned", f"stopped by the search in fold {number}"
        elif end is None or end.reason or end.status != "completed":
            status, reason = run.ended(number)
        if status == "completed" and not last:
            lost = cannot_win(_means(table, until, objective), number, rival, objective)
        if lost or status != "completed":
            break
    if lost:
        yield from _report_loss(_means(table, until, objective), spec)
        status, reason = "pruned", lost
    rows = _means(table, until, objective) if lost or len(table) == len(parts) else []
    if rows:
        _draw(spec, parts[0], rows, objective)
    return TrialResult(spec.number, status, reason, len(rows), _summary(ends) | ({FOLDS: len(table)} if lost else {}))


def _train_fold(
    run: _Fold, spec: TrialSpec, table: list[list[Metrics]], objective: Objective, last: bool
) -> Generator[EpochReport, bool, bool]:
    """Add the epochs of a fold to its row of the table; the answer to the last report is returned."""
    keep_on = True
    while keep_on and (report := run.advance(0)) is not None:
        table[-1][report.epoch - 1 :] = [{**report.metrics}]
        epoch = report.epoch if last and report.epoch > spec.initial_epoch else 0
        row = mean([rows[epoch - 1] for rows in table], objective) if epoch else {}
        keep_on = yield EpochReport(spec.number, epoch, row, report.note)
    return keep_on


def _report_loss(rows: Sequence[Metrics], spec: TrialSpec) -> Generator[EpochReport, bool, None]:
    """Report the means of the folds that a trial has, so that a search learns from it."""
    for epoch, row in enumerate(rows, start=1):
        known = {name: value for name, value in row.items() if name != "epoch_seconds"}
        if epoch > spec.initial_epoch and not (yield EpochReport(spec.number, epoch, known)):
            return


def cannot_win(rows: Sequence[Metrics], folds: int, rival: Rival, objective: Objective) -> str | None:
    """Why a trial with these means of its first folds does not reach its rival, with 97.5% certainty; None if it may.

    Over k of K folds the difference of two trials is known up to t·σ·√(1/k - 1/K) of that over all, where σ is the
    standard deviation of the differences from fold to fold. What is worse on the same folds by more has lost, unless
    its own mean is above the rival's of all folds, as by luck with the folds.

    >>> rival = Rival([0.9, 0.8, 0.85, 0.95], margin=0.1)
    >>> cannot_win([{"val_accuracy": 0.7}], 1, rival, Objective.of("val_accuracy"))
    'cannot win: val_accuracy 0.7000 on the first fold of 4, where the best trial has 0.9000'
    >>> cannot_win([{"val_accuracy": 0.82}], 1, rival, Objective.of("val_accuracy"))
    """
    best = objective.best(row[objective.metric] for row in rows)
    if best is None or not rival.values:
        return None
    total, value = len(rival.values), rows[best][objective.metric]
    theirs, overall = statistics.fmean(rival.values[:folds]), statistics.fmean(rival.values)
    worse = objective.sign * (value - theirs)
    if worse <= rival.margin * math.sqrt(1 / folds - 1 / total) or not objective.better(overall, value):
        return None
    where = f"the first fold of {total}" if folds == 1 else f"{folds} folds of {total}"
    return f"cannot win: {objective.metric} {score(value)} on {where}, where the best trial has {score(theirs)}"


def _means(table: Sequence[Sequence[Metrics]], until: int, objective: Objective) -> list[Metrics]:
    """The means of each epoch up to one that all folds have."""
    return [mean([rows[index] for rows in table], objective) for index in range(min(until, *map(len, table)))]


def _saved(part: TrialSpec) -> list[Metrics]:
    """The epochs of a fold's checkpoint; none where there is none that can be read."""
    try:
        return checkpoint.read_state(part.folder / checkpoint.LAST).epochs
    except ValueError:
        return []


def _summary(ends: Sequence[TrialResult | None]) -> Metrics:
    """The figures of the folds' networks: those of the first, and the seconds of all."""
    found = [{**end.summary} for end in ends if end]
    seconds = sum(summary.get("trial_seconds", 0.0) for summary in found)
    return {**found[0], **({"trial_seconds": round(seconds, 3)} if seconds else {})} if found else {}


def _together(
    spec: TrialSpec,
    parts: Sequence[TrialSpec],
    train: Callable[[TrialSpec], Run],
    objective: Objective,
    reason_to_stop: Callable[[Sequence[Metrics], Objective], str | None],
) -> Run:
    """Train all folds by one epoch before the next: so a trial is stopped, promoted and resumed with all of them."""
    folds = len(parts)
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
    return TrialResult(spec.number, status, reason or reason_to_stop(rows, objective), len(rows), _summary(results))


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
    """The means of the folds' metrics, the time of all, and the objective on each fold with its standard deviation.

    >>> rows = [{"val_loss": 1.0, "epoch_seconds": 2.0}, {"val_loss": 3.0, "epoch_seconds": 2.0}]
    >>> list(mean(rows, Objective.of("val_loss")).items())[:3]
    [('val_loss', 2.0), ('epoch_seconds', 4.0), ('folds_std_val_loss', 1.4142135623730951)]
    >>> list(mean(rows, Objective.of("val_loss")).items())[3:]
    [('fold1_val_loss', 1.0), ('fold2_val_loss', 3.0)]
    """
    found = {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
    found["epoch_seconds"] = sum(row["epoch_seconds"] for row in rows)
    values = [row[objective.metric] for row in rows]
    if len(values) > 1:
        found[f"folds_std_{objective.metric}"] = statistics.stdev(values)
    return found | {fold_metric(number, objective): value for number, value in enumerate(values, start=1)}


def fold_metric(number: int, objective: Objective) -> str:
    """The name of the objective on one fold, counted from 1."""
    return f"fold{number}_{objective.metric}"


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

"""A trial as a training function of the user's own sees it: its epochs, its folder, its reports and checkpoints."""

from __future__ import annotations

import contextlib
import math
import numbers
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

from cnnsweep.config.objective import COSTS, Objective
from cnnsweep.config.validation import KEY_RULE, is_key, short
from cnnsweep.errors import UserError
from cnnsweep.training import own_checkpoints as checkpoints
from cnnsweep.trial import EpochReport, TrialSpec

if TYPE_CHECKING:
    import keras

_current: list[Trial] = []
"""The trial that this process runs, if it does."""


def current_trial() -> Trial | None:
    """The trial that is running here, for code that is not given it; None outside of a sweep."""
    return _current[-1] if _current else None


class TrialStopped(BaseException):
    """Ends a function that goes on although the search has stopped its trial."""


class Trial:
    """The second argument of a training function.

    >>> def main(config, trial):
    ...     model = load(trial.restored()) if trial.restored() else make(config)
    ...     for epoch in range(trial.epoch + 1, trial.epochs + 1):
    ...         accuracy = train_one_epoch(model)
    ...         with trial.checkpoint() as folder:
    ...             save(model, folder)
    ...         if not trial.report(epoch, val_accuracy=accuracy):
    ...             break
    """

    def __init__(self, spec: TrialSpec, send: Callable[[EpochReport], bool]) -> None:
        """`send` passes a report on, waits, and returns whether the search wants to see more of the trial."""
        found = checkpoints.last(spec.folder)
        self._restored = found[0] if found else None
        state = found[1] if found else checkpoints.State([], 0.0)
        self.number = spec.number
        """Counted from 1 over the sweep."""
        self.seed = spec.seed
        """For everything random: derived from the sweep's seed and the trial's number."""
        self.epoch = len(state.epochs)
        """Epochs that are done in the checkpoint that `restored` returns; 0 where the trial begins."""
        self.epochs = spec.epochs
        """Train until so many epochs are done, those of earlier runs of the trial included."""
        self.folder = spec.folder
        """The trial's own folder. Files in `artifacts/` below it are logged with its MLflow run."""
        self.done, self.fault, self.stopped = 0, "", False
        self._spec, self._send = spec, send
        self.objective = Objective.of(spec.config.objective)
        self._rows = list(state.epochs)
        self._spent, self._began = state.seconds, time.monotonic()
        self._tick, self._pending, self._over = self._began, False, False
        (spec.folder / "artifacts").mkdir(parents=True, exist_ok=True)

    def restored(self) -> Path | None:
        """The folder of the last checkpoint, from which the trial goes on; None where it begins."""
        return self._restored

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[Path]:
        """An empty folder for the files of a checkpoint, which is kept once the epoch is reported."""
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        yield self._partial
        self._pending = True

    def report(self, epoch: int, **metrics: SupportsFloat) -> bool:
        """Report an epoch, counted from 1 over the trial's whole life; the answer is False where it is to stop.

        Among the metrics is the sweep's objective; all are finite. Raises UserError, which fails the trial, where
        they are not, or the epoch is not the next one.
        """
        return self._report(epoch, metrics)

    def _report(self, epoch: int, metrics: Mapping[str, SupportsFloat]) -> bool:
        """The same for metrics of any names."""
        if self._over:
            raise TrialStopped
        row, epoch = self._checked(epoch, metrics), int(epoch)
        again = epoch == 1 and self._spec.initial_epoch > 0 and not self.done
        if epoch == 1:
            self._rows.clear()
            checkpoints.prune(self.folder, [self._partial])
        now = time.monotonic()
        self._rows.append(row | {"epoch_seconds": round(now - self._tick, 4)})
        self._complete_checkpoint(epoch)
        note = f"trial {self.number} begins again: {self._name} went on from no checkpoint" if again else None
        keep_on = self._send(EpochReport(self.number, epoch, self._rows[-1], note))
        self._tick, self.done, self.stopped = time.monotonic(), epoch, not keep_on
        self._over = self.stopped or epoch >= self.epochs
        return not self._over

    def keras_callback(self) -> keras.callbacks.Callback:
        """A callback for Keras' `fit(…, initial_epoch=trial.epoch, epochs=trial.epochs)`, for a compiled model.

        It restores the model and its optimizer, saves both after each epoch and reports what `fit` measures.
        """
        from cnnsweep.training.keras_callback import ReportEpochs

        return ReportEpochs(self)

    @property
    def seconds(self) -> float:
        """Of all runs of the trial so far."""
        return round(self._spent + time.monotonic() - self._began, 3)

    @property
    def _name(self) -> str:
        job, model = self._spec.config.job.plain(), self._spec.config.model.plain()
        return str(job.get("call") or model.get("hypermodel") or "the function")

    @property
    def _partial(self) -> Path:
        return self.folder / checkpoints.FOLDER / "partial"

    def _checked(self, epoch: int, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
        if not isinstance(epoch, numbers.Integral):
            raise self._refused(f"epoch {short(repr(epoch))}, which is not a whole number")
        following = {self.done + 1} if self.done else {1, self.epoch + 1}
        if epoch not in following:
            twice = " twice" if 0 < epoch <= self.done else ""
            expected = " or ".join(map(str, sorted(following)))
            raise self._refused(f"epoch {epoch}{twice}; expected {expected}: each epoch once, counted from 1")
        for key in metrics:
            if not isinstance(key, str):
                raise self._refused(f"{short(repr(key))} as a metric's name, which is no text")
            if key == "epoch":
                raise self._refused("'epoch' among the metrics, which is the name of the epoch's number")
        for name in (o.metric for o in self.objective.all if o.metric not in COSTS):
            if name not in metrics:
                given = ", ".join(metrics) or "no metric"
                raise self._refused(f"{given} in epoch {epoch}, and not the objective {name} (objective=METRIC)")
        row: dict[str, float] = {}
        for name, value in metrics.items():
            if not is_key(name):
                raise self._refused(f"'{short(name)}', which cannot be a metric's name ({KEY_RULE})")
            try:
                row[name] = float(value)
            except (TypeError, ValueError):
                raise self._refused(f"{name}={short(value)} in epoch {epoch}, which is not a number") from None
            if not math.isfinite(row[name]):
                raise self._refused(f"{name}={row[name]} in epoch {epoch}")
        return row

    def _refused(self, text: str) -> UserError:
        self.fault = f"{self._name} reported {text}"
        return UserError(self.fault)

    def _complete_checkpoint(self, epoch: int) -> None:
        if not self._pending:
            return
        self._pending, path = False, self._partial.with_name(f"{epoch:06d}")
        checkpoints.write_state(self._partial, checkpoints.State(self._rows, self.seconds))
        shutil.rmtree(path, ignore_errors=True)
        self._partial.replace(path)
        checkpoints.prune(self.folder, [path, checkpoints.best(self.folder, self.objective)])

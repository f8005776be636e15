"""The Python API: run a sweep, and read any sweep as data frames."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from cnnsweep.config.schema import Tracking
    from cnnsweep.sweep.session import Outcome
    from cnnsweep.tracking.frames import Results


@dataclass(frozen=True)
class Result:
    """The result of a sweep. In a notebook it shows its leaderboard."""

    outcome: Outcome
    report: Path | None = None
    """The report's page, to open in a browser; None where `tracking.report` is off or it could not be made."""

    @property
    def id(self) -> str:
        """The sweep's id, which `trials`, `curves` and the command line take."""
        return self.outcome.id

    @property
    def status(self) -> str:
        """completed, failed (no trial completed) or interrupted."""
        return self.outcome.status

    @property
    def best(self) -> dict[str, Any] | None:
        """The best trial's values by key; None where no trial completed."""
        ranked = self.outcome.state.ranked()
        return dict(ranked[0].values) if ranked else None

    @property
    def test_accuracy(self) -> float | None:
        """Of the best trial's network, on images that the search never saw; None where no accuracy is measured."""
        return self.test_metrics.get("test_accuracy")

    @property
    def test_metrics(self) -> dict[str, float]:
        """All metrics of the best trial's network on the test set, `test_` before their names."""
        final = self.outcome.state.tested()
        return {} if final is None else dict(final.metrics)

    @property
    def model(self) -> Path | None:
        """The best network: `keras.models.load_model(result.model)`."""
        final = self.outcome.state.tested()
        return None if final is None else self.outcome.folder / final.folder / "model.keras"

    @property
    def trials(self) -> pd.DataFrame:
        """As `cnnsweep.trials` returns it."""
        return self._results.trials

    @property
    def curves(self) -> pd.DataFrame:
        """As `cnnsweep.curves` returns it."""
        return self._results.curves

    @cached_property
    def _results(self) -> Results:
        return _read(self.outcome.config.tracking, self.id)

    def __repr__(self) -> str:
        return f"Result(id={self.id!r}, status={self.status!r}, best={self.best!r})"

    def _repr_html_(self) -> str:
        shown = self._results.ranked().head(10).drop(columns=["sweep", "reason", "worker", "started", "ended"])
        return f"<p><b>{self.id}</b>: {self.status}</p>{shown.to_html(index=False)}"


def run(*overrides: str, quiet: bool = False) -> Result:
    """Run a sweep of the config that these overrides compose, as on the command line, and return its result.

    Raises UserError before any training where something does not fit.
    """
    from cnnsweep.config.components import refuse_in_import
    from cnnsweep.config.compose import compose
    from cnnsweep.sweep import session
    from cnnsweep.terminal.screen import Screen

    refuse_in_import()
    watcher = session.Watcher() if quiet else Screen()
    outcome = session.start(compose(overrides), watcher, ["cnnsweep.run", *overrides])
    return Result(outcome, make_report(outcome))


def make_report(outcome: Outcome) -> Path | None:
    """Write the report of a sweep that has just ended and return its page.

    None where `tracking.report` is off, the sweep is unfinished or not yet in MLflow, or no trial has a value; also
    where the report cannot be made, which the sweep's log explains.
    """
    from cnnsweep.sweep.session import log_to

    tracking = outcome.config.tracking
    unfinished = outcome.status == "interrupted" or outcome.trouble
    if unfinished or not tracking.report or not outcome.state.ranked(1):
        return None
    from cnnsweep.report import report

    log, began = logging.getLogger("cnnsweep.report"), time.monotonic()
    with log_to(outcome.folder / "log.txt"):
        try:
            page, _ = report.make(tracking, [outcome.id])
        except Exception as error:  # it must not fail the sweep
            log.warning("no report: %s", error)
            return None
        log.info("report made in %.1f s", time.monotonic() - began)
    return page


def trials(sweep: str | None = None, *overrides: str) -> pd.DataFrame:
    """Return one row a trial of a sweep: its id, its name (then the latest of that name), or None for the latest.

    Overrides say where the store is: `"tracking.dir=DIR"`, or `"tracking=server", "tracking.uri=URL"`.
    Raises UserError where there is no such store or sweep.
    """
    return _read(_tracking(overrides), sweep).trials


def curves(sweep: str | None = None, *overrides: str) -> pd.DataFrame:
    """Return one row an epoch of a sweep's trials; the arguments are those of `trials`."""
    return _read(_tracking(overrides), sweep).curves


def _tracking(overrides: tuple[str, ...]) -> Tracking:
    from cnnsweep.config.compose import compose

    return compose(overrides).tracking


def _read(tracking: Tracking, sweep: str | None) -> Results:
    from cnnsweep.tracking.frames import read_results
    from cnnsweep.tracking.reader import open_reader

    return read_results(open_reader(tracking), sweep)

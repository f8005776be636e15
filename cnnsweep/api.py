"""The package from Python: run a sweep, and read any sweep as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from cnnsweep.sweep.session import Outcome
    from cnnsweep.tracking.frames import Results


@dataclass(frozen=True)
class Result:
    """What a sweep found. In a notebook it shows its leaderboard."""

    outcome: Outcome

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
        ranked = self.outcome.ledger.ranked()
        return dict(ranked[0].values) if ranked else None

    @property
    def test_accuracy(self) -> float | None:
        """Of the best trial's network, on images that the search never saw."""
        final = self.outcome.ledger.final
        return None if final is None else float(final["metrics"]["test_accuracy"])

    @property
    def model(self) -> Path | None:
        """The best network: `keras.models.load_model(result.model)`."""
        final = self.outcome.ledger.final
        return None if final is None else Path(final["folder"]) / "model.keras"

    @property
    def report(self) -> Path | None:
        """The sweep's page, to open in a browser; None where `tracking.report` is off or it could not be made."""
        return self.outcome.report

    @cached_property
    def trials(self) -> pd.DataFrame:
        """As `cnnsweep.trials` gives it."""
        return self._results.trials

    @cached_property
    def curves(self) -> pd.DataFrame:
        """As `cnnsweep.curves` gives it."""
        return self._results.curves

    @cached_property
    def _results(self) -> Results:
        from cnnsweep.tracking.reader import open_reader

        return results_in(open_reader(self.outcome.config["tracking"]), self.id)

    def _repr_html_(self) -> str:
        shown = self._results.ranked().head(10).drop(columns=["sweep", "reason", "worker", "started", "ended"])
        return f"<p><b>{self.id}</b>: {self.status}</p>{shown.to_html(index=False)}"


def run(*overrides: str, quiet: bool = False) -> Result:
    """Run a sweep of the config that these overrides compose, as on the command line, and return its result.

    Raises UserError before any training where something does not fit.
    """
    from cnnsweep.config.compose import compose
    from cnnsweep.sweep import session
    from cnnsweep.terminal.screen import Screen

    config = compose(list(overrides))
    watcher = session.Watcher() if quiet else Screen()
    return Result(session.start(config, watcher, ["cnnsweep.run", *overrides]))


def trials(sweep: str | None = None, *overrides: str) -> pd.DataFrame:
    """Return one row a trial of a sweep: its id, its name (then the latest of that name), or None for the latest.

    Overrides say where the store is: `"tracking.dir=DIR"`, or `"tracking=server", "tracking.uri=URL"`.
    Raises UserError where there is no such store or sweep.
    """
    return results(sweep, overrides).trials


def curves(sweep: str | None = None, *overrides: str) -> pd.DataFrame:
    """Return one row an epoch of a sweep's trials; the arguments are those of `trials`."""
    return results(sweep, overrides).curves


def results(sweep: str | None, overrides: Sequence[str] = ()) -> Results:
    """Everything about one sweep."""
    from cnnsweep.tracking.reader import open_reader

    return results_in(open_reader(tracking_of(overrides)), sweep)


def results_in(reader: Any, sweep: str | None) -> Results:
    from cnnsweep.tracking.frames import Results
    from cnnsweep.tracking.reader import find_sweep

    found = find_sweep(reader, sweep)
    return Results(reader, found, reader.rows(found))


def tracking_of(overrides: Sequence[str]) -> Mapping[str, Any]:
    """The `tracking` group that these overrides compose."""
    from cnnsweep.config.compose import compose

    return compose(list(overrides))["tracking"]

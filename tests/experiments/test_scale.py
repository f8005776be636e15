"""That a trial costs the driver the same however many came before it, told by counting steps, not seconds."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import fake_sweeps
import pytest
from rich.console import Console

from cnnsweep.sweep.catalog import Scribe
from cnnsweep.sweep.cleanup import Housekeeper
from cnnsweep.terminal import screen as display
from cnnsweep.tracking.run_updates import Records, merge
from cnnsweep.training import pricing
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

WINDOW = 10
EARLY, TRIALS = 160, 320


def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    for epoch in range(1, 4):
        metrics = {"loss": 1.0, "val_accuracy": spec.seed % 1000 / 2000 + epoch / 10, "epoch_seconds": 0.1}
        yield EpochReport(spec.number, epoch, metrics)
    return TrialResult(spec.number, "completed", None, epoch, {})


class Steps:
    """Counts the interpreter's steps while the last trials before `EARLY` and before `TRIALS` run."""

    def __init__(self) -> None:
        self.counted = {EARLY: 0, TRIALS: 0}
        self._ended = 0
        self._window: int | None = None

    def log(self, event: Mapping[str, Any]) -> None:
        self._ended += event["event"] == "end"
        self._window = next((w for w in self.counted if w - WINDOW <= self._ended < w), None)
        sys.settrace(self._trace if self._window else None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes = True
        if event == "opcode" and self._window:
            self.counted[self._window] += 1
        return self._trace


class CountingScribe(Scribe):
    bytes = 0
    """That it has written."""

    def _write(self) -> None:
        super()._write()
        self.bytes += self._written


class Mlflow:
    """What the tracker does for an event, up to the call to the store."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder, {})

    def log(self, event: Mapping[str, Any]) -> None:
        merge(self._records.writes(event))


@pytest.fixture
def _trace_left_alone() -> Any:
    before = sys.gettrace()
    yield
    sys.settrace(before)


@pytest.mark.usefixtures("_trace_left_alone")
def test_a_trial_takes_as_many_steps_after_hundreds_as_after_a_few(tmp_path: Path) -> None:
    overrides = ["search=random", f"budget.trials={TRIALS}", "budget.epochs=100000", "space=none",
                 "space.training.learning_rate={min: 0.001, max: 0.1, log: true}"]  # fmt: skip
    sweep = fake_sweeps.make(tmp_path, overrides, job=train)
    sweep.pricer = pricing.pricer(sweep.problem, tmp_path, 1, (100, 10))
    screen = display.Screen(Console(file=io.StringIO()))
    scribe, steps = CountingScribe(tmp_path, sweep.journal), Steps()
    with screen.watch(sweep, lambda: None), contextlib.closing(sweep.journal):
        keeper = Housekeeper(tmp_path, sweep.ledger, sweep.search, 3)
        sweep.listeners += [Mlflow(tmp_path), screen, scribe, keeper, steps]
        sweep.run()
    assert len(sweep.ledger.entries) == TRIALS
    early, late = (steps.counted[window] / WINDOW for window in (EARLY, TRIALS))
    assert early > 10_000
    assert (late - early) / (TRIALS - EARLY) < 2, "steps for each trial that came before"
    assert scribe.bytes < sweep.journal.size / 2

"""That a trial costs the driver the same however many came before it, told by counting steps, not seconds."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import fake_sweeps
import pytest
from rich.console import Console

from cnnsweep.journal.events import Event, TrialEnded
from cnnsweep.sweep import loop
from cnnsweep.sweep.finish import Cleanup
from cnnsweep.terminal import screen as display
from cnnsweep.tracking.run_updates import RunUpdates, by_run
from cnnsweep.training.cost_model import TrialForecaster
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

    def log(self, event: Event) -> None:
        self._ended += isinstance(event, TrialEnded)
        self._window = next((w for w in self.counted if w - WINDOW <= self._ended < w), None)
        sys.settrace(self._trace if self._window else None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes = True
        if event == "opcode" and self._window:
            self.counted[self._window] += 1
        return self._trace


class Mlflow:
    """What the tracker does for an event, up to the call to the store."""

    def __init__(self, folder: Path) -> None:
        self._updates = RunUpdates(folder, {})

    def log(self, event: Event) -> None:
        by_run(self._updates.of(event))


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
    sweep.forecaster = TrialForecaster.load(sweep.problem, tmp_path, 1, (100, 10))
    screen = display.Screen(Console(file=io.StringIO()))
    steps = Steps()
    with screen.watch(sweep, lambda: None), contextlib.closing(sweep.journal):
        cleanup = Cleanup(tmp_path, sweep.state, sweep.search, 3)
        sweep.listeners += [Mlflow(tmp_path), screen, cleanup, steps]
        loop.search(sweep)
    assert len(sweep.state.trials) == TRIALS
    early, late = (steps.counted[window] / WINDOW for window in (EARLY, TRIALS))
    assert early > 10_000
    assert (late - early) / (TRIALS - EARLY) < 2, "steps for each trial that came before"

"""A sweep on the screen, and its summary."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import fake_sweeps
import pytest
from rich.console import Console

from cnnsweep.journal.events import BestTested, GalleryDrawn
from cnnsweep.sweep import loop
from cnnsweep.sweep.session import Outcome
from cnnsweep.terminal import make_console
from cnnsweep.terminal.screen import Screen, print_outcome


def shown(screen: Screen) -> str:
    return screen.console.file.getvalue()  # type: ignore[attr-defined]


def run(folder: Path, terminal: bool, *overrides: str) -> tuple[Screen, Outcome]:
    """Run a sweep of six trials; the first training of each third fails with a text that has brackets."""
    console = Console(file=io.StringIO(), force_terminal=terminal, highlight=False, markup=False, width=140)
    screen, sweep = Screen(console), fake_sweeps.make(folder, overrides)
    sweep.listeners.append(screen)
    with screen.watch(sweep, lambda: "MLflow does not answer"):
        loop.search(sweep)
    sweep.journal.close()
    return screen, Outcome(folder.name, folder, "sqlite:///mlflow.db", sweep.config, sweep.state)


def test_one_line_for_each_trial_in_a_file(tmp_path: Path) -> None:
    screen, outcome = run(tmp_path / "sweep", terminal=False)
    lines = shown(screen).splitlines()
    trials = outcome.state.trials
    assert lines[0] == "MLflow does not answer"
    assert len(lines) == 1 + len(trials)
    assert [trial.name in line for trial, line in zip(trials.values(), lines[1:], strict=True)] == [True] * len(trials)
    best = outcome.state.ranked(1)[0]
    assert f"best {best.best(outcome.state.objective):.4f} ({best.number:03d})" in lines[-1]
    assert "6/6 trials" in lines[-1]


def test_the_live_view_on_a_terminal(tmp_path: Path) -> None:
    screen, _ = run(tmp_path / "sweep", terminal=True)
    text = shown(screen)
    assert all(word in text for word in ("smoke", "6/6 trials", "val_accuracy", "MLflow does not answer"))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_picture_that_is_missing_is_said(terminal: bool) -> None:
    screen = Screen(Console(file=io.StringIO(), force_terminal=terminal, width=140))
    screen.log(GalleryDrawn(trial=3, folder="gallery", missing={"1_confusion_matrix": "MemoryError: shape [9, 9]"}))
    assert "trial 3, no 1_confusion_matrix: MemoryError: shape [9, 9]" in shown(screen)


def test_error_texts_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(make_console()).say("shape [batch, 3] at [node model/conv]")
    assert "shape [batch, 3] at [node model/conv]" in capsys.readouterr().out


def test_the_summary(tmp_path: Path) -> None:
    screen, outcome = run(tmp_path / "sweep", terminal=False)
    outcome.state.final = BestTested(
        trial=1, epoch=3, folder="best", metrics={"test_accuracy": 0.9, "test_loss": 0.3}, images=100
    )
    start = len(shown(screen))
    outcome = replace(outcome, trouble="MLflow: 3 events are not sent yet", waiting=3)
    print_outcome(outcome, tmp_path / "report.html", screen.console)
    text = shown(screen)[start:]
    best = outcome.state.ranked(1)[0]
    for line in (
        "sweep: interrupted",
        f"best configuration: trial {best.name}",
        f"  training.learning_rate: {best.values['training.learning_rate']:.4g}",
        "test accuracy 0.9000  (95% interval 0.8256 to 0.9448; 100 images",
        "MLflow: 3 events are not sent yet",
        "report.html",
        "-m cnnsweep resume sweep",
        "-m cnnsweep ui sweep",
    ):
        assert line in text

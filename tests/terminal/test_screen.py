"""A sweep on the screen, and its summary."""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import fake_sweeps
import pytest
from rich.console import Console

from cnnsweep.api import Result
from cnnsweep.journal.events import BestTested, GalleryDrawn, SweepStopped
from cnnsweep.sweep import loop
from cnnsweep.sweep.session import Outcome
from cnnsweep.terminal import sweep_list
from cnnsweep.terminal.leaderboard import Leaderboard, leaderboard
from cnnsweep.terminal.output import Output
from cnnsweep.terminal.screen import Screen, print_outcome
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec


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
    assert repr(Result(outcome)) == f"Result(id='sweep', status={outcome.status!r}, best={best.values!r})"


@pytest.mark.parametrize("budget", ["budget.minutes=null", "budget.minutes=100"])
def test_a_search_that_goes_on_with_the_best_is_not_said_to_be_at_its_end(budget: str, tmp_path: Path) -> None:
    screen, _ = run(tmp_path / "sweep", False, "search=auto", "training.epochs=9", "budget.trials=12", budget)
    after = [line for line in shown(screen).splitlines() if "12/12 trials" in line]
    assert len(after) > 2, "some were continued after the last new one"
    assert not [line for line in after if "left" in line]


def test_the_live_view_on_a_terminal(tmp_path: Path) -> None:
    screen, _ = run(tmp_path / "sweep", terminal=True)
    text = shown(screen)
    assert all(word in text for word in ("smoke", "6/6 trials", "val_accuracy", "MLflow does not answer"))


FOREIGN = "[/x] shape [batch, 3] [red]at[/red] [link=a] :100: [node model/conv]"


def fails(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    yield EpochReport(spec.number, 1, {"val_accuracy": 0.5, "loss": 1.0})
    return TrialResult(spec.number, "failed" if spec.number < 3 else "completed", FOREIGN, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_foreign_texts_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(Output, "isatty", lambda _: terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "400", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    screen, folder = Screen(), tmp_path / FOREIGN.replace("/", "|")
    sweep = fake_sweeps.make(folder, job=fails)
    sweep.listeners.append(screen)
    screen.say(FOREIGN)
    with screen.watch(sweep, lambda: f"MLflow: {FOREIGN}"):
        loop.search(sweep)
    sweep.journal.close()
    texts = {"say": FOREIGN, "trouble": f"MLflow: {FOREIGN}", "reason": f"failed: {FOREIGN}"}
    shown = capsys.readouterr().out
    assert {name: text in shown for name, text in texts.items()} == dict.fromkeys(texts, True)

    sweep.state.trials[3].values = {"model.note": FOREIGN}
    sweep.state.trials[3].name = f"003 {FOREIGN}"
    sweep.state.final = BestTested(trial=3, epoch=1, folder=FOREIGN, metrics={"test_accuracy": 0.9}, images=100)
    outcome = Outcome(folder.name, folder, "sqlite:///mlflow.db", sweep.config, sweep.state, FOREIGN, 3)
    print_outcome(outcome, folder / "report.html", screen.console)
    shown = capsys.readouterr().out
    texts = {
        "status": f"{folder.name}: interrupted",
        "reason": f"failed: {FOREIGN}",
        "leaderboard": f"1  003 {FOREIGN}",
        "best": f"best configuration: trial 003 {FOREIGN}",
        "value": f"model.note: {FOREIGN}",
        "model": f"{FOREIGN}/model.keras",
        "trouble": f"\n{FOREIGN}\n",
        "report": f"{folder.name}/report.html",
        "command": f"resume {folder.name}",
    }
    assert {name: text in shown for name, text in texts.items()} == dict.fromkeys(texts, True)


def test_a_terminal_that_cannot_move_its_cursor_gets_a_line_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen, _ = run(tmp_path / "sweep", terminal=True)
    assert sum("val_accuracy" in line or "failed" in line for line in shown(screen).splitlines()) == 6
    assert "\x1b[1A" not in shown(screen)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_picture_that_is_missing_is_said(terminal: bool) -> None:
    screen = Screen(Console(file=io.StringIO(), force_terminal=terminal, width=140))
    screen.log(GalleryDrawn(trial=3, folder="gallery", missing={"1_confusion_matrix": "MemoryError: shape [9, 9]"}))
    assert "trial 3, no 1_confusion_matrix: MemoryError: shape [9, 9]" in shown(screen)


def test_the_summary(tmp_path: Path) -> None:
    screen, outcome = run(tmp_path / "sweep", terminal=False)
    metrics, best = {"test_accuracy": 0.9, "test_loss": 0.3}, outcome.state.ranked(1)[0]
    epoch = best.best_epoch(outcome.state.objective)
    outcome.state.final = BestTested(trial=best.number, epoch=epoch, folder="best", metrics=metrics, images=100)
    start = len(shown(screen))
    best.values = {**best.values, "model.batch_norm": True}
    outcome.state.stop = SweepStopped(status="interrupted", summary={})
    outcome.state.last = outcome.state.began + 1563.0
    outcome = replace(outcome, trouble="MLflow has not got 3 events yet", waiting=3)
    print_outcome(outcome, tmp_path / "report.html", screen.console)
    text = shown(screen)[start:]
    for line in (
        "sweep: interrupted",
        f"\n{outcome.state.counts['completed']} completed, 1 failed · {outcome.state.epochs} epochs · ",
        f"best configuration: trial {best.name}",
        f"  training.learning_rate: {best.values['training.learning_rate']:.4g}",
        "  model.batch_norm: true",
        " epochs · 26:03\n",
        "test accuracy 0.9000  (95% interval 0.8256 to 0.9448; 100 examples",
        "MLflow has not got 3 events yet",
        "report.html",
        "-m cnnsweep resume sweep",
        "-m cnnsweep ui sweep",
    ):
        assert line in text
    outcome.state.final = replace(outcome.state.final, trial=best.number + 1)
    start = len(shown(screen))
    print_outcome(outcome, None, screen.console)
    text = shown(screen)[start:]
    assert f"best configuration: trial {best.name}" in text
    assert not re.search("test accuracy|model:", text), "those of another trial"


def test_the_summary_where_the_working_folder_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, outcome = run(tmp_path / "sweep", terminal=False)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    print_outcome(outcome, tmp_path / "report.html", screen.console)
    assert f"report:              {tmp_path / 'report.html'}\n" in shown(screen)


def test_one_trial_is_no_plural(tmp_path: Path) -> None:
    screen, outcome = run(tmp_path / "sweep", False, "budget.trials=1", "training.epochs=1")
    print_outcome(outcome, None, screen.console)
    assert " 1/1 trial" in shown(screen)
    assert not re.search(r"\b1 [a-z]+s\b|1/1 trials", shown(screen))


def test_a_second_metric_has_a_column(tmp_path: Path) -> None:
    sweep = fake_sweeps.make(tmp_path / "sweep", ("objective=[val_accuracy,loss]",))
    loop.search(sweep)
    sweep.journal.close()
    columns = {str(column.header): [*column.cells] for column in leaderboard(sweep.state, 5).columns}
    assert [*columns][2:5] == ["val_accuracy", "loss", "epoch"]
    best = sweep.state.trials[int(columns["trial"][0][:3])]
    assert columns["loss"][0] == f"{best.curve[-1]['loss']:.4f}"
    assert [*columns][5:7] == ["parameters", "mmacs"]
    for width in (56, 80):
        Console(file=(file := io.StringIO()), width=width).print(Leaderboard(sweep.state, 5))
        head, first, *_ = file.getvalue().splitlines()
        assert re.match(r"   trial +val_accuracy +loss ", head)
        assert first.startswith("1 "), "what matters is whole"
        assert "…" not in head + first
    for trial in sweep.state.trials.values():
        trial.summary = {}  # as a function of one's own has it
    assert [column.header for column in leaderboard(sweep.state, 5).columns[4:]] == ["epoch", "time", ""]


@pytest.mark.parametrize(("factor", "best"), [(1e-6, "6e-06"), (1e40, "6e+40"), (0.1, "0.6000"), (0.0, "0.0000")])
def test_small_and_large_values_are_shown_with_their_digits(factor: float, best: str, tmp_path: Path) -> None:
    def train(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        yield EpochReport(spec.number, 1, {"val_accuracy": factor * spec.number})
        return TrialResult(spec.number, "completed", None, 1)

    sweep = fake_sweeps.make(tmp_path / "sweeps" / "sweep", ("search=random",), train)
    screen = Screen(Console(file=io.StringIO(), width=140))
    sweep.listeners.append(screen)
    with screen.watch(sweep, lambda: None):
        loop.search(sweep)
    sweep.journal.close()
    assert f"val_accuracy {best}  best {best} (00" in shown(screen).splitlines()[-1]
    assert [*leaderboard(sweep.state, 1).columns[2].cells] == [best]
    sweep_list.show(tmp_path, console := Console(file=io.StringIO(), width=140))
    assert f"{best}  val_accuracy" in console.file.getvalue()  # type: ignore[attr-defined]

"""The list of sweeps: right, and fast from many."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path

import pytest
import real_sweeps as real
from rich.console import Console

from cnnsweep.errors import UserError
from cnnsweep.journal.events import EpochEnded, SweepStarted, SweepStopped, TrialEnded, TrialStarted
from cnnsweep.journal.journal import FILE, Journal
from cnnsweep.sweep import catalog
from cnnsweep.terminal import sweep_list as listing
from cnnsweep.trial import Status


def write(folder: Path, trials: int, status: Status | None = "completed", big: int = 0, name: str = "fake") -> Path:
    """A sweep as the driver would leave it."""
    journal, config = Journal(folder / FILE), {"objective": "val_accuracy", "padding": "x" * big}
    journal.append(SweepStarted(id=folder.name, sweep=name, format=1, config=config))
    fields = {"title": "fake", "values": {}, "seed": 0, "epochs": 1, "proposal": "p", "worker": "cpu0"}
    for number in range(1, trials + 1):
        journal.append(TrialStarted(trial=number, config=config, **fields))
        journal.append(EpochEnded(trial=number, epoch=1, metrics={"val_accuracy": number / 100}))
        if number % 5 == 0:
            journal.append(TrialEnded(trial=number, status="failed"))
        elif number < trials or status:
            journal.append(TrialEnded(trial=number, status="completed"))
    if status:
        journal.append(SweepStopped(status=status, reason="budget.trials"))
    journal.close()
    return folder


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


def shown(root: Path) -> str:
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        listing.show(root, console)
    return console.export_text()


def test_each_state_with_its_trials_best_value_and_age(tmp_path: Path) -> None:
    sweeps = tmp_path / "sweeps"
    write(sweeps / "done-1", 6)
    write(sweeps / "dead-2", 3, None)
    write(sweeps / "alive-3", 4, None)
    write(sweeps / "poor-4", 1, "failed")
    (write(sweeps / "bad-5", 2) / FILE).write_text("{}\n" * 3)
    (sweeps / "empty").mkdir()
    for name in ("done-1", "dead-2", "poor-4"):
        (sweeps / name / "tracking.jsonl").write_text('{"sent": 1000}\n')
    with catalog.hold(sweeps / "alive-3"):
        lines = {line.split()[0]: " ".join(line.split()) for line in shown(tmp_path).splitlines() if line.strip()}
    for start in (
        "done-1 completed 5 done, 1 failed 0.0600 val_accuracy",
        "dead-2 interrupted 2 done, 1 to go on 0.0300 val_accuracy",
        "alive-3 running 3 done, 1 running 0.0400",
        "poor-4 failed",
        "bad-5 damaged journal.jsonl, line 1 is damaged: this is no event: b'{}'",
    ):
        assert lines[start.split()[0]].startswith(start)
    assert "empty" not in lines
    assert lines["done-1"].endswith(" s")


def test_events_that_mlflow_has_not_got_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweeps" / "one", 2)
    assert catalog.unsent(folder, 8) == 8
    (folder / "tracking.jsonl").write_text('{"sent": 3}\n{"trial": 1, "run": "a"}\n{"sent": 5}\n')
    assert catalog.unsent(folder, 8) == 3
    assert "3 events not in MLflow" in shown(tmp_path)


@pytest.mark.parametrize("id_", ["../../x", "..", ".", "/etc", "one/../one", "", "onee"])
def test_only_a_sweep_of_this_directory_is_found(tmp_path: Path, id_: str) -> None:
    write(tmp_path / "sweeps" / "one", 1)
    write(tmp_path / "x", 1)
    assert catalog.find(tmp_path, "one", False).name == "one"
    with pytest.raises(UserError, match="unknown sweep"):
        catalog.find(tmp_path, id_, False)


def test_a_name_or_none_stands_for_the_last_sweep_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1.0)
    monkeypatch.setattr("cnnsweep.journal.journal.time.time", lambda: next(clock))
    write(tmp_path / "sweeps" / "one-1", 2, None)
    write(tmp_path / "sweeps" / "one-2", 2, "completed")
    write(tmp_path / "sweeps" / "other-3", 2, "interrupted", name="other")
    write(tmp_path / "sweeps" / "done-4", 2, "completed", name="done")
    for folder in catalog.folders(tmp_path):
        (folder / "tracking.jsonl").write_text('{"sent": 1000}\n')
    wanted = {"fake": "one-1", "other": "other-3", "done": "done-4", "one-2": "one-2", None: "other-3"}
    assert {name: catalog.find(tmp_path, name, False).name for name in wanted} == wanted
    with pytest.raises(UserError, match="unknown sweep 'othr', did you mean 'other'"):
        catalog.find(tmp_path, "othr", False)


@pytest.mark.parametrize("width", [20, 60, 140])
def test_ids_are_whole_in_a_terminal_of_any_width(tmp_path: Path, width: int) -> None:
    write(tmp_path / "sweeps" / ("long-" * 15 + "1"), 2)
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    listing.show(tmp_path, console)
    assert "long-" * 15 + "1" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_hundred_sweeps_are_listed_within_seconds(tmp_path: Path) -> None:
    for number in range(200):
        write(tmp_path / "mlruns" / "sweeps" / f"s-{number}", 60, None if number % 7 == 0 else "completed", big=3000)
    took = []
    for _ in range(3):
        began = time.monotonic()
        code, output = real.run(tmp_path, "list")
        took.append(time.monotonic() - began)
        assert code == 0
    assert output.count("completed") == 200 - 29
    assert "mlflow" not in output.lower() or "events not in MLflow" in output
    assert min(took) < 5, "1.2 s on an idle machine, most of it start-up"

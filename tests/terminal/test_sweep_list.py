"""The list of sweeps: right, and fast from many."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import real_sweeps as real
from rich.console import Console

from cnnsweep.errors import UserError
from cnnsweep.journal.journal import FILE, Journal
from cnnsweep.sweep import catalog as standing
from cnnsweep.sweep import lock
from cnnsweep.sweep.catalog import Scribe
from cnnsweep.terminal import sweep_list as listing


def write(folder: Path, trials: int, status: str | None = "completed", big: int = 0) -> Path:
    """A sweep as the driver would leave it; its last trial is not in state.json."""
    journal = Journal(folder / FILE)
    scribe = Scribe(folder, journal)

    def record(event: str, **fields: object) -> None:
        scribe.log(journal.append(event, **fields))

    record("sweep", id=folder.name, format=1, config={"objective": "val_accuracy"})
    for number in range(1, trials + 1):
        record("trial", trial=number, config={"padding": "x" * big})
        record("epoch", trial=number, epoch=1, metrics={"val_accuracy": number / 100})
        if number % 5 == 0:
            record("end", trial=number, status="failed")
        elif number < trials or status:
            record("end", trial=number, status="completed")
    if status:
        record("stop", status=status, reason="budget.trials")
    journal.close()
    return folder


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


def shown(root: Path) -> str:
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        listing.show(root, console)
    return console.export_text()


@pytest.mark.usefixtures("fast")
def test_each_state_with_its_trials_best_value_and_age(tmp_path: Path) -> None:
    sweeps = tmp_path / "sweeps"
    write(sweeps / "done-1", 6)
    write(sweeps / "dead-2", 3, None)
    write(sweeps / "alive-3", 4, None)
    write(sweeps / "poor-4", 1, "failed")
    (write(sweeps / "bad-5", 2) / FILE).write_text("{}\n" * 3)
    (sweeps / "bad-5" / standing.STATE).unlink()
    (sweeps / "empty").mkdir()
    for name in ("done-1", "dead-2", "poor-4"):
        (sweeps / name / "tracking.jsonl").write_text('{"sent": 1000}\n')
    with lock.hold(sweeps / "alive-3"):
        lines = {line.split()[0]: " ".join(line.split()) for line in shown(tmp_path).splitlines() if line.strip()}
    assert lines["done-1"].startswith("done-1 completed 5 done, 1 failed 0.0600 val_accuracy")
    assert lines["dead-2"].startswith("dead-2 interrupted 2 done, 1 to go on 0.0300 val_accuracy")
    assert lines["alive-3"].startswith("alive-3 running 3 done, 1 running 0.0400")
    assert lines["poor-4"].startswith("poor-4 failed")
    assert lines["bad-5"].startswith("bad-5 damaged")
    assert "empty" not in lines
    assert lines["done-1"].endswith(" s")


@pytest.mark.usefixtures("fast")
def test_the_short_cut_may_be_missing_old_or_wrong(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", 7, None)
    told = standing.read(folder)
    assert json.loads((folder / standing.STATE).read_text())["size"] < (folder / FILE).stat().st_size
    for content in (None, "", "{", "[]", '{"size": 999999999}'):
        (folder / standing.STATE).unlink(missing_ok=True)
        if content is not None:
            (folder / standing.STATE).write_text(content)
        assert standing.read(folder) == told


@pytest.mark.usefixtures("fast")
def test_events_that_mlflow_has_not_got_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "sweeps" / "one", 2)
    assert standing.unsent(folder, 8) == 8
    (folder / "tracking.jsonl").write_text('{"sent": 3}\n{"trial": 1, "run": "a"}\n{"sent": 5}\n')
    assert standing.unsent(folder, 8) == 3
    assert "3 events not in MLflow" in shown(tmp_path)


@pytest.mark.parametrize("id_", ["../../x", "..", ".", "/etc", "one/../one", "", "onee"])
@pytest.mark.usefixtures("fast")
def test_only_a_sweep_of_this_directory_is_found(tmp_path: Path, id_: str) -> None:
    write(tmp_path / "sweeps" / "one", 1)
    write(tmp_path / "x", 1)
    assert standing.find(tmp_path, "one").name == "one"
    with pytest.raises(UserError, match="unknown sweep"):
        standing.find(tmp_path, id_)


@pytest.mark.slow
def test_two_hundred_sweeps_are_listed_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
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
    assert min(took) < 1.5, "a second on an idle machine"

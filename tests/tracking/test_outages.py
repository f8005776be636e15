"""Trouble around a sweep: a tracking server that goes away, deleted runs, changed data, a full disk."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_sweeps as real

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.journal.events import TrialEnded
from cnnsweep.sweep import resume, session
from cnnsweep.sweep.session import Watcher

# Several starts of a driver, on a machine that may be busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Recorder(Watcher):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[real.Server]:
    made = real.Server(tmp_path / "server")
    made.start()
    yield made
    made.kill()


def test_a_tracker_that_goes_away_and_comes_back(tmp_path: Path, server: real.Server) -> None:
    uri = server.uri.replace("://", "://ann:s3cr3t@")
    folder = tmp_path / "work"
    overrides = (*real.TINY, "training.epochs=20", "budget.trials=2", "tracking=server", f"tracking.uri={uri}")
    driver = real.start(folder, *overrides, environment={"MY_TOKEN": "s3cr3t"})
    real.wait_for(lambda: len(real.events(folder)) > 4, "an epoch", driver)
    server.kill()
    known, text = len(real.events(folder)), folder / "output.txt"
    real.wait_for(lambda: len(real.events(folder)) > known, "something to send", driver)
    with real.paused(driver.pid):
        log = real.sweep_folder(folder) / "log.txt"
        real.wait_for(lambda: "cnnsweep.tracking: attempt 1:" in log.read_text(), "a failure to send", driver)
    real.wait_for(lambda: "MLflow does not answer" in text.read_text(), "a message about the outage", driver)
    with real.paused(driver.pid):
        server.start()
        real.wait_for(lambda: not real.unsent(folder), "the events that had waited", driver)
    real.wait_for(lambda: "MLflow answers again" in text.read_text(), "a message about its end", driver)
    server.kill()
    assert driver.wait(real.PATIENCE) == 0
    assert "send the rest to MLflow:  " in text.read_text()
    assert {e.status for e in real.state(folder).trials.values()} == {"completed"}

    code, output = real.run(folder, "resume")
    assert code == 2
    assert "no answer from" in output
    server.start()
    code, output = real.run(folder, "resume")
    assert code == 0
    assert "sent to MLflow:" in output
    assert "is finished (completed: budget.trials (2) is reached)" in output
    assert real.disagreements(folder, server.uri) == []
    found = subprocess.run(["grep", "-rlaF", "s3cr3t", str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.stdout == "", "a credential is in a file"


def test_two_sweeps_that_start_in_the_same_second_on_a_store_that_does_not_exist(tmp_path: Path) -> None:
    one = ("+sweep=smoke", "data.limit=200", "training.epochs=1", "budget.trials=1", "executor=inline", *real.FAST)
    both = [real.start(tmp_path, *one, new_store=True) for _ in "ab"]
    assert [process.wait(real.PATIENCE) for process in both] == [0, 0], (tmp_path / "output.txt").read_text()
    code, output = real.run(tmp_path, "list")
    assert code == 0
    assert output.count("completed") == 2


def small(tmp_path: Path, *overrides: str) -> Config:
    base = ("+sweep=smoke", "data.limit=200", "training.epochs=1", "budget.trials=1", "executor=inline", *real.FAST)
    return compose([*base, f"tracking.dir={tmp_path / 'mlruns'}", *overrides])


def go_on(tmp_path: Path, *overrides: str) -> tuple[session.Outcome | None, list[str]]:
    recorder = Recorder()
    found = resume.resume([], [f"tracking.dir={tmp_path / 'mlruns'}", *overrides], recorder)
    return found, recorder.messages


def test_a_deleted_run_is_noticed(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    outcome = session.start(small(tmp_path), Watcher())
    assert not (outcome.folder / "data").exists(), "the copy of the data goes when the sweep is complete"
    assert go_on(tmp_path)[0] is None
    client = MlflowClient(outcome.uri)
    experiment = client.get_experiment_by_name("cnnsweep").experiment_id
    runs = client.search_runs([experiment], order_by=["start_time"])
    sweep, trial = (next(r for r in runs if r.data.tags["cnnsweep.kind"] == kind) for kind in ("sweep", "trial"))
    client.delete_run(sweep.info.run_id)
    with pytest.raises(UserError, match=f"was deleted: restore it .*{sweep.info.run_id}"):
        go_on(tmp_path, "budget.trials=2")
    client.restore_run(sweep.info.run_id)
    client.delete_run(trial.info.run_id)
    again, messages = go_on(tmp_path, "budget.trials=2")
    assert again is not None
    assert any("nothing more is sent to 1 deleted MLflow run: " in line for line in messages)
    assert [e.status for e in again.state.trials.values()] == ["completed"] * 2
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    third, messages = go_on(tmp_path, "budget.trials=3", f"tracking.uri={elsewhere}")
    assert third is not None
    assert any("does not know this sweep's run" in line for line in messages)
    assert real.disagreements(tmp_path, elsewhere) == []


def test_changed_data_are_refused_and_missing_data_are_not_needed(tmp_path: Path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "own.npz"
    arrays = {"x_train": random.random((80, 8, 8)), "y_train": np.arange(80) % 2}
    arrays |= {"x_test": random.random((20, 8, 8)), "y_test": np.arange(20) % 2}
    np.savez(path, **arrays)
    config = small(tmp_path, "data=npz", f"data.file={path}", "data.limit=null", "budget.trials=4")
    stopped: list[Any] = []

    class Interrupting(Recorder):
        def watch(self, sweep: Any, trouble: Any) -> Any:
            stopped.append(sweep)
            return super().watch(sweep, trouble)

        def log(self, event: Any) -> None:
            if isinstance(event, TrialEnded):
                stopped[0].interrupt()

    assert session.start(config, Interrupting()).status == "interrupted"
    np.savez(path, **{**arrays, "x_train": arrays["x_train"][::-1]})
    with pytest.raises(UserError, match=r"the data have changed since .* began \(digest \w+ → \w+; "):
        go_on(tmp_path)
    path.unlink()
    outcome, _ = go_on(tmp_path)
    assert outcome is not None
    assert outcome.status == "completed"
    assert len(outcome.state.trials) == 4


@pytest.fixture
def tiny_disk(tmp_path: Path, small_disk: Callable[[Path, str], None]) -> Path:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    small_disk(folder, "size=6m")
    return folder


def test_a_full_disk_ends_the_sweep_and_leaves_the_journal_intact(tmp_path: Path, tiny_disk: Path) -> None:
    overrides = (*real.TINY, "training.epochs=12", "budget.trials=3")
    driver = real.start(tmp_path, *overrides)
    real.wait_for(lambda: any(e["event"] == "end" for e in real.events(tmp_path)), "the end of a trial", driver)
    before = [e for e in real.events(tmp_path) if e["event"] == "end"]
    with (tiny_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    assert driver.wait(real.PATIENCE) == 130
    output = (tmp_path / "output.txt").read_text()
    said = ("the disk is full; free some of it, then resume", "is intact: free some of the disk, then resume")
    assert any(text in output for text in said), "whether a trial or the journal met the full disk first"
    assert "Traceback" not in output
    assert " -m cnnsweep resume" in output
    assert [e for e in real.events(tmp_path) if e["event"] == "end" and e["status"] != "interrupted"][:1] == before[:1]
    (tiny_disk / "filler").unlink()
    code, output = real.run(tmp_path, "resume")
    assert code == 0, output
    assert [e.status for e in real.state(tmp_path).trials.values()] == ["completed"] * 3
    assert {len(e.curve) for e in real.state(tmp_path).trials.values()} == {12}
    assert real.disagreements(tmp_path) == []

"""The MLflow store read back and compared with the journal, with a real SQLite store and a real server."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import real_sweeps as real
import sqlalchemy.exc
from sqlalchemy import make_url
from tracked_sweeps import base_config, empty_store, follow, settings, stop_event, sweep_event, trial_events, uri

from cnnsweep.errors import UserError
from cnnsweep.journal.events import BestTested, EpochEnded, Event, TrialEnded
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.tracking.run_updates import RunUpdate
from cnnsweep.tracking.run_writer import RunWriter, is_lasting
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.tracking.tracker import Progress, Tracker, read_progress
from cnnsweep.trial import Status

__all__ = ["empty_store", "uri"]


def sweep_events(trials: int = 3) -> list[Event]:
    statuses: tuple[Status, ...] = ("completed", "pruned", "failed")
    numbers = range(1, trials + 1)
    return [sweep_event(), *chain(*(trial_events(n, status=statuses[(n - 1) % 3]) for n in numbers)), stop_event()]


def snapshot(uri: str) -> dict[str, Any]:
    """The store's runs by trial number, without times."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("tests")
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        keys = sorted(run.data.metrics)
        points = {k: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, k)] for k in keys}
        tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId", "cnnsweep.model_uri")}
        trial = run.data.tags.get("cnnsweep.trial", "sweep")
        assert trial not in found, f"two runs for {trial}"
        found[trial] = (run.info.status, run.data.params, tags, {k: sorted(p) for k, p in points.items()})
    return found


def steps(uri: str, run: str, metric: str = "loss") -> list[int]:
    return [point.step for point in connect(uri).get_metric_history(run, metric)]


def trouble_with(uri: str, folder: Path, events: list[Event]) -> str:
    """Send events to the end and return the message that is left."""
    tracker = Tracker(uri, "tests", folder, {})
    tracker.catch_up(events)
    assert tracker.flush(60) == 0
    tracker.close()
    return tracker.trouble or ""


def test_the_store_agrees_with_the_journal(uri: str, tmp_path: Path) -> None:
    artifacts = tmp_path / "trials" / "001" / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "model.txt").write_text("layers")
    events = sweep_events()
    tracker = follow(uri, tmp_path, events)
    client = connect(uri)
    parent, first = client.get_run(tracker.runs[None]), client.get_run(tracker.runs[1])
    start, *epochs = trial_events(1)[:-1]
    assert first.info.run_name == start.title
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.data.params["training.learning_rate"] == repr(start.values["training.learning_rate"])
    assert first.data.params["model.batch_norm"] in ("true", "false")
    assert set(first.data.params) == {p.name for p in parse_space(base_config()).parameters}
    history = client.get_metric_history(first.info.run_id, "val_accuracy")
    assert [p.step for p in history] == [1, 2, 3, 4, 5]
    assert [p.timestamp for p in history] == [round(e.time * 1000) for e in epochs]
    assert first.data.metrics["best_val_accuracy"] == epochs[-1].metrics["val_accuracy"]
    assert first.data.metrics["best_epoch"] == 5
    assert first.data.metrics["parameters"] == 1000
    assert steps(uri, first.info.run_id, "parameters") == [0]
    assert first.info.start_time == round(start.time * 1000)
    files = {f.path for f in client.list_artifacts(first.info.run_id)}
    assert files == {"config.yaml", "curves.png", "model.txt"}
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} == {"config.yaml", "facts.yaml"}


def test_statuses_tags_and_the_sweeps_own_curves(uri: str, tmp_path: Path) -> None:
    tracker = follow(uri, tmp_path, sweep_events())
    client = connect(uri)
    runs = {trial: client.get_run(run) for trial, run in tracker.runs.items()}
    assert [runs[n].info.status for n in (None, 1, 2, 3)] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert [runs[n].data.tags["cnnsweep.status"] for n in (1, 2, 3)] == ["completed", "pruned", "failed"]
    assert runs[3].data.tags["cnnsweep.reason"] == "was failed"
    assert {run.data.tags["team"] for run in runs.values()} == {"a"}
    assert {run.data.tags["cnnsweep.sweep"] for run in runs.values()} == {"fake-1"}
    parent = runs[None]
    assert parent.data.tags["cnnsweep.git.commit"] == "0123abc"
    assert parent.data.params["data"] == "digits"
    assert parent.data.params["budget.trials"] == "12"
    assert [(d.dataset.name, d.dataset.digest) for d in parent.inputs.dataset_inputs] == [("digits", "d1g357")]
    best = client.get_metric_history(parent.info.run_id, "best_val_accuracy")
    assert [p.step for p in best] == [1, 2, 3]
    assert [p.value for p in best] == sorted(p.value for p in best)
    assert [parent.data.metrics[f"trials_{s}"] for s in ("completed", "pruned", "failed")] == [1, 1, 1]


def test_sending_everything_again_changes_nothing(uri: str, tmp_path: Path) -> None:
    events = sweep_events()
    follow(uri, tmp_path, events)
    before = snapshot(uri)
    (tmp_path / "tracking.jsonl").unlink()
    follow(uri, tmp_path, events)
    assert snapshot(uri) == before
    follow(uri, tmp_path, events)
    assert snapshot(uri) == before


@pytest.mark.parametrize("cut", range(2, 22, 4))
def test_a_follower_that_dies_and_comes_back(uri: str, tmp_path: Path, cut: int) -> None:
    """The first follower dies after it created a run, before it noted so."""
    events = sweep_events()
    follow(uri, tmp_path, events[:cut])
    notes = (tmp_path / "tracking.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "tracking.jsonl").write_bytes(b"".join(notes[:-2]) + notes[-2][:5])
    follow(uri, tmp_path, events)
    found = snapshot(uri)
    assert set(found) == {"sweep", "1", "2", "3"}
    assert [step for step, _ in found["1"][3]["loss"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in found["sweep"][3]["best_val_accuracy"]] == [1, 2, 3]


def test_an_epoch_that_is_repeated_after_a_crash_counts_once(uri: str, tmp_path: Path) -> None:
    events = [sweep_event(), *trial_events(1)]
    again = [replace(e, time=e.time + 500) for e in events[3:5]]
    tracker = follow(uri, tmp_path, [*events[:5], *again, *events[5:]])
    assert steps(uri, tracker.runs[1]) == [1, 2, 3, 4, 5]


def test_a_promoted_trial_goes_on_in_the_same_run(uri: str, tmp_path: Path) -> None:
    first, then = trial_events(1, epochs=2), trial_events(1, epochs=3, first=3)
    tracker = follow(uri, tmp_path, [sweep_event(), *first, stop_event("interrupted")])
    assert connect(uri).get_run(tracker.runs[None]).info.status == "KILLED"
    events = [sweep_event(), *first, stop_event("interrupted"), *then[:2]]
    tracker = follow(uri, tmp_path, events)
    assert [connect(uri).get_run(tracker.runs[n]).info.status for n in (None, 1)] == ["RUNNING", "RUNNING"]
    tracker = follow(uri, tmp_path, [*events, *then[2:]])
    run = connect(uri).get_run(tracker.runs[1])
    assert (run.info.status, run.data.tags["cnnsweep.status"]) == ("FINISHED", "completed")
    assert steps(uri, run.info.run_id) == [1, 2, 3, 4, 5]


def test_a_value_that_changes_is_noted_as_a_tag(uri: str, tmp_path: Path) -> None:
    first, then = trial_events(1, epochs=2), trial_events(1, epochs=3, first=3)
    changed = replace(then[0], values={**then[0].values, "training.batch_size": 16})
    tracker = follow(uri, tmp_path, [sweep_event(), *first, changed, *then[1:]])
    run = connect(uri).get_run(tracker.runs[1])
    assert run.data.tags["cnnsweep.changed.training.batch_size"] == "16"
    assert run.data.params["training.batch_size"] == str(first[0].values["training.batch_size"])


def test_a_long_command_and_a_long_title_fit_into_any_database(uri: str, tmp_path: Path) -> None:
    command = ["cnnsweep", f"search.start_with={'9' * 9000}"]
    start, *rest = trial_events(1)
    tracker = follow(uri, tmp_path, [replace(sweep_event(), command=command), replace(start, title="t" * 300), *rest])
    sweep, trial = (connect(uri).get_run(tracker.runs[n]) for n in (None, 1))
    assert max(map(len, sweep.data.tags.values())) == len(sweep.data.tags["cnnsweep.command"]) == 8000
    assert sweep.data.tags["cnnsweep.command"].endswith("9 …")
    assert len(trial.info.run_name) == 250


def test_a_sweep_whose_run_the_store_refused_is_sent_again_once_it_takes_it(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsweep.tracking.tracker.PATIENCE", 0)
    events = sweep_events()
    tracker = Tracker(uri, "tests", tmp_path, {"team": "\udce9"})
    tracker.catch_up(events)
    assert tracker.close(60) == len(events)
    assert str(tracker.trouble).endswith("(trial 3: the sweep has no run)")
    follow(uri, tmp_path, events)
    assert set(snapshot(uri)) == {"sweep", "1", "2", "3"}


def test_what_does_not_fit_on_a_full_disk_is_sent_when_there_is_room(
    tmp_path: Path, empty_store: Path, small_disk: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsweep.tracking.tracker.PATIENCE", 0)
    events, disk, folder = sweep_events(), tmp_path / "disk", tmp_path / "sweep"
    disk.mkdir()
    small_disk(disk, "size=20m")
    (disk / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    store = open_store(settings(disk))
    tracker = Tracker(store, "tests", folder, {"team": "a"})
    tracker.catch_up(events[:4])
    assert tracker.flush(60) == 0
    usage = os.statvfs(disk)
    small_disk(disk, f"remount,size={(usage.f_blocks - usage.f_bfree) * usage.f_frsize}")
    tracker.catch_up(events[4:])
    assert tracker.close(60) == len(events) - 4
    assert "entries could not be logged" in str(tracker.trouble)
    small_disk(disk, "remount,size=20m")
    follow(store, folder, events)
    assert steps(store, tracker.runs[1]) == [1, 2, 3, 4, 5]
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    other = open_store(settings(undisturbed))
    follow(other, undisturbed, events)
    assert snapshot(store) == snapshot(other)


def test_a_value_that_the_store_refuses_is_not_sent_again(uri: str, tmp_path: Path) -> None:
    start, *epochs, end = trial_events(1)
    assert isinstance(end, TrialEnded)
    events = [sweep_event(), start, *epochs, replace(end, status="failed", reason="\udce9")]
    assert "(trial 1: 'utf-8' codec can't encode" in trouble_with(uri, tmp_path, events)
    assert read_progress(tmp_path / "tracking.jsonl")[0] == len(events)


@pytest.mark.parametrize(
    ("kind", "expected"), [(sqlalchemy.exc.DataError, True), (sqlalchemy.exc.OperationalError, False)]
)
def test_an_error_of_the_database_is_known_through_a_server_too(kind: Any, expected: bool) -> None:
    from mlflow.exceptions import MlflowException, RestException

    message = str(kind("INSERT", ["'utf-8' codec can't encode /9h9h)"], Exception("12 is too long, or the disk full")))
    assert is_lasting(MlflowException(message)) == expected
    assert is_lasting(RestException({"error_code": "INTERNAL_ERROR", "message": message})) == expected


def test_nan_and_infinity_do_not_stop_the_follower(uri: str, tmp_path: Path) -> None:
    events = [sweep_event(), *trial_events(1, epochs=2, status="failed"), *trial_events(2)]
    metrics = {"loss": math.nan, "val_accuracy": math.nan, "val_loss": math.inf}
    events[3] = EpochEnded(trial=1, epoch=2, metrics=metrics, time=events[3].time)
    tracker = follow(uri, tmp_path, events)
    assert tracker.trouble is None
    run = connect(uri).get_run(tracker.runs[1])
    assert run.data.metrics["best_epoch"] == 1


def test_variables_of_mlflow_neither_link_metrics_to_a_model_nor_hide_errors(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-1")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    tracker = follow(uri, tmp_path, sweep_events()[:4])
    assert tracker.trouble is None
    connect(uri).delete_run(tracker.runs[1])
    (writer := RunWriter(uri, "tests", tracker.runs)).open()
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        writer.send(RunUpdate(1, 1, metrics=[("loss", 1.0, 1, 9)]))


def test_a_deleted_run_is_noticed_and_the_rest_goes_on(uri: str, tmp_path: Path) -> None:
    events = sweep_events()
    tracker = follow(uri, tmp_path, events[:4])
    connect(uri).delete_run(tracker.runs[1])
    assert "trial 1" in trouble_with(uri, tmp_path, events)
    assert set(snapshot(uri)) == {"sweep", "2", "3"}


def test_events_wait_while_the_experiment_is_deleted(uri: str, tmp_path: Path) -> None:
    events = sweep_events()
    tracker = Tracker(uri, "tests", tmp_path, {"team": "a"})
    tracker.catch_up(events[:4])
    assert tracker.flush(60) == 0
    client = connect(uri)
    experiment = client.get_experiment_by_name("tests").experiment_id
    client.delete_experiment(experiment)
    tracker.catch_up(events[4:])
    real.wait_for(lambda: "'tests' was deleted: restore it" in str(tracker.trouble), "a message")
    client.restore_experiment(experiment)
    assert tracker.close(60) == 0
    assert tracker.trouble is None
    assert steps(uri, tracker.runs[1]) == [1, 2, 3, 4, 5]


def test_a_store_that_was_deleted_is_filled_again(uri: str, tmp_path: Path, empty_store: Path) -> None:
    events = sweep_events()
    follow(uri, tmp_path, events[:-1])
    before = snapshot(uri)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    moved = open_store(settings(other))
    follow(moved, tmp_path, events[:-1])
    assert snapshot(moved) == before


def test_an_event_that_cannot_be_understood_costs_itself_only(uri: str, tmp_path: Path) -> None:
    odd: Any = "odd"
    assert "odd" in trouble_with(uri, tmp_path, [sweep_event(), TrialEnded(trial=1, status=odd), *trial_events(2)])
    assert set(snapshot(uri)) == {"sweep", "2"}


def test_log_returns_at_once(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri, "tests", tmp_path, {})
    first, *others = sweep_events()
    tracker.log(first)
    for event in others:
        began = time.perf_counter()
        tracker.log(event)
        assert time.perf_counter() - began < 0.1
    assert tracker.close(60) == 0


def test_events_that_wait_for_a_slow_store_reach_each_run_in_one_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, sent = threading.Event(), Counter[int | None]()

    def send(_: RunWriter, update: RunUpdate) -> None:
        begin.wait(60)
        sent[update.trial] += 1

    monkeypatch.setattr(RunWriter, "open", lambda _: None)
    monkeypatch.setattr(RunWriter, "send", send)
    tracker = Tracker("sqlite://", "e", tmp_path, {})
    tracker.log(sweep_event())
    for alike in zip(*(trial_events(number) for number in range(1, 151)), strict=True):
        tracker.catch_up(alike)
    begin.set()
    assert tracker.flush(60) == 0
    tracker.close()
    assert len(sent) == 151
    assert max(sent.values()) <= 2, "one with the events at the start, one with the rest"


def test_credentials_reach_neither_tags_nor_artifacts(uri: str, tmp_path: Path) -> None:
    secret = "http://ann:hush@host:5000"
    config = base_config().replace(tracking=settings(tmp_path, secret)).plain()
    command = ["cnnsweep", f"tracking.uri={secret}"]
    start = replace(sweep_event(), config=config, command=command, provenance={"remote": secret})
    trial, *rest = trial_events(1)
    stop = replace(stop_event("failed"), reason=f"no answer from {secret}")
    follow(uri, tmp_path, [start, replace(trial, config=config), *rest, stop])
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 4
    assert not [p for p in files if b"hush" in p.read_bytes()]


def test_progress_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    progress = Progress(path)
    progress[None], progress[1] = "aa", "bb"
    progress.note_sent(7)
    progress.close()
    with path.open("ab") as file:
        file.write(b'{"sent": 9')
    progress = Progress(path)
    progress[2] = "cc"
    progress.close()
    assert read_progress(path) == (7, {None: "aa", 1: "bb", 2: "cc"})


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"tracking.dir: .*cannot be written"):
        open_store(settings(tmp_path / "file" / "below"))


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    connect("http://127.0.0.1")  # imports MLflow, which is not timed
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no answer from http://127.0.0.1") as caught:
        open_store(settings(tmp_path, f"http://ann:hush@127.0.0.1:{real.free_port()}"))
    assert time.monotonic() - began < 6
    assert "hush" not in str(caught.value)


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("something else altogether" * 100)
    with pytest.raises(UserError, match=r"the MLflow store .* cannot be used"):
        open_store(settings(tmp_path))


def test_importing_does_not_load_mlflow() -> None:
    code = "import sys, cnnsweep.tracking.tracker; sys.exit(bool({'mlflow', 'matplotlib', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(uri: str, tmp_path: Path) -> None:
    events, folder = sweep_events(6), tmp_path / "sweep"
    server = real.Server(tmp_path)
    server.start()
    try:
        assert open_store(settings(tmp_path, server.uri)) == server.uri
        tracker = Tracker(server.uri, "tests", folder, {"team": "a"})
        tracker.catch_up(events[:12])
        assert tracker.flush(60) == 0
        server.kill()
        for event in events[12:30]:
            tracker.log(event)
        assert tracker.flush(3) == 18
        assert "does not answer" in (tracker.trouble or "")
        server.start()
        assert tracker.flush(60) == 0
        assert tracker.trouble is None
        assert tracker.close() == 0
        follow(server.uri, folder, events)  # and by a new driver
        served = snapshot(server.uri)
    finally:
        server.kill()
    follow(uri, tmp_path / "local", events)
    assert served == snapshot(uri)


@pytest.mark.slow
def test_the_best_model_can_be_loaded_again(uri: str, tmp_path: Path) -> None:
    """From both of its addresses."""
    import keras
    import mlflow.keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    final = tmp_path / "final"
    mlflow.keras.save_model(model, str(final / "mlflow_model"), pip_requirements=["keras"])
    metrics = {"test_accuracy": 0.9}
    tested = BestTested(trial=1, epoch=5, folder=str(final), metrics=metrics, images=10, time=8000.0)
    events = [sweep_event(), *trial_events(1), tested, stop_event()]
    follow(uri, tmp_path, events)
    (tmp_path / "tracking.jsonl").unlink()
    tracker = follow(uri, tmp_path, events)
    parent = connect(uri).get_run(tracker.runs[None])
    assert parent.data.metrics["test_accuracy"] == 0.9
    assert len(parent.outputs.model_outputs) == 1
    mlflow.set_tracking_uri(uri)
    for address in (parent.data.tags["cnnsweep.model_uri"], f"runs:/{parent.info.run_id}/model"):
        assert mlflow.keras.load_model(address).output_shape == (None, 2)


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C as in a terminal: a job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_a_ctrl_c_ends_the_waiting_for_a_store_that_is_locked_and_nothing_else(uri: str, tmp_path: Path) -> None:
    events = sweep_events(1)
    with sqlite3.connect(make_url(uri).database or "", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracker = Tracker(uri, "tests", tmp_path / "sweep", {})
        for event in events:
            tracker.log(event)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        assert tracker.flush(60) == len(events)
        assert time.monotonic() - began < 30
        other.execute("ROLLBACK")
    assert tracker.close(60) == 0

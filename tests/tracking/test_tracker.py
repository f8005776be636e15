"""The MLflow store read back and compared with the journal, with a real SQLite store and a real server."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.search_space import space
from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.run_updates import Write
from cnnsweep.tracking.run_writer import Runs
from cnnsweep.tracking.store import connect
from cnnsweep.tracking.tracker import NullTracker, Progress, Tracker, open_store

# MLflow's own use of SQLAlchemy; nothing that a user sees.
pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning")
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "learning_rate")


@functools.cache
def base_config() -> dict[str, Any]:
    return compose([])


def sweep_event(sweep: str = "fake-1", **changes: Any) -> dict[str, Any]:
    facts = {
        "git": {"commit": "0123abc", "state": "clean"},
        "machine": {"cores": 2, "gpus": []},
        "data": {"name": "digits", "digest": "d1g357", "source": "sklearn", "train": 1293},
    }
    event = {"event": "sweep", "time": 1000.0, "id": sweep, "name": "fake", "format": 1, "facts": facts}
    return {**event, "config": base_config(), "command": "cnnsweep +sweep=fake", **changes}


def trial_events(number: int, epochs: int = 5, first: int = 1, status: str = "completed") -> list[dict[str, Any]]:
    """One trial's events: `trial`, an `epoch` each, `end`."""
    drawn = random.Random(number)
    values = space.read(base_config()).draw(np.random.default_rng(number))
    top, now = drawn.uniform(0.7, 0.95), 1000.0 + 100 * number + first
    name = f"{number:03d} · " + "-".join(str(v) for k, v in values.items() if k.startswith("model.filters"))
    events = [
        {"event": "trial", "time": now, "trial": number, "name": name, "values": values, "seed": number,
         "epochs": first + epochs - 1, "proposal": f"{number:x}", "config": base_config()}
    ]  # fmt: skip
    for epoch in range(first, first + epochs):
        height = top * (1 - 0.5**epoch)
        metrics = dict(zip(METRICS, (2 - height, height + 0.01, 2.05 - height, height, 1.0, 1e-3), strict=True))
        events.append({"event": "epoch", "time": now + epoch, "trial": number, "epoch": epoch, "metrics": metrics})
    summary = {"parameters": 1000 * number, "mmacs": 1.5, "trial_seconds": 5.0}
    reason = None if status == "completed" else f"was {status}"
    done = first + epochs - 1
    return [*events, {"event": "end", "time": now + done + 1, "trial": number, "status": status, "reason": reason,
                      "epochs": done, "summary": summary}]  # fmt: skip


def stop_event(status: str = "completed") -> dict[str, Any]:
    return {
        "event": "stop",
        "time": 9000.0,
        "status": status,
        "reason": "budget.trials",
        "summary": {"trials": 3},
    }


def sweep_events(trials: int = 3) -> list[dict[str, Any]]:
    events = [sweep_event()]
    for number in range(1, trials + 1):
        events += trial_events(number, status=("completed", "pruned", "failed")[(number - 1) % 3])
    return [*events, stop_event()]


def settings(folder: Path, uri: str | None = None) -> dict[str, Any]:
    return {"uri": uri, "dir": str(folder), "experiment": "tests", "tags": {"team": "a"}, "gallery": 3}


def follow(uri: str, folder: Path, events: list[dict[str, Any]]) -> Tracker:
    """Send events to the end and return the closed tracker."""
    tracker = Tracker(uri, "tests", folder, {"team": "a"})
    tracker.catch_up(events)
    assert tracker.close(60) == 0, tracker.trouble
    return tracker


def snapshot(uri: str) -> dict[str, Any]:
    """All that the store says of its runs, by trial number, times left out."""
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


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema, made once: migrations take seconds."""
    folder = tmp_path_factory.mktemp("store")
    open_store({**settings(folder), "experiment": "another"})
    return folder


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """A fresh copy of the empty store."""
    (tmp_path / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    return open_store(settings(tmp_path))


def test_store_holds_what_the_journal_says(uri: str, tmp_path: Path) -> None:
    artifacts = tmp_path / "trials" / "001" / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "model.txt").write_text("layers")
    events = sweep_events()
    tracker = follow(uri, tmp_path, events)
    client = connect(uri)
    parent, first = client.get_run(tracker.runs[None]), client.get_run(tracker.runs[1])
    assert first.info.run_name == events[1]["name"]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.data.params["training.learning_rate"] == repr(events[1]["values"]["training.learning_rate"])
    assert first.data.params["model.batch_norm"] in ("true", "false")
    assert set(first.data.params) == {p.name for p in space.read(base_config()).parameters}
    history = client.get_metric_history(first.info.run_id, "val_accuracy")
    assert [p.step for p in history] == [1, 2, 3, 4, 5]
    assert [p.timestamp for p in history] == [round(e["time"] * 1000) for e in events[2:7]]
    assert first.data.metrics["best_val_accuracy"] == events[6]["metrics"]["val_accuracy"]
    assert first.data.metrics["best_epoch"] == 5
    assert first.data.metrics["parameters"] == 1000
    assert [p.step for p in client.get_metric_history(first.info.run_id, "parameters")] == [0]
    assert first.info.start_time == round(events[1]["time"] * 1000)
    assert {f.path for f in client.list_artifacts(first.info.run_id)} == {
        "config.yaml",
        "curves.png",
        "model.txt",
    }
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
    again = [{**e, "time": e["time"] + 500} for e in events[3:5]]
    tracker = follow(uri, tmp_path, [*events[:5], *again, *events[5:]])
    history = connect(uri).get_metric_history(tracker.runs[1], "loss")
    assert [p.step for p in history] == [1, 2, 3, 4, 5]


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
    history = connect(uri).get_metric_history(run.info.run_id, "loss")
    assert [p.step for p in history] == [1, 2, 3, 4, 5]


def test_a_value_that_changes_is_noted_as_a_tag(uri: str, tmp_path: Path) -> None:
    first, then = trial_events(1, epochs=2), trial_events(1, epochs=3, first=3)
    then[0]["values"] = {**then[0]["values"], "training.batch_size": 16}
    tracker = follow(uri, tmp_path, [sweep_event(), *first, *then])
    run = connect(uri).get_run(tracker.runs[1])
    assert run.data.tags["cnnsweep.changed.training.batch_size"] == "16"
    assert run.data.params["training.batch_size"] == str(first[0]["values"]["training.batch_size"])


def test_nan_and_infinity_do_not_stop_the_follower(uri: str, tmp_path: Path) -> None:
    events = [sweep_event(), *trial_events(1, epochs=2, status="failed"), *trial_events(2)]
    events[3]["metrics"] = {"loss": float("nan"), "val_accuracy": float("nan"), "val_loss": float("inf")}
    tracker = follow(uri, tmp_path, events)
    assert tracker.trouble is None
    run = connect(uri).get_run(tracker.runs[1])
    assert run.data.metrics["best_epoch"] == 1


def test_a_deleted_run_is_noticed_and_the_rest_goes_on(uri: str, tmp_path: Path) -> None:
    events = sweep_events()
    tracker = follow(uri, tmp_path, events[:4])
    connect(uri).delete_run(tracker.runs[1])
    tracker = Tracker(uri, "tests", tmp_path, {})
    tracker.catch_up(events)
    assert tracker.flush(60) == 0
    assert tracker.trouble is not None
    assert "trial 1" in tracker.trouble
    tracker.close()
    assert set(snapshot(uri)) == {"sweep", "2", "3"}


def test_a_store_that_was_thrown_away_is_filled_again(uri: str, tmp_path: Path, empty_store: Path) -> None:
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
    events = [sweep_event(), {"event": "end", "time": 1.0, "trial": 1, "status": "odd"}, *trial_events(2)]
    tracker = Tracker(uri, "tests", tmp_path, {})
    tracker.catch_up([*events, {"event": "unheard-of", "time": 2.0}])
    assert tracker.flush(60) == 0
    assert "odd" in (tracker.trouble or "")
    tracker.close()
    assert set(snapshot(uri)) == {"sweep", "2"}


def test_log_returns_at_once(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(uri, "tests", tmp_path, {})
    events = sweep_events()
    tracker.log(events[0])
    slowest = 0.0
    for event in events[1:]:
        began = time.perf_counter()
        tracker.log(event)
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.1
    assert tracker.close(60) == 0


def test_what_waits_for_a_slow_store_goes_to_each_run_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, sent = threading.Event(), Counter[int | None]()

    def send(_: Runs, write: Write) -> None:
        begin.wait(60)
        sent[write.trial] += 1

    monkeypatch.setattr(Runs, "open", lambda _: None)
    monkeypatch.setattr(Runs, "send", send)
    tracker = Tracker("sqlite://", "e", tmp_path, {})
    tracker.log(sweep_event())
    for alike in zip(*(trial_events(number) for number in range(1, 151)), strict=True):
        for event in alike:
            tracker.log(event)
    begin.set()
    assert tracker.flush(60) == 0
    tracker.close()
    assert len(sent) == 151
    assert max(sent.values()) <= 2, "one with what had come when the sending began, one with the rest"


def test_credentials_reach_neither_tags_nor_artifacts(uri: str, tmp_path: Path) -> None:
    secret = "http://ann:hush@host:5000"
    config = {**base_config(), "tracking": settings(tmp_path, secret)}
    event = sweep_event(config=config, command=f"cnnsweep tracking.uri={secret}", facts={"remote": secret})
    trial = [{**e, "config": config} if e["event"] == "trial" else e for e in trial_events(1)]
    follow(uri, tmp_path, [event, *trial, {**stop_event("failed"), "reason": f"no answer from {secret}"}])
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 4
    assert not [p for p in files if b"hush" in p.read_bytes()]


def test_redact() -> None:
    assert redact(["postgresql://u:p@h/db", 3]) == ["postgresql://***@h/db", 3]
    assert redact("http://h:5000/a@b") == "http://h:5000/a@b"


def test_progress_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "tracking.jsonl")
    progress.note_run(None, "aa")
    progress.note_run(1, "bb")
    progress.note_sent(7)
    progress.close()
    with (tmp_path / "tracking.jsonl").open("ab") as file:
        file.write(b'{"sent": 9')
    progress = Progress(tmp_path / "tracking.jsonl")
    progress.note_run(2, "cc")
    progress.close()
    again = Progress(tmp_path / "tracking.jsonl")
    again.close()
    assert (again.sent, again.runs) == (7, {None: "aa", 1: "bb", 2: "cc"})


def test_null_tracker_follows_nothing() -> None:
    tracker = NullTracker()
    tracker.log(sweep_event())
    tracker.catch_up(sweep_events())
    assert (tracker.flush(), tracker.close(), tracker.trouble, tracker.runs) == (0, 0, None, {})


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"tracking.dir: .*cannot be written"):
        open_store(settings(tmp_path / "file" / "below"))


@pytest.mark.parametrize("uri", ["ftp://host", "mlruns", "http://", "file:///tmp/x"])
def test_a_uri_of_no_known_kind(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking.uri: .*http"):
        open_store(settings(tmp_path, uri))


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    connect("http://127.0.0.1")  # imports MLflow, which is not what is timed
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no answer from http://127.0.0.1") as caught:
        open_store(settings(tmp_path, f"http://ann:hush@127.0.0.1:{free_port()}"))
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
def test_two_sweeps_start_in_the_same_second_on_a_new_store(tmp_path: Path) -> None:
    code = (
        "import json, sys; from cnnsweep.tracking.tracker import open_store; print(open_store(json.loads(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, json.dumps(settings(tmp_path / "new"))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0] == answers[1] == (f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}\n", "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """A real MLflow server on loopback, killed with all its processes at the end."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    store = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/server.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **store, "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "served")}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(uri: str, tmp_path: Path) -> None:
    events, port = sweep_events(6), free_port()
    folder = tmp_path / "sweep"
    with server(tmp_path, port) as address:
        assert open_store(settings(tmp_path, address)) == address
        tracker = Tracker(address, "tests", folder, {"team": "a"})
        tracker.catch_up(events[:12])
        assert tracker.flush(60) == 0
    for event in events[12:30]:
        tracker.log(event)
    assert tracker.flush(3) == 18
    assert "does not answer" in (tracker.trouble or "")
    with server(tmp_path, port):
        assert tracker.flush(60) == 0
        assert tracker.trouble is None
        assert tracker.close() == 0
        follow(address, folder, events)  # and by a new driver
        served = snapshot(address)
    follow(uri, tmp_path / "local", events)
    assert served == snapshot(uri)


@pytest.mark.slow
def test_the_best_model_can_be_loaded_again(uri: str, tmp_path: Path) -> None:
    """Saved by a worker's process, logged here without Keras, loaded from both of its addresses."""
    save = """
import sys, keras, mlflow.keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
mlflow.keras.save_model(model, sys.argv[1], pip_requirements=["keras"])
"""
    final = tmp_path / "final"
    subprocess.run([sys.executable, "-c", save, str(final / "mlflow_model")], check=True, capture_output=True)
    event = {"event": "final", "time": 8000.0, "trial": 1, "folder": str(final), "metrics": {"accuracy": 0.9}}
    events = [sweep_event(), *trial_events(1), event, stop_event()]
    follow(uri, tmp_path, events)
    (tmp_path / "tracking.jsonl").unlink()
    tracker = follow(uri, tmp_path, events)
    parent = connect(uri).get_run(tracker.runs[None])
    assert parent.data.metrics["test_accuracy"] == 0.9
    assert len(parent.outputs.model_outputs) == 1
    load = """
import sys, mlflow, mlflow.keras
mlflow.set_tracking_uri(sys.argv[1])
print([mlflow.keras.load_model(address).output_shape for address in sys.argv[2:]])
"""
    addresses = [parent.data.tags["cnnsweep.model_uri"], f"runs:/{parent.info.run_id}/model"]
    command = [sys.executable, "-c", load, uri, *addresses]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "[(None, 2), (None, 2)]", done.stderr[-2000:]

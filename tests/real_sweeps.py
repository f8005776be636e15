"""Sweeps in processes of their own, as a user starts them, to be killed and looked at."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import store_template

from cnnsweep.config.objective import Objective
from cnnsweep.journal import journal
from cnnsweep.journal.events import from_json
from cnnsweep.journal.state import SweepState, TrialState, replay
from cnnsweep.sweep import catalog
from cnnsweep.tracking.run_updates import MLFLOW_STATUS, text

FAST = ("tracking.gallery=0", "tracking.report=false", "training.precision=float32")
"""Without what costs more than the training of such small sweeps, and is tested elsewhere."""
TINY = ("+sweep=smoke", "data.limit=200", "executor=cpu", "executor.workers=1", *FAST)
PATIENCE = 240


def own_job(folder: Path, call: str) -> Path:
    """Make `folder` a user's: one of own_functions.py, job=mine, and its space, space=mine."""
    for group, content in {
        "job": f"defaults: [function, _self_]\ncall: own_functions.{call}\nrate: 0.5\n",
        "space": "job:\n  rate: {min: 0.1, max: 1.0}\n",
    }.items():
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mine.yaml").write_text(content)
    shutil.copy(Path(__file__).parent / "own_functions.py", folder)
    return folder


def start(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, new_store: bool = False
) -> subprocess.Popen[str]:
    """Run `python -m cnnsweep` in `folder`; its output goes to output.txt there, one run after another.

    A sweep finds the tables of its store there, unless it is to make a `new_store`.
    """
    root = Path(__file__).parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    if "=" in arguments[0] and "tracking=server" not in arguments and not new_store:
        store_template.put(folder / "mlruns" / "mlflow.db")
    variables = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", **(environment or {})}
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "cnnsweep", *arguments],
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def run(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, patience: float = PATIENCE
) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed."""
    path = folder / "output.txt"
    before = path.stat().st_size if path.exists() else 0
    code = start(folder, *arguments, environment=environment).wait(patience)
    return code, path.read_bytes()[before:].decode()


def wait_for(condition: Callable[[], Any], what: str, process: subprocess.Popen[Any] | None = None) -> Any:
    """Poll until `condition` is truthy."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come (exit code {process.poll() if process else None})")


def sweep_folder(folder: Path) -> Path:
    """The folder of the first sweep under `folder`; one that does not exist where there is no sweep yet."""
    sweeps = folder / "mlruns" / "sweeps"
    return min(sweeps.glob("*"), default=sweeps / "none")


def events(folder: Path) -> list[Mapping[str, Any]]:
    """Of the only sweep under `folder`, as far as they are written."""
    path = sweep_folder(folder) / journal.FILE
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def unsent(folder: Path) -> int:
    """The number of events that MLflow does not have yet."""
    return catalog.unsent(sweep_folder(folder), len(events(folder)))


def state(folder: Path) -> SweepState:
    found = events(folder)
    return replay(map(from_json, found), Objective.of(found[0]["config"]["objective"]))


def table(sweep: SweepState) -> list[tuple[Any, ...]]:
    """What must not depend on crashes: everything but times."""
    return [
        (e.number, e.name, dict(e.values), e.status, e.reason, [{**row, "epoch_seconds": 0} for row in e.curve])
        for e in sorted(sweep.trials.values(), key=lambda e: e.number)
    ]


def workers(driver: int) -> list[psutil.Process]:
    """The worker processes of a driver: grandchildren, below its fork server."""
    try:
        family = psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in family:
        with contextlib.suppress(psutil.Error):
            if process.ppid() != driver and "forkserver" in " ".join(process.cmdline()):
                found.append(process)
    return found


@contextlib.contextmanager
def paused(driver: int) -> Iterator[None]:
    """The workers of a driver stand still, so that training does not end before what is waited for has come."""
    found = workers(driver)
    for worker in found:
        worker.suspend()
    try:
        yield
    finally:
        for worker in found:
            worker.resume()


def disagreements(folder: Path, uri: str | None = None) -> list[str]:
    """Where MLflow says otherwise than the journal: one run a trial, each epoch once, the right status and params."""
    from mlflow.tracking import MlflowClient

    known = state(folder)
    client = MlflowClient(uri or f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cnnsweep")
    of_sweep = f"tags.`cnnsweep.sweep` = '{sweep_folder(folder).name}'"
    runs = client.search_runs([experiment.experiment_id], of_sweep, max_results=5000)
    parents = [r for r in runs if r.data.tags["cnnsweep.kind"] == "sweep"]
    trials = {int(r.data.tags["cnnsweep.trial"]): r for r in runs if r.data.tags["cnnsweep.kind"] == "trial"}
    found = []
    if len(parents) != 1 or len(runs) != len(trials) + 1:
        found.append(f"{len(runs)} runs for {len(trials)} trials and {len(parents)} sweeps")
    status = known.stop.status if known.stop else "running"
    found += [f"sweep: {p.info.status}, not {status}" for p in parents if p.info.status != MLFLOW_STATUS[status]]
    for number in sorted({*trials, *known.trials}):
        if number not in trials or number not in known.trials:
            found.append(f"trial {number} is only in {'MLflow' if number in trials else 'the journal'}")
        else:
            found += _differences(client, trials[number], known.trials[number])
    return found


def _differences(client: Any, run_: Any, entry: TrialState) -> list[str]:
    history = client.get_metric_history(run_.info.run_id, "val_accuracy") if entry.curve else []
    points = sorted((p.step, p.value) for p in history)
    curve = [(epoch, row["val_accuracy"]) for epoch, row in enumerate(entry.curve, start=1)]
    params = {key: run_.data.params.get(key) for key in entry.values}
    values = {key: text(value) for key, value in entry.values.items()}
    pairs = {
        "status": (run_.info.status, MLFLOW_STATUS[entry.status]),
        "tag": (run_.data.tags["cnnsweep.status"], entry.status),
        "epochs": (points, curve),
        "params": (params, values),
    }
    return [f"trial {entry.number}: {what} {a} != {b}" for what, (a, b) in pairs.items() if a != b]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Times and contents of all files below a folder; empty where there is none."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in found}


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Server:
    """A real MLflow server on loopback, on SQLite unless it is given another store; to be killed and started again."""

    def __init__(
        self, folder: Path, store: str | None = None, *, options: Sequence[str] = (), workers: int = 1
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.served = folder / "served"
        self.variables = {
            "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{folder}/server.db",
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.served),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nine more processes
        }
        self._options = [*options, "--host=127.0.0.1", f"--port={self.port}", f"--workers={workers}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.variables["MLFLOW_BACKEND_STORE_URI"].startswith("sqlite"):
            store_template.put(self.folder / "server.db")
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *self._options],
                cwd=self.folder,
                env={**os.environ, **self.variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            wait_for(self.answers, "the MLflow server", self._process)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            return True
        return False

    def kill(self) -> None:
        """SIGKILL to the server and all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

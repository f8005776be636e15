"""A sweep on a real cluster whose nodes die and join, and share no folder with the driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray_jobs
import real_sweeps
from ray_cluster import FAST, SMALL, leave, place_elsewhere, ray

from cnnsweep.config.compose import compose
from cnnsweep.executors.ray.manifest import Manifest
from cnnsweep.sweep import session
from cnnsweep.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # of which most is TensorFlow, imported on each node
TOKEN = "0123456789abcdef" * 4
NODE = {"num_cpus": 1, "object_store_memory": SMALL["object_store_memory"], "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": FAST})
    yield made
    made.shutdown()
    leave()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "place", place_elsewhere)


class Trouble(session.Watcher):
    """Kills the node that trains trial 3 after its second epoch, and adds one later."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.nodes = {raylet(node): node for node in (cluster.add_node(**NODE) for _ in range(3))}
        self.killed: int | None = None
        self.added: int | None = None
        self.workers: list[int] = []

    def log(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "epoch" and (event["trial"], event["epoch"]) == (ray_jobs.REAL, 2):
            trial = self.folder / "mlruns" / "sweeps"
            (where,) = trial.glob(f"*/trials/{ray_jobs.REAL:03d}")
            self.killed = ray_jobs.visits(where)[0][0]
            self.cluster.remove_node(self.nodes[self.killed], allow_graceful=False)
            pid = int((where / "pid").read_text())
            real_sweeps.wait_for(lambda: not psutil.pid_exists(pid), "the end of the worker on the node that died")
        if event["event"] == "end" and event["trial"] == 15:
            self.added = raylet(self.cluster.add_node(**NODE))


def raylet(node: Any) -> int:
    (process,) = node.all_processes["raylet"]
    return int(process.process.pid)


@pytest.mark.usefixtures("apart")
def test_nothing_is_lost_and_nothing_told_twice_while_nodes_come_and_go(cluster: Any, tmp_path: Path) -> None:
    config = compose(
        [
            "+sweep=smoke",
            "data.limit=200",
            "budget.trials=40",
            "training.epochs=4",
            "tracking.gallery=0",
            "tracking.report=false",
            f"tracking.dir={tmp_path / 'mlruns'}",
            "executor=ray",
            f"executor.address={cluster.address}",
        ]
    )
    trouble = Trouble(cluster, tmp_path)
    outcome = session.start(config, trouble, job=ray_jobs.mixed)

    entries = outcome.ledger.entries
    assert outcome.status == "completed"
    assert Counter(entry.status for entry in entries.values()) == {"completed": 40}
    assert all(len(entry.curve) == 4 for entry in entries.values())
    told = Counter((e["event"], e["trial"], e["epoch"]) for e in real_sweeps.events(tmp_path) if e["event"] == "epoch")
    assert set(told.values()) == {1}
    assert len(told) == 160
    assert real_sweeps.disagreements(tmp_path) == []

    visits = {n: ray_jobs.visits(outcome.folder / "trials" / f"{n:03d}") for n in entries}
    assert not any(place.startswith(str(tmp_path)) for places in visits.values() for *_, place in places)
    homes = {Path(place).parents[2] for places in visits.values() for *_, place in places}
    assert not any(home.exists() for home in homes)
    first, second = visits[ray_jobs.REAL]
    assert (first[0], first[1], second[1]) == (trouble.killed, 0, 2)
    assert second[0] != trouble.killed
    state = checkpoint.read_state(outcome.folder / "trials" / f"{ray_jobs.REAL:03d}" / checkpoint.BEST)
    seconds = [row["epoch_seconds"] for row in state["epochs"]]
    curve = [row["epoch_seconds"] for row in entries[ray_jobs.REAL].curve]
    assert seconds == curve[: len(seconds)]  # no epoch was trained twice
    assert trouble.added in {pid for places in visits.values() for pid, *_ in places}
    assert outcome.ledger.final is not None
    assert (outcome.folder / "best" / "model.keras").exists()
    assert ray.is_initialized() is False


def test_a_seed_gives_the_same_trials_to_the_last_digit_wherever_they_run(tmp_path: Path) -> None:
    """In a process of its own, where TensorFlow has not computed anything; Ray's trials use a storage."""
    command = [sys.executable, str(Path(__file__).with_name("same_trials.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert [len(told[kind]["trials"]) for kind in told] == [3, 3, 3]
    assert told["inline"]["trials"] == told["process"]["trials"] == told["ray"]["trials"]
    assert told["inline"]["files"] == told["process"]["files"] == told["ray"]["files"]
    assert "001/artifacts/curves.png" in told["ray"]["files"]
    assert told["ray"]["left"] == []


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, psutil.Process]]:
    """A cluster started from the command line that asks for a token; its two ports and its process."""
    monkeypatch.setenv("HOME", str(tmp_path))  # there is no token
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    head, clients = real_sweeps.free_port(), real_sweeps.free_port()
    command = (
        f"-m ray.scripts.scripts start --head --block --num-cpus=1 --port={head} --ray-client-server-port={clients}"
    )
    small = (
        f"--include-dashboard=false --object-store-memory={NODE['object_store_memory']} --dashboard-agent-listen-port=0"
    )
    with (tmp_path / "ray.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *command.split(), *small.split()],
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    for port in (head, clients):
        real_sweeps.wait_for(lambda port=port: real_sweeps.listens(port), "the cluster", process)
    yield head, clients, psutil.Process(process.pid)
    process.terminate()
    process.wait(60)


def test_a_driver_outside_a_cluster_that_asks_for_a_token_and_is_killed(
    guarded: tuple[int, int, psutil.Process], tmp_path: Path
) -> None:
    *ports, cluster = guarded
    head, clients = (f"127.0.0.1:{port}" for port in ports)
    small = ("+sweep=smoke", "data.limit=200", "budget.trials=1", "tracking.report=false", "executor=ray")
    for address, token, told in (
        (f"ray://{clients}", "", "the cluster asks for a token, and this machine has none\nset RAY_AUTH_TOKEN"),
        (head, TOKEN[::-1], "the cluster does not accept this machine's token\nset RAY_AUTH_TOKEN"),
        (f"ray://{head}", TOKEN, f"no Ray cluster answers there; did you mean {head}?"),
        (clients, TOKEN, f"no Ray cluster answers there; did you mean ray://{clients}?"),
    ):
        shown = {"RAY_AUTH_TOKEN": token} if token else {}
        found = real_sweeps.run(tmp_path, *small, f"executor.address={address}", environment=shown)
        assert found[0] == 2
        assert found[1].startswith(f"cnnsweep: executor.address={address}: {told}")
    sure = {"RAY_AUTH_TOKEN": TOKEN, "http_proxy": "http://127.0.0.1:9", "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2"}
    assert real_sweeps.run(tmp_path, *small, f"executor.address=ray://{clients}", environment=sure)[0] == 0
    assert real_sweeps.run(tmp_path, "resume", "budget.trials=2", f"executor.address={head}", environment=sure)[0] == 0
    assert [entry.status for entry in real_sweeps.ledger(tmp_path).entries.values()] == ["completed"] * 2
    assert real_sweeps.disagreements(tmp_path) == []

    gone = tmp_path / "gone"
    driver = real_sweeps.start(
        gone, *small, f"executor.address=ray://{clients}", "training.epochs=40", environment=sure
    )
    real_sweeps.wait_for(lambda: len(real_sweeps.events(gone)) > 3, "two epochs", driver)
    for process in [*cluster.children(recursive=True), cluster]:
        process.kill()
    assert driver.wait(real_sweeps.PATIENCE) == 130
    output = (gone / "output.txt").read_text()
    assert "the Ray cluster does not answer any more; go on once it is back, or on another executor" in output
    assert "Traceback" not in output
    assert real_sweeps.run(gone, "resume", "executor=inline")[0] == 0
    assert [entry.status for entry in real_sweeps.ledger(gone).entries.values()] == ["completed"]


def test_ctrl_c_leaves_no_process_behind_and_a_sweep_that_goes_on_elsewhere(tmp_path: Path) -> None:
    small = ("+sweep=smoke", "data.limit=200", "training.epochs=40", "budget.trials=1", "tracking.report=false")
    driver = real_sweeps.start(tmp_path, *small, "executor=ray")
    real_sweeps.wait_for(lambda: len(real_sweeps.events(tmp_path)) > 3, "two epochs", driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    for process in [*family, psutil.Process(driver.pid)]:  # a terminal tells all
        process.send_signal(signal.SIGINT)
    assert driver.wait(real_sweeps.PATIENCE) == 130
    assert not psutil.wait_procs(family, timeout=20)[1]
    told = real_sweeps.ledger(tmp_path)
    assert [entry.status for entry in told.entries.values()] == ["interrupted"]
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    assert "raylet" not in output

    assert real_sweeps.run(tmp_path, "resume", "executor=inline")[0] == 0
    assert real_sweeps.ledger(tmp_path).entries[1].curve[:2] == told.entries[1].curve[:2]
    assert real_sweeps.disagreements(tmp_path) == []

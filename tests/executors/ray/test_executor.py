"""Sweeps on real clusters: nodes that die and join, the same numbers as elsewhere, an interrupt, wrong arguments."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import real_sweeps
import trial_jobs
from ray_cluster import FAST, SMALL, leave, ray

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.executors.ray.executor import RayExecutor
from cnnsweep.journal.events import EpochEnded, Event, TrialEnded
from cnnsweep.sweep import session
from cnnsweep.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # of which most is TensorFlow, imported on each node
NODE = {"num_cpus": 1, "object_store_memory": SMALL["object_store_memory"], "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": FAST})
    yield made
    made.shutdown()
    leave()


class Trouble(session.Watcher):
    """Kills the node that trains trial 3 after its second epoch, and adds one later."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.nodes = {raylet(node): node for node in (cluster.add_node(**NODE) for _ in range(3))}
        self.killed: int | None = None
        self.added: int | None = None

    def log(self, event: Event) -> None:
        match event:
            case EpochEnded(trial=trial_jobs.REAL, epoch=2):
                self.kill_node()
            case TrialEnded(trial=15):
                self.added = raylet(self.cluster.add_node(**NODE))

    def kill_node(self) -> None:
        (trial,) = (self.folder / "mlruns" / "sweeps").glob(f"*/trials/{trial_jobs.REAL:03d}")
        self.killed = trial_jobs.visits(trial)[0][0]
        self.cluster.remove_node(self.nodes[self.killed], allow_graceful=False)
        pid = int((trial / "pid").read_text())
        real_sweeps.wait_for(lambda: not psutil.pid_exists(pid), "the end of the worker on the node that died")


def raylet(node: Any) -> int:
    (process,) = node.all_processes["raylet"]
    return int(process.process.pid)


def test_nothing_is_lost_and_nothing_reported_twice_while_nodes_come_and_go(cluster: Any, tmp_path: Path) -> None:
    small = ("+sweep=smoke", "data.limit=200", "budget.trials=40", "training.epochs=4", "tracking.gallery=0")
    where = (f"tracking.dir={tmp_path / 'mlruns'}", "executor=ray", f"executor.address={cluster.address}")
    config = compose([*small, *where, "tracking.report=false"])
    trouble = Trouble(cluster, tmp_path)
    outcome = session.start(config, trouble, job=trial_jobs.mixed)

    entries = outcome.state.trials
    assert outcome.status == "completed"
    assert Counter(entry.status for entry in entries.values()) == {"completed": 40}
    assert all(len(entry.curve) == 4 for entry in entries.values())
    epochs = Counter((e["trial"], e["epoch"]) for e in real_sweeps.events(tmp_path) if e["event"] == "epoch")
    assert set(epochs.values()) == {1}
    assert len(epochs) == 160
    assert real_sweeps.disagreements(tmp_path) == []

    visits = {n: trial_jobs.visits(outcome.folder / "trials" / f"{n:03d}") for n in entries}
    assert not any(place.startswith(str(tmp_path)) for places in visits.values() for *_, place in places)
    homes = {Path(place).parents[2] for places in visits.values() for *_, place in places}
    assert not any(home.exists() for home in homes)
    first, second = visits[trial_jobs.REAL]
    assert first[:2] == (trouble.killed, 0)
    assert second[0] != trouble.killed
    assert 2 <= second[1] < 4  # the third epoch may have arrived before the node was gone
    state = checkpoint.read_state(outcome.folder / "trials" / f"{trial_jobs.REAL:03d}" / checkpoint.BEST)
    seconds = [row["epoch_seconds"] for row in state.epochs]
    curve = [row["epoch_seconds"] for row in entries[trial_jobs.REAL].curve]
    assert seconds == curve[: len(seconds)]  # no epoch was trained twice
    assert trouble.added in {pid for places in visits.values() for pid, *_ in places}
    assert outcome.state.final is not None
    assert (outcome.folder / "best" / "model.keras").exists()
    assert ray.is_initialized() is False


def test_a_seed_gives_the_same_trials_to_the_last_digit_wherever_they_run(tmp_path: Path) -> None:
    """In a process of its own, where TensorFlow has not computed anything."""
    command = [sys.executable, str(Path(__file__).parents[2] / "same_trials.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(found[kind]["trials"]) for kind in found] == [3, 3, 3]
    assert found["inline"]["trials"] == found["process"]["trials"] == found["ray"]["trials"]
    assert found["inline"]["recurrent"] == found["process"]["recurrent"] == found["ray"]["recurrent"] != {}
    assert found["inline"]["files"] == found["process"]["files"] == found["ray"]["files"]
    assert "001/artifacts/curves.png" in found["ray"]["files"]
    assert not found["ray"]["left"]


def test_ctrl_c_leaves_no_process_behind_and_a_sweep_that_goes_on_elsewhere(tmp_path: Path) -> None:
    small = ("+sweep=smoke", "data.limit=200", "training.epochs=40", "budget.trials=1", *real_sweeps.FAST)
    driver = real_sweeps.start(tmp_path, *small, "executor=ray")
    real_sweeps.wait_for(lambda: len(real_sweeps.events(tmp_path)) > 3, "two epochs", driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    for process in [*family, psutil.Process(driver.pid)]:  # a terminal tells all
        process.send_signal(signal.SIGINT)
    assert driver.wait(real_sweeps.PATIENCE) == 130
    assert not psutil.wait_procs(family, timeout=20)[1]
    interrupted = real_sweeps.state(tmp_path)
    assert [entry.status for entry in interrupted.trials.values()] == ["interrupted"]
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    assert "raylet" not in output

    assert real_sweeps.run(tmp_path, "resume", "executor=inline")[0] == 0
    assert real_sweeps.state(tmp_path).trials[1].curve[:2] == interrupted.trials[1].curve[:2]
    assert real_sweeps.disagreements(tmp_path) == []


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """A cluster of two cores, which this process has joined."""
    ray.init("local", **SMALL, num_cpus=2)
    yield
    leave()


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gpus": 0.5}, "executor.num_cpus=1 with executor.num_gpus=0.5: no node of the cluster has so much ("),
        ({"num_cpus": 64}, "executor.num_cpus=64: no node of the cluster has so much ("),
        ({"address": "127.0.0.1:1"}, "executor.address=127.0.0.1:1, but this process has joined the Ray cluster"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        RayExecutor(**arguments)
    assert message in str(error.value)

"""Addresses without a cluster, and a cluster that asks for a token, from a driver outside it."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import real_sweeps
from ray_cluster import SMALL, ray

from cnnsweep.errors import UserError
from cnnsweep.executors.ray.executor import RayExecutor

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has not joined a cluster, even if other tests did."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "executor.address=127.0.0.1:1: no Ray cluster answers there"),
        ("ray://127.0.0.1:1", "executor.address=ray://127.0.0.1:1: no Ray cluster answers there"),
        ("somewhere", "executor.address=somewhere: give HOST:PORT, ray://HOST:PORT, auto, or null"),
    ],
)
def test_an_address_without_a_cluster(address: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        RayExecutor(address=address)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_something_else_listens(address: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = address.format(server.server_port)
        with pytest.raises(UserError) as error:
            RayExecutor(address=address)
        server.shutdown()
    assert str(error.value) == f"executor.address={address}: no Ray cluster answers there"


def test_auto_where_the_last_cluster_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(UserError, match=r"^executor\.address=127\.0\.0\.1:1: no Ray cluster answers there"):
        RayExecutor("auto")


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'executor=ray needs Ray: pip install "cnnsweep\[ray\]"'):
        RayExecutor()


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int, psutil.Process]]:
    """A cluster started from the command line that asks for a token; its two ports and its process."""
    monkeypatch.setenv("HOME", str(tmp_path))  # there is no token
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    head, clients = real_sweeps.free_port(), real_sweeps.free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
    command += [f"--port={head}", f"--ray-client-server-port={clients}", "--dashboard-agent-listen-port=0"]
    command += ["--include-dashboard=false", f"--object-store-memory={SMALL['object_store_memory']}"]
    with (tmp_path / "ray.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    for port in (head, clients):
        real_sweeps.wait_for(lambda port=port: real_sweeps.listens(port), "the cluster", process)
    yield head, clients, psutil.Process(process.pid)
    process.terminate()
    process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_outside_a_cluster_that_asks_for_a_token_and_is_killed(
    guarded: tuple[int, int, psutil.Process], tmp_path: Path
) -> None:
    *ports, cluster = guarded
    head, clients = (f"127.0.0.1:{port}" for port in ports)
    small = ("+sweep=smoke", "data.limit=200", "training.epochs=25", *real_sweeps.FAST, "executor=ray")
    for address, token, message in (
        (f"ray://{clients}", "", "the cluster asks for a token, and this machine has none\nset RAY_AUTH_TOKEN"),
        (head, TOKEN[::-1], "the cluster does not accept this machine's token\nset RAY_AUTH_TOKEN"),
        (f"ray://{head}", TOKEN, f"no Ray cluster answers there; did you mean {head}?"),
        (clients, TOKEN, f"no Ray cluster answers there; did you mean ray://{clients}?"),
    ):
        shown = {"RAY_AUTH_TOKEN": token} if token else {}
        found = real_sweeps.run(tmp_path, *small, f"executor.address={address}", environment=shown)
        assert found[0] == 2
        assert found[1].startswith(f"cnnsweep: executor.address={address}: {message}")
    sure = {"RAY_AUTH_TOKEN": TOKEN, "http_proxy": "http://127.0.0.1:9", "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2"}
    first = ("budget.trials=1", f"executor.address={head}")
    assert real_sweeps.run(tmp_path, *small, *first, environment=sure)[0] == 0
    known = len(real_sweeps.events(tmp_path))
    more = ("resume", "budget.trials=2", f"executor.address=ray://{clients}")
    driver = real_sweeps.start(tmp_path, *more, environment=sure)
    real_sweeps.wait_for(lambda: len(real_sweeps.events(tmp_path)) > known + 3, "two epochs", driver)
    for process in [*cluster.children(recursive=True), cluster]:
        process.kill()
    assert driver.wait(real_sweeps.PATIENCE) == 130
    output = (tmp_path / "output.txt").read_text()
    assert "the Ray cluster does not answer any more; go on once it is back, or on another executor" in output
    assert "Traceback" not in output
    assert real_sweeps.run(tmp_path, "resume", "executor=inline")[0] == 0
    assert [entry.status for entry in real_sweeps.state(tmp_path).trials.values()] == ["completed"] * 2
    assert real_sweeps.disagreements(tmp_path) == []

"""A Ray cluster: joining one, or starting one on this machine, and the room that its nodes have for trials."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cnnsweep.errors import UserError
from cnnsweep.executors.devices import chosen_gpus, cores

if TYPE_CHECKING:
    from grpc import StatusCode

PATIENCE = 8.0  # seconds that an address gets to accept a connection, and to answer
HEAD = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a gRPC method that a head node answers
CLIENT_SERVER = "/ray.rpc.RayletDriver/ClusterInfo"  # one that its server for clients answers
STORE = 100 * 2**20  # bytes of the object store of a cluster of this machine alone; more goes to the disk
ATTEMPTS = 3  # times that a server for clients is asked for a connection
CLIENT = "ray://"  # begins the address of a server for clients, by which a machine outside the cluster uses it
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
_log = logging.getLogger("cnnsweep.executors")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what it has for trials."""

    id: str
    name: str
    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """The number of trials with these shares that it has room for; a share of a GPU is of one GPU."""
        room = int(self.cpus / cpus + 1e-6)
        return min(room, int(self.gpus) * int(1 / gpus + 1e-6)) if gpus else room


def load() -> ModuleType:
    """Import Ray, without messages and usage reports."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def connect(address: str | None, backend: str) -> bool:
    """Join the cluster at an address, or start one. Returns False where this process had joined it already.

    Raises UserError where no cluster answers, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('executor=ray needs Ray: pip install "cnnsweep[ray]"')
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        _check_joined(load(), address)
        return False
    if address is not None:
        _check_address(address)  # before Ray is imported: it reads then whether to show a token
    ray = load()
    settings: dict[str, object] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address is None:
        gpus = len(chosen_gpus("auto", None, backend))
        settings |= {"num_cpus": cores(), "num_gpus": gpus, "object_store_memory": STORE, "include_dashboard": False}
    try:
        _join(ray, address or "local", settings)
    except Exception as error:  # Ray raises bare ones, too
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if address is None:
            raise UserError(f"no Ray cluster could be started on this machine: {lines[0]}") from error
        last = isinstance(error, ConnectionAbortedError)  # a server's whole traceback
        raise UserError(f"executor.address={address}: {lines[-1 if last else 0]}") from error
    _print_messages(ray, False)
    return True


def leave() -> None:
    """Leave the cluster; one that was started here ends."""
    ray = load()
    with own_signals():
        ray.shutdown()
    _print_messages(ray, True)


def head() -> tuple[str, int] | None:
    """The address of the head; None where this process reaches it by a server for clients, or it cannot be read."""
    import ray

    if ray.util.client.ray.is_connected():
        return None
    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else None


def answers(address: tuple[str, int] | None) -> bool:
    """Whether a head accepts connections. Where it does not, Ray's own questions to it block."""
    with contextlib.suppress(OSError):
        if address is not None:
            socket.create_connection(address, PATIENCE).close()
        return True
    return False


def alive() -> list[Node]:
    """The nodes that are there now."""
    import ray

    return [
        Node(
            node["NodeID"],
            node.get("NodeManagerHostname") or node.get("NodeManagerAddress") or node["NodeID"][:8],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def shares(num_cpus: float | None, num_gpus: float | None, nodes: Sequence[Node]) -> tuple[float, float]:
    """The cores and GPUs that a trial reserves. Raises UserError where no node can ever give that much."""
    gpus = num_gpus if num_gpus is not None else float(any(node.gpus >= 1 for node in nodes))
    cpus = 1.0 if num_cpus is None else num_cpus
    if not any(node.room(cpus, gpus) for node in nodes):
        asked = [f"executor.num_cpus={cpus:g}"] + ([f"executor.num_gpus={gpus:g}"] if gpus else [])
        raise UserError(f"{' with '.join(asked)}: no node of the cluster has so much ({describe(nodes)})")
    return cpus, gpus


def describe(nodes: Sequence[Node]) -> str:
    """The cores and GPUs of each node.

    >>> describe([Node("1", "head", 2, 0), Node("2", "big", 64, 8)])
    'head: 2 CPUs; big: 64 CPUs, 8 GPUs'
    """
    parts = (f"{n.name}: {n.cpus:g} CPUs{f', {n.gpus:g} GPUs' if n.gpus else ''}" for n in nodes)
    return "; ".join(parts) or "it has none"


def reason_of(error: BaseException) -> str:
    """Ray's reason for an actor's end in one line, without its description of the actor.

    >>> reason_of(RuntimeError("The actor died unexpectedly before ...\\n\\tpid: 7\\nThe node was killed.\\nMore"))
    'The node was killed.'
    """
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", "The actor died"))]
    return (lines or [type(error).__name__])[0].strip()[:400]


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's handler for SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _join(ray: ModuleType, address: str, settings: Mapping[str, object]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with own_signals(), warnings.catch_warnings(action="ignore"):
                ray.init(address, **settings)
            return
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            # A server for clients forks a process for each, which at times dies as it starts.
            if attempt == ATTEMPTS or not isinstance(error, ConnectionAbortedError):
                raise
            _log.warning("%s: attempt %d: %s", address, attempt, reason_of(error))


def _print_messages(ray: ModuleType, wanted: bool) -> None:
    """Have Ray print messages of its nodes, such as that one died, or not: log_to_driver=False does not stop them."""
    with contextlib.suppress(AttributeError):  # there is no public way, and no harm where this one goes
        ray._private.worker._worker_logs_enabled = wanted


def _check_joined(ray: ModuleType, address: str | None) -> None:
    joined = ray.get_runtime_context().gcs_address
    by_client = (address or "").startswith(CLIENT) and ray.util.client.ray.is_connected()  # its address is not kept
    if address not in (None, "auto", joined) and not by_client:
        raise UserError(f"executor.address={address}, but this process has joined the Ray cluster at {joined} already")


def _check_address(address: str) -> None:
    """Find an address without a cluster, or without one for us, within seconds: Ray itself would try for minutes."""
    given = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if given == "auto":
        with contextlib.suppress(OSError):  # without this file Ray looks for processes, and fails at once
            folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
            given = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    if given == "auto":
        return
    host, _, port = given.partition("://")[2 if "://" in given else 0].rpartition(":")
    if not port.isdigit() or not host:
        raise UserError(f"executor.address={given}: give HOST:PORT, ray://HOST:PORT, auto, or null")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"executor.address={given}: no Ray cluster answers there ({error})") from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and os.environ.get("RAY_AUTH_MODE", "token") in ("token", "disabled"):
        _check_cluster(given, f"{host}:{port}")


def _check_cluster(address: str, target: str) -> None:
    """Call a method that only Ray has, with a token if it asks for one.

    Where it does, RAY_AUTH_MODE has Ray show the token, which it decides as it is imported.
    """
    from grpc import StatusCode

    method, other = (CLIENT_SERVER, HEAD) if address.startswith(CLIENT) else (HEAD, CLIENT_SERVER)
    status = _call(target, method)
    if status is StatusCode.UNAUTHENTICATED:
        token = "" if os.environ.get("RAY_AUTH_MODE") == "disabled" else _token()
        if not token or _call(target, method, token) is status:
            problem = "does not accept this machine's token" if token else "asks for a token, and this machine has none"
            advice = "set RAY_AUTH_TOKEN, or copy ~/.ray/auth_token from the cluster's head"
            raise UserError(f"executor.address={address}: the cluster {problem}\n{advice}")
        os.environ["RAY_AUTH_MODE"] = "token"
    no_cluster = (StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    if status in no_cluster:
        hint = ""
        if status is StatusCode.UNIMPLEMENTED and _call(target, other) not in no_cluster:
            hint = f"; did you mean {target if method is CLIENT_SERVER else CLIENT + target}?"
        raise UserError(f"executor.address={address}: no Ray cluster answers there{hint}")


def _call(target: str, method: str, token: str = "") -> StatusCode:
    """The status that a gRPC method answers with."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:  # as Ray's own
        try:
            channel.unary_unary(method)(b"", timeout=PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _token() -> str:
    """The token that Ray would show, from where it has it; "" for none."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    with contextlib.suppress(OSError):
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        return path.read_text(encoding="utf-8").strip()
    return ""

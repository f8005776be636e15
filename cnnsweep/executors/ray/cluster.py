"""A Ray cluster: reaching one, or starting one on this machine, and what its nodes have room for."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError
from cnnsweep.executors.devices import chosen_gpus, cores

PATIENCE = 8.0
"""Seconds that an address gets to accept a connection."""
REHEARSAL = 20.0
"""Seconds that joining a cluster may take, of which Ray's import is the most."""
HEAD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
SERVER = "/ray.rpc.RayletDriver/ClusterInfo"
"""What a head node answers, and what its server for clients does: gRPC methods."""
STORE = 100 * 2**20
"""Bytes of the object store of a cluster of this machine alone, whose trials see the driver's files."""
ATTEMPTS = 3
"""Times that a server for clients is asked for a connection."""
CLIENT = "ray://"
"""Begins the address of a Ray client server, by which a machine outside the cluster uses it."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
_log = logging.getLogger("cnnsweep.executors")

_JOIN = """
import logging, sys
import ray
try:
    ray.init(sys.argv[1], log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
except Exception as error:
    sys.exit(print(error) or 1)
"""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as far as trials go."""

    id: str
    name: str
    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """How many trials that reserve so much it takes; a share of a GPU is of one GPU."""
        rooms = []
        if cpus:
            rooms.append(int(self.cpus / cpus + 1e-6))
        if gpus:
            rooms.append(int(self.gpus) * int(1 / gpus + 1e-6))
        return min(rooms) if rooms else 0


def load() -> Any:
    """Import Ray, quiet and without its reports home."""
    _expect_ray()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _expect_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise UserError('executor=ray needs Ray: pip install "cnnsweep[ray]"')


def connect(address: str | None, backend: str) -> bool:
    """Join the cluster at an address, or start one. Returns False where this process had joined it already.

    Raises UserError where nothing answers.
    """
    _expect_ray()
    joined = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if address is not None and not joined:
        _knock(address)  # before Ray is imported: it reads then whether to show a token
    ray = load()
    if joined:
        _check_joined(ray, address)
        return False
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if address is None:
        gpus = len(chosen_gpus("auto", None, backend))
        settings |= {"num_cpus": cores(), "num_gpus": gpus, "object_store_memory": STORE, "include_dashboard": False}
    try:
        _join(ray, {"address": "local" if address is None else address, **settings})
    except Exception as error:  # Ray raises bare ones, too
        told = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if address is None:
            raise UserError(f"no Ray cluster could be started on this machine: {told[0].strip()}") from error
        last = isinstance(error, ConnectionAbortedError)  # a server's whole traceback
        raise UserError(f"executor.address={address}: {told[-1 if last else 0].strip()}") from error
    _print_messages(ray, False)
    return True


def _join(ray: Any, settings: Mapping[str, Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with own_signals(), warnings.catch_warnings(action="ignore"):
                ray.init(**settings)
            return
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            # A server for clients forks a process for each, which at times dies as it starts.
            if attempt == ATTEMPTS or not isinstance(error, ConnectionAbortedError):
                raise
            _log.warning("%s: attempt %d: %s", settings["address"], attempt, in_one_line(error))


def leave() -> None:
    """Leave the cluster; one that was started here ends."""
    ray = load()
    with own_signals():
        ray.shutdown()
    _print_messages(ray, True)


def alive() -> list[Node]:
    """The nodes that are there now."""
    import ray

    return [
        Node(
            node["NodeID"],
            node.get("NodeManagerHostname") or node.get("NodeManagerAddress") or node["NodeID"][:8],
            float(node.get("Resources", {}).get("CPU", 0)),
            float(node.get("Resources", {}).get("GPU", 0)),
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
    """What each node has.

    >>> describe([Node("1", "head", 2, 0), Node("2", "big", 64, 8)])
    'head: 2 CPUs; big: 64 CPUs, 8 GPUs'
    """
    parts = []
    for node in nodes:
        gpus = f", {node.gpus:g} GPUs" if node.gpus else ""
        parts.append(f"{node.name}: {node.cpus:g} CPUs{gpus}")
    return "; ".join(parts) or "it has none"


def in_one_line(error: BaseException) -> str:
    """What Ray says of an actor's end, without what it says of the actor.

    >>> in_one_line(RuntimeError("The actor died unexpectedly before ...\\n\\tpid: 7\\nThe node was killed.\\nMore"))
    'The node was killed.'
    """
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("\t", "The actor died"))]
    return (lines or [type(error).__name__])[0].strip()[:400]


def _print_messages(ray: Any, wanted: bool) -> None:
    """Whether Ray prints what its nodes say, such as that one died: without log_to_driver it does all the same."""
    with contextlib.suppress(AttributeError):  # there is no public way, and no harm where this one goes
        ray._private.worker._worker_logs_enabled = wanted


def _check_joined(ray: Any, address: str | None) -> None:
    joined = ray.get_runtime_context().gcs_address
    by_client = (address or "").startswith(CLIENT) and ray.util.client.ray.is_connected()  # whose address nobody keeps
    if address not in (None, "auto", joined) and not by_client:
        raise UserError(f"executor.address={address}, but this process has joined the Ray cluster at {joined} already")


def _token() -> str:
    """What this machine can show to a cluster that asks for a token, from where Ray itself has it; "" for nothing."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given
    with contextlib.suppress(OSError):
        return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").read_text().strip()
    return ""


def _knock(address: str) -> None:
    """Have an address where no cluster is, or none for us, found out soon: Ray itself would try for minutes."""
    given = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, _, port = given.partition("://")[2 if "://" in given else 0].rpartition(":")
    if given == "auto":
        _rehearse(given)
        return
    if not port.isdigit() or not host:
        raise UserError(f"executor.address={given}: give HOST:PORT, ray://HOST:PORT, auto, or null")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"executor.address={given}: no Ray cluster answers there ({error})") from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and os.environ.get("RAY_AUTH_MODE", "token") in ("token", "disabled"):
        _ring(given, f"{host}:{port}")
    elif not given.startswith(CLIENT):  # Ray's client gives up by itself
        _rehearse(given)


def _ring(given: str, target: str) -> None:
    """Ask what listens there for something that only Ray knows, with a token if it wants one.

    Where it does, Ray is told to show it, which it reads as it is imported and would not do by itself.
    """
    from grpc import StatusCode

    client = given.startswith(CLIENT)
    told = _ask(target, SERVER if client else HEAD)
    if told is StatusCode.UNAUTHENTICATED:
        token = "" if os.environ.get("RAY_AUTH_MODE") == "disabled" else _token()
        if not token or _ask(target, SERVER if client else HEAD, token) is told:
            trouble = "does not accept this machine's token" if token else "asks for a token, and this machine has none"
            advice = "set RAY_AUTH_TOKEN, or copy ~/.ray/auth_token from the cluster's head"
            raise UserError(f"executor.address={given}: the cluster {trouble}\n{advice}")
        os.environ["RAY_AUTH_MODE"] = "token"
    none = (StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    if told in none:
        hint = ""
        if told is StatusCode.UNIMPLEMENTED and _ask(target, HEAD if client else SERVER) not in none:
            hint = f"; did you mean {target if client else CLIENT + target}?"
        raise UserError(f"executor.address={given}: no Ray cluster answers there{hint}")


def _ask(target: str, method: str, token: str = "") -> Any:
    """The status that a gRPC method answers with."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:  # as Ray's own
        try:
            channel.unary_unary(method)(b"", timeout=PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _rehearse(address: str) -> None:
    """Have another process join first: where something else listens, Ray tries forever and cannot be stopped."""
    try:
        command = [sys.executable, "-c", _JOIN, address]
        told = subprocess.run(command, capture_output=True, text=True, timeout=REHEARSAL, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"executor.address={address}: no Ray cluster answers there ({REHEARSAL:g} s)") from error
    if told.returncode:
        lines = [line for line in told.stdout.splitlines() if line.strip()] or ["no Ray cluster answers there"]
        raise UserError(f"executor.address={address}: {lines[0].partition('. ')[0].strip()}")


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Ray sets a handler for SIGTERM; whoever had one keeps it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)

"""The actors of a sweep on a Ray cluster: as many as its nodes have room for, each with one call under way."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from cnnsweep import __version__
from cnnsweep.errors import UserError
from cnnsweep.executors.base import ExecutorGoneError, Job
from cnnsweep.executors.ray import cluster
from cnnsweep.executors.ray.actor import ActorSettings, Order, Reply, WorkerActor
from cnnsweep.executors.ray.cluster import Node
from cnnsweep.executors.worker import in_one_line

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

LOOK = 1.0  # seconds between looks at the cluster's nodes
STARTING = 60.0  # seconds that a cluster gets to have its first actor running
JOINING = 10.0  # seconds after one actor in which the next must be running for a sweep to wait for it
SILENT = 20.0  # seconds in which the head may not answer; after 60, Ray would end this process
LEAVING = 5.0  # seconds that actors get to remove what they were sent
FAILURES = 3  # actors that may fail to start on a node in a row, before it gets no more
_log = logging.getLogger("cnnsweep.executors")


@dataclass(eq=False)
class Task:
    """A job that was submitted and has not ended."""

    worker: str
    job: Job
    argument: object
    moved: bool = False
    """True once its first node was lost."""
    epoch: int = 0  # the last that it reported
    keep_on: bool = True  # the last answer
    killed: str | None = None
    """Why it is being ended."""


@dataclass(eq=False)
class RemoteActor:
    """The driver's record of an actor."""

    actor: ActorHandle
    node: Node
    ready: bool = False
    task: Task | None = None
    number: int = 0  # of its last order
    asked: bool = False  # a reply is awaited


class ActorPool:
    """Starts actors where nodes are, calls them, and collects their replies; meanwhile nodes may come and go."""

    def __init__(self, settings: ActorSettings, cpus: float, gpus: float) -> None:
        import ray

        self.actors: list[RemoteActor] = []
        self._ray: ModuleType = ray
        self._settings, self._cpus, self._gpus = settings, cpus, gpus
        self._calls: dict[ObjectRef, RemoteActor] = {}  # under way, by reference to their results
        self._failures: Counter[str] = Counter()
        self._problem = "they are all in use"
        self._looked = 0.0
        self._head, self._heard = cluster.head(), time.monotonic()

    @property
    def ready(self) -> int:
        return sum(remote.ready for remote in self.actors)

    def start(self) -> None:
        """Start the actors and wait for them; those that take longer join later. Raises UserError where none starts."""
        self._follow_nodes()
        deadline, ready = time.monotonic() + STARTING, 0
        while self.ready < len(self.actors) and time.monotonic() < deadline:
            self._receive(LOOK)
            if self.ready > ready:
                deadline, ready = time.monotonic() + JOINING, self.ready
        if not self.ready:
            nodes = cluster.describe(cluster.alive())
            raise UserError(f"executor=ray: no worker could be started on {nodes}: {self._problem}")

    def order(self, remote: RemoteActor, order: Order) -> None:
        """Give an actor an order; its reply is collected later."""
        remote.number += 1
        with self._reachable():
            self._calls[remote.actor.step.remote(remote.number, order)] = remote
        remote.asked = True

    def kill(self, remote: RemoteActor, reason: str) -> None:
        """Have an actor's job killed; that it is lost is then its reply."""
        if remote.asked:
            with self._reachable():
                remote.actor.kill.remote(remote.number, reason)
        else:
            self.order(remote, reason)

    def collect(self, seconds: float) -> list[tuple[RemoteActor, Reply]]:
        """Return the replies that come within the time. Raises ExecutorGoneError where the cluster is lost."""
        from grpc import RpcError

        with self._reachable():
            replies = self._receive(seconds)
            if not self._ray.is_initialized():
                raise ConnectionError
            if time.monotonic() - self._looked > LOOK and self._head_answers():
                # The head may be busy, or the connection broken, for a moment.
                with contextlib.suppress(self._ray.exceptions.RayError, OSError, RpcError):
                    self._follow_nodes()
        return replies

    def close(self) -> None:
        """Kill all actors, after they have removed what they were sent."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            if leaving := [remote.actor.leave.remote() for remote in self.actors if remote.ready]:
                self._ray.wait(leaving, num_returns=len(leaving), timeout=LEAVING)
            for remote in list(self.actors):
                self._drop(remote)

    def _receive(self, seconds: float) -> list[tuple[RemoteActor, Reply]]:
        if not self._calls:
            time.sleep(seconds)
            return []
        refs = list(self._calls)
        self._ray.wait(refs, num_returns=1, timeout=seconds)
        done = self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        actors = [(self._calls.pop(ref), ref) for ref in done]
        replies = [(remote, self._read(ref, remote)) for remote, ref in actors]
        return [(remote, reply) for remote, reply in replies if reply is not None]

    def _read(self, ref: ObjectRef, remote: RemoteActor) -> Reply | None:
        """Return an actor's reply; None for the one to `begin`. An actor without a reply is dropped."""
        remote.asked = False
        try:
            reply = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            failure = Reply("lost", in_one_line(error.cause or error))
        except self._ray.exceptions.RayError as error:
            failure = Reply("gone", cluster.reason_of(error))
        except Exception as error:  # its reply cannot be unpickled here
            if not self._connected(error):
                raise
            failure = Reply("lost", in_one_line(error))
        else:
            if isinstance(reply, Reply):
                return reply
            if reply == __version__:
                remote.ready, self._failures[remote.node.id] = True, 0
                return None
            failure = Reply("lost", f"cnnsweep is {reply} there, {__version__} here")
        self._drop(remote)
        if remote.ready:
            return failure
        self._problem = failure.value
        self._failures[remote.node.id] += 1
        if self._failures[remote.node.id] == FAILURES:
            _log.warning("node %s is not used: %s", remote.node.name, self._problem)
        return None

    def _head_answers(self) -> bool:
        """Whether the nodes can be asked for. Raises ConnectionError where they could not for a while."""
        if cluster.answers(self._head):
            self._heard = time.monotonic()
            return True
        self._looked = time.monotonic()
        if self._looked - self._heard > SILENT:
            raise ConnectionError
        return False

    def _follow_nodes(self) -> None:
        """Have as many actors on each node as there is room for; forget idle ones of nodes that have gone."""
        self._looked = time.monotonic()
        nodes = cluster.alive()
        there = {node.id for node in nodes}
        for remote in list(self.actors):
            if remote.node.id not in there and remote.task is None:
                self._drop(remote)
                _log.info("the worker on node %s has gone with it", remote.node.name)
        for node in nodes:
            if self._failures[node.id] < FAILURES:
                missing = node.room(self._cpus, self._gpus) - sum(r.node.id == node.id for r in self.actors)
                for _ in range(missing):
                    self._launch(node)

    def _launch(self, node: Node) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
            "max_restarts": 0,
            "max_task_retries": -1,
            "max_concurrency": 3,  # an order, the same one again after a broken connection, and a kill or the end
        }
        actor = self._ray.remote(WorkerActor).options(**options).remote(self._settings)
        self._calls[actor.begin.remote()] = remote = RemoteActor(actor, node, asked=True)
        self.actors.append(remote)

    def _drop(self, remote: RemoteActor) -> None:
        """Kill an actor and forget it."""
        if remote in self.actors:
            self.actors.remove(remote)
        self._calls = {ref: other for ref, other in self._calls.items() if other is not remote}
        with contextlib.suppress(Exception):  # it is dead, or its node is
            self._ray.kill(remote.actor)

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Ray's client gives a connection up after half a minute, and then fails in many ways."""
        try:
            yield
        except Exception as error:
            if self._connected(error):
                raise
            raise ExecutorGoneError("the Ray cluster does not answer any more") from error

    def _connected(self, error: Exception) -> bool:
        """Whether the cluster is still there after an error; its connection may notice before Ray that it is not."""
        from grpc import RpcError

        with contextlib.suppress(Exception):
            return not isinstance(error, (ConnectionError, RpcError)) and bool(self._ray.is_initialized())
        return False

"""The actors of a sweep on a Ray cluster: as many as its nodes have room for, and one question under way to each."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cnnsweep
from cnnsweep.errors import UserError
from cnnsweep.executors.base import ExecutorGoneError
from cnnsweep.executors.ray import cluster, depot
from cnnsweep.executors.ray.actor import Order, Relay, Setup
from cnnsweep.executors.ray.cluster import Node
from cnnsweep.executors.worker import in_one_line

LOOK = 1.0
"""Seconds between looks at the cluster's nodes."""
STARTING = 60.0
"""Seconds that a cluster gets to have its first actor running."""
JOINING = 10.0
"""Seconds after one actor in which the next must be running for a sweep to wait for it."""
KILLING = 5.0
"""Seconds that a worker gets to be killed, before the actor around it is."""
LEAVING = 5.0
"""Seconds that actors get to remove what they were sent."""
FAILURES = 3
"""Actors that may fail to start on a node in a row, before it is left alone."""
_log = logging.getLogger("cnnsweep.executors")


@dataclass(eq=False)
class Hand:
    """An actor, starting or ready."""

    actor: Any
    node: Node
    worker: str
    listed: bool = False
    """Whether its worker is told of: from when it is ready, or from the start where it replaces one that was."""
    ready: bool = False
    task: Any = None
    """What it does, if anything."""
    number: int = 0
    order: Order | None = None
    asked: bool = False
    """Whether its answer is awaited."""
    condemned: tuple[str, float] | None = None
    """Why its job is to end, and by when, else the actor is killed."""


@dataclass(frozen=True)
class Heard:
    """An answer; or that something around the job failed on the node; or that the actor is no more."""

    hand: Hand
    kind: Literal["reply", "failed", "gone"]
    value: Any


class Crew:
    """Starts actors where nodes are, asks them, and hears what comes back. Nodes come and go while it listens."""

    def __init__(self, setup: Setup, cpus: float, gpus: float, nodes: Sequence[Node]) -> None:
        """Raises UserError where a node cannot use the storage, or no actor can be started."""
        import ray

        self.hands: list[Hand] = []
        self.grown = False
        """Whether there are workers that were not there when it was last set to False."""
        self._ray: Any = ray
        self._setup, self._cpus, self._gpus = setup, cpus, gpus
        self._asked: dict[Any, Hand] = {}
        self._again: list[tuple[float, Hand]] = []
        """Questions whose answer was cut off, and when to ask them again."""
        self._failures: Counter[str] = Counter()
        self._problem = "they are all in use"
        self._looked = 0.0
        if setup.storage is not None:
            self._probe(setup.storage, nodes)
        self._follow(nodes, ())

    def begin(self) -> None:
        """Wait for the actors; those that take longer join later."""
        began, ready = time.monotonic(), 0
        while any(not hand.ready for hand in self.hands):
            if time.monotonic() - began > (JOINING if ready else STARTING):
                break
            list(self._listen(LOOK))
            if (now := sum(hand.ready for hand in self.hands)) > ready:
                began, ready = time.monotonic(), now
        if not any(hand.ready for hand in self.hands):
            nodes = cluster.describe(cluster.alive())
            raise UserError(f"executor=ray: no worker could be started on {nodes}: {self._problem}")
        self.grown = False

    def ask(self, hand: Hand, order: Order | None = None) -> None:
        """Put a question to an actor: a new one, or the last one again."""
        if order is not None:
            hand.order, hand.number = order, hand.number + 1
        actor = hand.actor
        with self._reachable():
            ref = actor.hello.remote() if hand.order is None else actor.step.remote(hand.number, hand.order)
        self._asked[ref] = hand
        hand.asked = True

    def condemn(self, hand: Hand, reason: str) -> None:
        """Have the job of the question under way killed; the actor too, where that takes long."""
        hand.condemned = reason, time.monotonic() + KILLING
        if hand.asked:
            hand.actor.kill.remote(hand.number, reason)

    def collect(self, seconds: float, taken: Sequence[str]) -> list[Heard]:
        """What is heard within the time, if anything. New actors get workers with names that are not `taken`."""
        late = [h for h in self.hands if h.condemned is not None and h.condemned[1] <= time.monotonic()]
        if late:
            return [Heard(hand, "failed", hand.condemned[0]) for hand in late if hand.condemned is not None]
        with self._reachable():
            heard = list(self._listen(seconds))
            if not self._ray.is_initialized():
                raise ConnectionError
        if time.monotonic() - self._looked > LOOK:
            with contextlib.suppress(self._ray.exceptions.RayError, OSError):  # the head may be busy for a moment
                self._follow(cluster.alive(), taken)
        return heard

    def replace(self, hand: Hand) -> None:
        """Start another actor on the same node, under the same worker."""
        self.drop(hand)
        self._launch(hand.node, hand.worker, listed=True)

    def drop(self, hand: Hand) -> None:
        """Kill an actor and forget it."""
        if hand in self.hands:
            self.hands.remove(hand)
        self._asked = {ref: other for ref, other in self._asked.items() if other is not hand}
        with contextlib.suppress(Exception):  # it is dead, or its node is
            self._ray.kill(hand.actor)

    def close(self, loaded: set[str]) -> None:
        """Kill all actors, after those on the `loaded` nodes have removed what they were sent."""
        leaving = [hand.actor.leave.remote() for hand in self.hands if hand.ready and hand.node.id in loaded]
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=LEAVING)
        for hand in list(self.hands):
            self.drop(hand)

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Ray's client gives a connection up after half a minute, and then fails in many ways."""
        try:
            yield
        except Exception as error:
            if self._ray.is_initialized():
                raise
            raise ExecutorGoneError("the Ray cluster does not answer any more") from error

    def _listen(self, seconds: float) -> Iterator[Heard]:
        for due, hand in [again for again in self._again if again[0] <= time.monotonic()]:
            self._again.remove((due, hand))
            if hand in self.hands:
                self.ask(hand)
        if not self._asked:
            time.sleep(seconds)
            return
        waiting = list(self._asked)
        if self._ray.wait(waiting, num_returns=1, timeout=seconds)[0]:
            for ref in self._ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
                hand = self._asked.pop(ref)
                hand.asked = False
                if (heard := self._receive(hand, ref)) is not None:
                    yield heard

    def _receive(self, hand: Hand, ref: Any) -> Heard | None:
        errors = self._ray.exceptions
        try:
            reply = self._ray.get(ref)
        except errors.ActorUnavailableError:
            hand.asked = True
            self._again.append((time.monotonic() + LOOK, hand))
            return None
        except errors.RayTaskError as error:
            heard = Heard(hand, "failed", in_one_line(error.cause or error))
        except errors.RayError as error:
            heard = Heard(hand, "gone", cluster.in_one_line(error))
        except Exception as error:  # what it sent cannot be read here
            heard = Heard(hand, "failed", in_one_line(error))
        else:
            if hand.order is not None:
                return Heard(hand, "reply", reply)
            if reply == cnnsweep.__version__:
                self.grown = self.grown or not hand.listed
                hand.ready = hand.listed = True
                self._failures[hand.node.id] = 0
                return None
            heard = Heard(hand, "failed", f"cnnsweep is {reply} there, {cnnsweep.__version__} here")
        if hand.task is not None:
            return heard
        self.drop(hand)
        self._failures[hand.node.id] += 1
        self._problem = heard.value
        if self._failures[hand.node.id] == FAILURES:
            _log.warning("node %s is left out: %s", hand.node.name, heard.value)
        return None

    def _follow(self, nodes: Sequence[Node], taken: Sequence[str]) -> None:
        """Have as many actors on each node as there is room for; forget idle ones of nodes that have gone."""
        self._looked = time.monotonic()
        there = {node.id for node in nodes}
        for hand in list(self.hands):
            if hand.node.id not in there and hand.task is None:
                self.drop(hand)
                _log.info("worker %s is gone with node %s", hand.worker, hand.node.name)
        for node in nodes:
            missing = node.room(self._cpus, self._gpus) - sum(h.node.id == node.id for h in self.hands)
            for _ in range(missing if self._failures[node.id] < FAILURES else 0):
                self._launch(node, self._new_worker(taken))

    def _launch(self, node: Node, worker: str, listed: bool = False) -> None:
        where = {"num_cpus": self._cpus, "num_gpus": self._gpus, "scheduling_strategy": _on(node)}
        # Three at once: a question, the same one again after a broken connection, and a kill or the end.
        relay = self._ray.remote(Relay).options(max_restarts=0, max_task_retries=0, max_concurrency=3, **where)
        with self._reachable():
            hand = Hand(relay.remote(self._setup), node, worker, listed)
        self.hands.append(hand)
        self.ask(hand)

    def _new_worker(self, taken: Sequence[str]) -> str:
        kind = "gpu" if self._gpus else "cpu"
        names = {hand.worker for hand in self.hands}.union(taken)
        return next(name for n in range(len(names) + 1) if (name := f"{kind}{n}") not in names)

    def _probe(self, storage: str, nodes: Sequence[Node]) -> None:
        """Have every node read what the driver wrote to the storage, and the driver what the node wrote."""
        key, place = depot.new_key(), depot.Depot(storage)
        exchange = self._ray.remote(num_cpus=0, max_retries=0)(depot.exchange)
        for node in (node for node in nodes if node.room(self._cpus, self._gpus)):
            try:
                place.write(key, "driver")
                asked = exchange.options(scheduling_strategy=_on(node)).remote(storage, key, "driver", node.id)
                self._ray.get(asked, timeout=STARTING)
                if place.read(f"{key}-answer") != node.id:
                    raise OSError("what the node wrote is not to be seen here")
            except Exception as error:
                told = in_one_line(getattr(error, "cause", None) or error)
                message = f"executor.storage: '{storage}' is not writable, or not shared with {node.name}: {told}"
                raise UserError(message) from error
            finally:
                for name in (key, f"{key}-answer"):
                    with contextlib.suppress(Exception):
                        place.remove(name)


def _on(node: Node) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.id, soft=False)

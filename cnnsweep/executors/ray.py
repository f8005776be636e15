"""Trials on the nodes of a Ray cluster: as many slots as it has room for, which come and go with its nodes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cnnsweep
from cnnsweep.errors import UserError, unknown
from cnnsweep.executors import Event, Job, cluster, depot
from cnnsweep.executors.cargo import Place
from cnnsweep.executors.manifest import Manifest
from cnnsweep.executors.process import BACKENDS
from cnnsweep.executors.relay import Answer, Kill, Load, Order, Relay, Reply, Setup, Start, clean
from cnnsweep.executors.worker import in_one_line
from cnnsweep.trial import EpochReport, TrialSpec

LOOK = 1.0
"""Seconds between looks at the cluster's nodes."""
STARTING = 60.0
"""Seconds that a cluster gets to have its first relay running."""
JOINING = 10.0
"""Seconds after one relay in which the next must be running for a sweep to wait for it."""
KILLING = 5.0
"""Seconds that a worker gets to be killed, before the actor around it is."""
FAILURES = 3
"""Relays that may fail to start on a node in a row, before it is left alone."""
_log = logging.getLogger("cnnsweep.executors")


@dataclass(eq=False)
class _Task:
    """A job that was submitted and has not ended."""

    slot: str
    job: Job
    argument: Any
    places: list[Place]
    moves: int = 0
    epoch: int = 0
    """The last that it reported."""
    keep_on: bool = True
    """The last answer."""


@dataclass(eq=False)
class _Hand:
    """An actor, which has a task or is free for one."""

    actor: Any
    node: cluster.Node
    slot: str
    listed: bool = False
    """Whether its slot is told of: from when it is ready, or from the start where it replaces one that was."""
    ready: bool = False
    task: _Task | None = None
    number: int = 0
    order: Order | None = None
    condemned: tuple[str, float] | None = None
    """Why its job is to end, and by when, else the actor is killed."""


class RayExecutor:
    """One worker a slot, on whichever node; see conf/executor/ray.yaml for the arguments.

    A job whose worker dies is lost, as locally. One whose node goes is begun again on another, once: a trial from its
    last checkpoint. Raises UserError where the cluster cannot be reached, has no room for a trial, or cannot use the
    storage.
    """

    def __init__(
        self,
        address: str | None = None,
        num_gpus: float | None = None,
        num_cpus: float | None = None,
        storage: str | None = None,
        backend: str = "tensorflow",
        log: Path | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        if backend not in BACKENDS:
            raise unknown("backend", backend, BACKENDS)
        self._owned = cluster.connect(address, backend)
        import ray

        self._ray: Any = ray
        self._closed = False
        self._hands: list[_Hand] = []
        self._asked: dict[Any, _Hand] = {}
        self._again: list[tuple[float, _Hand]] = []
        """Questions whose answer was cut off, and when to ask them again."""
        self._tasks: dict[str, _Task] = {}
        self._waiting: deque[_Task] = deque()
        self._events: deque[Event] = deque()
        self._failures: Counter[str] = Counter()
        self._loaded: set[str] = set()
        self._grown = False
        self._last = ""
        self._log = log.absolute() if log else None
        self._manifest: Manifest | None = None
        atexit.register(self.close)
        try:
            nodes = cluster.alive()
            self._cpus, self._gpus = cluster.shares(num_cpus, num_gpus, nodes)
            if storage is not None and "://" not in storage:
                storage = str(Path(storage).expanduser().absolute())
            self._manifest = Manifest(self._log.parent if self._log else None, storage, ray.put)
            self._setup = Setup(
                backend=backend,
                gpu=self._gpus > 0,
                shared=0 < self._gpus < 1,
                threads=None if self._gpus else max(1, int(self._cpus)),
                preload=tuple(preload),
                paths=tuple(os.path.abspath(path) for path in sys.path),
                folder=os.getcwd(),
                log=self._manifest.place(self._log, True) if self._log else None,
                sweep=uuid.uuid4().hex[:12],
                storage=storage,
            )
            if storage is not None:
                self._probe(storage, nodes)
            self._follow(nodes)
            self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> Sequence[str]:
        """The names of the workers that run, in order; they change while `wait` is called, and at no other time."""
        names = {hand.slot for hand in self._hands if hand.listed} | set(self._tasks)
        return tuple(sorted(names, key=_number)) or (self._last,)

    def submit(self, slot: str, job: Job, argument: Any) -> None:
        """Start a job, a function importable by name, on a free slot; on one that has gone it waits for another."""
        if self._closed or slot in self._tasks:
            raise RuntimeError(f"slot {slot} is {'closed' if self._closed else 'busy'}")
        assert self._manifest is not None
        pickle.dumps((job, argument))  # what cannot be sent is an error here, and takes no slot
        task = self._tasks[slot] = _Task(slot, job, argument, self._manifest.places(argument))
        hand = next((h for h in self._hands if h.slot == slot and h.ready), None)
        if hand is None:
            self._waiting.append(task)
        else:
            self._start(hand, task)

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds, if none can come, or for new slots."""
        deadline = None if timeout is None else time.monotonic() + timeout
        looked = False
        while True:
            self._house()
            if self._events:
                return self._events.popleft()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left is None and not self._tasks:
                return None
            if left is not None and (self._grown or (left == 0 and looked)):
                self._grown = False
                return None
            self._collect(LOOK if left is None else min(left, LOOK))
            looked = True

    def kill(self, slot: str, reason: str) -> None:
        """Kill the slot's worker: its job is lost for this reason, unless it has just ended by itself."""
        task = self._tasks.get(slot)
        if task is None:
            return
        self._events = deque(event for event in self._events if event.slot != slot)
        hand = next((h for h in self._hands if h.task is task), None)
        if hand is None:
            self._waiting.remove(task)
            self._lose(task, reason)
            return
        asked = hand in self._asked.values() or any(hand is again for _, again in self._again)
        hand.condemned = reason, time.monotonic() + KILLING
        if asked:
            hand.actor.kill.remote(hand.number, reason)
        else:
            self._ask(hand, Kill(reason))

    def close(self) -> None:
        """Stop all workers, and the cluster where it was started here."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):  # the cluster may be gone
            nodes = {hand.node.id for hand in self._hands if hand.node.id in self._loaded}
            for hand in list(self._hands):
                self._drop(hand)
            self._clean(nodes)
        if self._manifest is not None:
            self._manifest.close()
        self._tasks.clear()
        self._waiting.clear()
        self._events.clear()
        if self._owned:
            cluster.leave()

    def _probe(self, storage: str, nodes: Sequence[cluster.Node]) -> None:
        """Have every node read what the driver wrote to the storage, and the driver what the node wrote."""
        key = depot.new_key()
        place = depot.Depot(storage)
        exchange = self._ray.remote(num_cpus=0, max_retries=0)(depot.exchange)
        for node in nodes:
            if not node.room(self._cpus, self._gpus):
                continue
            try:
                place.write(key, "driver")
                asked = exchange.options(scheduling_strategy=self._on(node)).remote(storage, key, "driver", node.id)
                self._ray.get(asked, timeout=STARTING)
                if place.read(f"{key}-answer") != node.id:
                    raise OSError("what the node wrote is not to be seen here")
            except Exception as error:
                told = in_one_line(getattr(error, "cause", None) or error)
                raise UserError(
                    f"executor.storage: '{storage}' is not shared with {node.name}, or not writable: {told}"
                ) from error
            finally:
                for name in (key, f"{key}-answer"):
                    with contextlib.suppress(Exception):
                        place.remove(name)

    def _begin(self) -> None:
        """Wait for the workers; those that take longer join later."""
        began, ready = time.monotonic(), 0
        problem = "they are all in use"
        while any(not hand.ready for hand in self._hands):
            if time.monotonic() - began > (JOINING if ready else STARTING):
                break
            problem = self._collect(LOOK, follow=False) or problem
            if (now := sum(hand.ready for hand in self._hands)) > ready:
                began, ready = time.monotonic(), now
        if not any(hand.ready for hand in self._hands):
            raise UserError(
                f"executor=ray: no worker could be started on {cluster.describe(cluster.alive())}: {problem}"
            )
        self._grown = False

    def _collect(self, seconds: float, follow: bool = True) -> str | None:
        """Take what has come within the time; return what a worker that did not start said."""
        for due, hand in [again for again in self._again if again[0] <= time.monotonic()]:
            self._again.remove((due, hand))
            if hand in self._hands:
                self._ask(hand)
        for hand in [h for h in self._hands if h.condemned and h.condemned[1] <= time.monotonic()]:
            assert hand.condemned is not None
            self._failed(hand, hand.condemned[0])
        problem = None
        if not self._asked:
            time.sleep(seconds)
        else:
            waiting = list(self._asked)
            if self._ray.wait(waiting, num_returns=1, timeout=seconds)[0]:
                for ref in self._ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
                    problem = self._receive(ref) or problem
        if follow and time.monotonic() - self._looked > LOOK:
            with contextlib.suppress(self._ray.exceptions.RayError, OSError):  # the head may be busy for a moment
                self._follow(cluster.alive())
        return problem

    def _follow(self, nodes: Sequence[cluster.Node]) -> None:
        """Have as many workers on each node as there is room for; forget idle ones of nodes that have gone."""
        self._looked = time.monotonic()
        there = {node.id for node in nodes}
        for hand in list(self._hands):
            if hand.node.id not in there and hand.task is None:
                self._drop(hand)
                _log.info("slot %s is gone with node %s", hand.slot, hand.node.name)
        for node in nodes:
            missing = node.room(self._cpus, self._gpus) - sum(h.node.id == node.id for h in self._hands)
            for _ in range(missing if self._failures[node.id] < FAILURES else 0):
                self._launch(node, self._new_slot())

    def _launch(self, node: cluster.Node, slot: str, listed: bool = False) -> None:
        actor_class = self._ray.remote(Relay)
        where = {"num_cpus": self._cpus, "num_gpus": self._gpus, "scheduling_strategy": self._on(node)}
        actor = actor_class.options(max_restarts=0, max_task_retries=0, max_concurrency=3, **where).remote(self._setup)
        hand = _Hand(actor, node, slot, listed)
        self._hands.append(hand)
        self._ask(hand)

    def _on(self, node: cluster.Node) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node.id, soft=False)

    def _new_slot(self) -> str:
        kind = "gpu" if self._gpus else "cpu"
        taken = {hand.slot for hand in self._hands} | set(self._tasks)
        return next(name for n in range(len(taken) + 1) if (name := f"{kind}{n}") not in taken)

    def _ask(self, hand: _Hand, order: Order | None = None) -> None:
        """Put a question to an actor: a new one, or the last one again."""
        if order is not None:
            hand.order, hand.number = order, hand.number + 1
        actor = hand.actor
        ref = actor.hello.remote() if hand.order is None else actor.step.remote(hand.number, hand.order)
        self._asked[ref] = hand

    def _receive(self, ref: Any) -> str | None:
        hand = self._asked.pop(ref, None)
        errors = self._ray.exceptions
        if hand is None:  # dropped while others were dealt with
            return None
        try:
            reply = self._ray.get(ref)
        except errors.ActorUnavailableError:
            self._again.append((time.monotonic() + LOOK, hand))
        except errors.RayTaskError as error:
            return self._failed(hand, in_one_line(error.cause or error))
        except errors.RayError as error:
            if hand.task is None:
                return self._failed(hand, cluster.in_one_line(error))
            self._gone(hand, hand.task, error)
        except Exception as error:  # what it sent cannot be read here
            return self._failed(hand, in_one_line(error))
        else:
            if hand.order is None:
                return self._greet(hand, reply)
            self._take(hand, reply)
        return None

    def _greet(self, hand: _Hand, version: str) -> str | None:
        if version != cnnsweep.__version__:
            return self._failed(hand, f"cnnsweep is {version} there, {cnnsweep.__version__} here")
        self._grown = self._grown or not hand.listed
        hand.ready = hand.listed = True
        self._failures[hand.node.id] = 0
        return None

    def _failed(self, hand: _Hand, reason: str) -> str:
        """A worker could not be started, or what is around a job failed there: the job is lost."""
        self._drop(hand)
        if hand.task is not None:
            self._launch(hand.node, hand.task.slot, listed=True)
            self._lose(hand.task, reason)
        else:
            self._failures[hand.node.id] += 1
            if self._failures[hand.node.id] == FAILURES:
                _log.warning("node %s is left out: %s", hand.node.name, reason)
        return reason

    def _gone(self, hand: _Hand, task: _Task, error: Exception) -> None:
        """An actor is lost, mostly with its node: its job moves, once."""
        if hand.condemned is not None:
            self._failed(hand, hand.condemned[0])
            return
        self._drop(hand)
        reason = cluster.in_one_line(error)
        _log.warning("%s: the worker on %s is lost: %s", task.slot, hand.node.name, reason)
        task.moves += 1
        if task.moves > 1:
            self._lose(task, f"its worker was lost for the second time: {reason}")
            return
        if isinstance(task.argument, TrialSpec) and task.epoch:
            # After "stop" it tells its last epoch again, to be stopped again.
            done = task.epoch if task.keep_on else task.epoch - 1
            task.argument = replace(task.argument, initial_epoch=max(done, task.argument.initial_epoch))
        self._waiting.append(task)

    def _house(self) -> None:
        """Give jobs that wait to workers that are free."""
        while self._waiting:
            free = [hand for hand in self._hands if hand.ready and hand.task is None]
            if not free:
                return
            task = self._waiting.popleft()
            hand = next((h for h in free if h.slot == task.slot), free[0])
            for other in self._hands:  # which may be starting under the name
                if other.slot == task.slot:
                    other.slot = hand.slot
            hand.slot = task.slot
            self._start(hand, task)

    def _start(self, hand: _Hand, task: _Task) -> None:
        hand.task = task
        self._ask(hand, Start(pickle.dumps(task.job), pickle.dumps(task.argument), task.places))

    def _take(self, hand: _Hand, reply: Reply) -> None:
        task, manifest = hand.task, self._manifest
        assert task is not None
        assert manifest is not None
        if hand.condemned is not None and reply.kind in ("need", "report"):
            if reply.kind == "need":  # nothing runs yet
                hand.task, reason, hand.condemned = None, hand.condemned[0], None
                self._lose(task, reason)
            else:
                self._ask(hand, Kill(hand.condemned[0]))
            return
        try:
            if reply.kind == "need":
                self._loaded.add(hand.node.id)
                self._ask(hand, Load(manifest.load([p for p in task.places if p.path in reply.value])))
                return
            manifest.unload(reply.cargo)
            self._write_log(reply.log)
        except OSError as error:  # a full disk, say
            self._failed(hand, in_one_line(error))
            return
        if reply.kind == "report":
            self._tell(hand, task, reply.value)
            return
        hand.task = hand.condemned = None
        if reply.kind == "lost":
            self._lose(task, str(reply.value))
            return
        try:
            manifest.fetch(task.places)
        except Exception as error:
            self._lose(task, in_one_line(error))
        else:
            del self._tasks[task.slot]
            self._events.append(Event(task.slot, "result", reply.value))

    def _tell(self, hand: _Hand, task: _Task, report: Any) -> None:
        """Pass a report on, unless the driver has heard it before and said "stop"."""
        if isinstance(report, EpochReport):
            if not task.keep_on and report.epoch == task.epoch:
                self._ask(hand, Answer(False))
                return
            task.epoch = max(task.epoch, report.epoch)
        self._events.append(Event(task.slot, "report", report, self._asker(hand, task)))

    def _asker(self, hand: _Hand, task: _Task) -> Callable[[bool], None]:
        unanswered = [True]

        def answer(keep_on: bool) -> None:
            if not unanswered:
                raise RuntimeError("this report was answered already")
            unanswered.clear()
            task.keep_on = bool(keep_on)
            if hand.task is task and hand in self._hands and hand.condemned is None:
                self._ask(hand, Answer(bool(keep_on)))

        return answer

    def _lose(self, task: _Task, reason: str) -> None:
        assert self._manifest is not None
        with contextlib.suppress(Exception):
            self._manifest.fetch(task.places)
        del self._tasks[task.slot]
        self._events.append(Event(task.slot, "lost", reason))

    def _drop(self, hand: _Hand) -> None:
        if hand in self._hands:
            self._hands.remove(hand)
        self._last = hand.slot
        self._asked = {ref: other for ref, other in self._asked.items() if other is not hand}
        with contextlib.suppress(Exception):  # it is dead, or its node is
            self._ray.kill(hand.actor)

    def _clean(self, nodes: set[str]) -> None:
        """Remove what was sent to nodes, as far as that is soon done."""
        remover = self._ray.remote(num_cpus=0, max_retries=0)(clean)
        there = [node for node in cluster.alive() if node.id in nodes]
        asked = [remover.options(scheduling_strategy=self._on(n)).remote(self._setup.sweep) for n in there]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=5)

    def _write_log(self, text: str) -> None:
        if text and self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(text)


def _number(slot: str) -> tuple[int, str]:
    digits = "".join(c for c in slot if c.isdigit())
    return int(digits or 0), slot

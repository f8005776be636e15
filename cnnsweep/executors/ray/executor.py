"""Trials on the nodes of a Ray cluster: as many workers as it has room for, which come and go with its nodes."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnsweep.errors import unknown
from cnnsweep.executors.base import Event, Job
from cnnsweep.executors.process import BACKENDS
from cnnsweep.executors.ray import cluster
from cnnsweep.executors.ray.actor import Answer, Kill, Load, Reply, Setup, Start
from cnnsweep.executors.ray.actor_pool import LOOK, Crew, Hand, Heard
from cnnsweep.executors.ray.manifest import Manifest
from cnnsweep.executors.ray.transfer import Place
from cnnsweep.executors.worker import in_one_line
from cnnsweep.trial import EpochReport, TrialSpec

_log = logging.getLogger("cnnsweep.executors")


@dataclass(eq=False)
class _Task:
    """A job that was submitted and has not ended."""

    worker: str
    job: Job
    argument: Any
    places: list[Place]
    moved: bool = False
    epoch: int = 0
    """The last that it reported."""
    keep_on: bool = True
    """The last answer."""


class RayExecutor:
    """One worker a worker, on whichever node; see conf/executor/ray.yaml for the arguments.

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
        if storage is not None and "://" not in storage:
            storage = str(Path(storage).expanduser().absolute())
        self._log = log.absolute() if log else None
        self._tasks: dict[str, _Task] = {}
        self._waiting: deque[_Task] = deque()
        self._events: deque[Event] = deque()
        self._loaded: set[str] = set()
        """Nodes that were sent files."""
        self._closed = False
        self._crew: Crew | None = None
        self._manifest = Manifest(self._log.parent if self._log else None, storage, lambda p: cluster.load().put(p))
        self._owned = cluster.connect(address, backend)
        atexit.register(self.close)
        try:
            nodes = cluster.alive()
            cpus, gpus = cluster.shares(num_cpus, num_gpus, nodes)
            setup = Setup(
                backend=backend,
                gpu=gpus > 0,
                shared=0 < gpus < 1,
                threads=None if gpus else max(1, int(cpus)),
                preload=tuple(preload),
                paths=tuple(os.path.abspath(path) for path in sys.path),
                folder=os.getcwd(),
                log=self._manifest.place(self._log, True) if self._log else None,
                sweep=uuid.uuid4().hex[:12],
                storage=storage,
            )
            self._crew = Crew(setup, cpus, gpus, nodes)
            self._crew.begin()
        except BaseException:
            self.close()
            raise
        self._last = self._crew.hands[0].worker

    @property
    def workers(self) -> Sequence[str]:
        """The names of the workers that run, in order; they change while `wait` is called, and at no other time."""
        names = {hand.worker for hand in self._hands if hand.listed} | set(self._tasks)
        if not names:  # the whole cluster is gone for now: what is submitted waits
            return (self._last,)
        ranked = tuple(sorted(names, key=lambda name: (len(name), name)))
        self._last = ranked[0]
        return ranked

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        """Start a job, a function importable by name, on a free worker; on one that has gone it waits for another."""
        if self._closed or worker in self._tasks:
            raise RuntimeError(f"worker {worker} is {'closed' if self._closed else 'busy'}")
        pickle.dumps((job, argument))  # what cannot be sent is an error here, and takes no worker
        task = self._tasks[worker] = _Task(worker, job, argument, self._manifest.places(argument))
        hand = next((h for h in self._hands if h.worker == worker and h.ready), None)
        if hand is None:
            self._waiting.append(task)
        else:
            self._start(hand, task)

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds or for new workers, or if none can come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        looked = False
        while self._crew is not None:
            self._house()
            if self._events:
                return self._events.popleft()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left is None and not self._tasks:
                return None
            if left is not None and (self._crew.grown or (left == 0 and looked)):
                self._crew.grown = False
                return None
            for heard in self._crew.collect(LOOK if left is None else min(left, LOOK), list(self._tasks)):
                if heard.hand in self._hands and heard.hand.task is not None:
                    self._take(heard, heard.hand.task)
            looked = True
        return None

    def kill(self, worker: str, reason: str) -> None:
        """Kill the worker's worker: its job is lost for this reason, unless it has just ended by itself."""
        task = self._tasks.get(worker)
        if task is None:
            return
        self._events = deque(event for event in self._events if event.worker != worker)
        hand = next((h for h in self._hands if h.task is task), None)
        if hand is None:
            self._waiting.remove(task)
            self._lose(task, reason)
        elif self._crew is not None and hand.condemned is None:
            asked = hand.asked
            self._crew.condemn(hand, reason)
            if not asked:
                self._crew.ask(hand, Kill(reason))

    def close(self) -> None:
        """Stop all workers, and the cluster where it was started here."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):  # the cluster may be gone
            if self._crew is not None:
                self._crew.close(self._loaded)
        self._manifest.close()
        self._crew = None
        self._tasks.clear()
        self._waiting.clear()
        self._events.clear()
        if self._owned:
            cluster.leave()

    @property
    def _hands(self) -> Sequence[Hand]:
        return self._crew.hands if self._crew is not None else ()

    def _house(self) -> None:
        """Give jobs that wait to workers that are free."""
        while self._waiting:
            free = [hand for hand in self._hands if hand.ready and hand.task is None]
            if not free:
                return
            task = self._waiting.popleft()
            hand = next((h for h in free if h.worker == task.worker), free[0])
            for other in self._hands:  # which may be starting under the name
                if other.worker == task.worker:
                    other.worker = hand.worker
            hand.worker = task.worker
            self._start(hand, task)

    def _start(self, hand: Hand, task: _Task) -> None:
        hand.task = task
        self._ask(hand, Start(pickle.dumps(task.job), pickle.dumps(task.argument), task.places))

    def _ask(self, hand: Hand, order: Start | Load | Answer | Kill) -> None:
        if self._crew is not None:
            self._crew.ask(hand, order)

    def _take(self, heard: Heard, task: _Task) -> None:
        hand = heard.hand
        if heard.kind == "gone" and hand.condemned is None:
            self._move(hand, task, heard.value)
        elif heard.kind != "reply":
            self._fail(hand, task, hand.condemned[0] if hand.condemned else heard.value)
        else:
            try:
                self._hear(hand, task, heard.value)
            except Exception as error:  # a full disk, or a storage that does not answer
                self._fail(hand, task, in_one_line(error))

    def _hear(self, hand: Hand, task: _Task, reply: Reply) -> None:
        if reply.kind == "need":
            if hand.condemned is not None:  # nothing runs yet
                self._fail(hand, task, hand.condemned[0])
                return
            self._loaded.add(hand.node.id)
            self._ask(hand, Load(self._manifest.load([p for p in task.places if p.path in reply.value])))
            return
        self._manifest.unload(reply.cargo)
        self._write_log(reply.log)
        if reply.kind == "report" and hand.condemned is not None:
            self._ask(hand, Kill(hand.condemned[0]))
        elif reply.kind == "report":
            self._tell(hand, task, reply.value)
        elif reply.kind == "lost":
            hand.task = hand.condemned = None
            self._lose(task, str(reply.value))
        else:
            self._manifest.fetch(task.places)
            hand.task = hand.condemned = None
            del self._tasks[task.worker]
            self._events.append(Event(task.worker, "result", reply.value))

    def _tell(self, hand: Hand, task: _Task, report: Any) -> None:
        """Pass a report on, unless the driver has heard it before and said "stop"."""
        if isinstance(report, EpochReport):
            if not task.keep_on and report.epoch == task.epoch:
                self._ask(hand, Answer(False))
                return
            task.epoch = max(task.epoch, report.epoch)
        self._events.append(Event(task.worker, "report", report, self._asker(hand, task)))

    def _asker(self, hand: Hand, task: _Task) -> Callable[[bool], None]:
        unanswered = [True]

        def answer(keep_on: bool) -> None:
            if not unanswered:
                raise RuntimeError("this report was answered already")
            unanswered.clear()
            if hand.task is task and hand in self._hands and hand.condemned is None:
                task.keep_on = bool(keep_on)
                self._ask(hand, Answer(task.keep_on))

        return answer

    def _move(self, hand: Hand, task: _Task, reason: str) -> None:
        """An actor is lost, mostly with its node: its job goes on elsewhere, once."""
        _log.warning("%s: the worker on %s is lost: %s", task.worker, hand.node.name, reason)
        if self._crew is not None:
            self._crew.drop(hand)
        if task.moved:
            self._lose(task, f"its node was lost, for the second time: {reason}")
            return
        try:
            self._manifest.fetch(task.places)
        except Exception as error:
            self._lose(task, in_one_line(error))
            return
        task.moved = True
        if isinstance(task.argument, TrialSpec) and task.epoch:
            # After "stop" it tells its last epoch again, to be stopped again.
            done = task.epoch if task.keep_on else task.epoch - 1
            task.argument = replace(task.argument, initial_epoch=max(done, task.argument.initial_epoch))
        self._waiting.append(task)

    def _fail(self, hand: Hand, task: _Task, reason: str) -> None:
        """What is around a job failed, or the job could not be killed otherwise: another actor takes its place."""
        if self._crew is not None:
            self._crew.replace(hand)
        self._lose(task, reason)

    def _lose(self, task: _Task, reason: str) -> None:
        with contextlib.suppress(Exception):
            self._manifest.fetch(task.places)
        del self._tasks[task.worker]
        self._events.append(Event(task.worker, "lost", reason))

    def _write_log(self, text: str) -> None:
        if text and self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(text)

"""The Ray executor: trials on the nodes of a cluster, with as many workers as it has room for at the time."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import pickle
import sys
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ExecutorConfig
from cnnsweep.config.validation import Float
from cnnsweep.executors.base import Event, Executor, ExecutorGoneError, Job, answer_once
from cnnsweep.executors.ray import cluster
from cnnsweep.executors.ray.actor import ActorSettings, Reply
from cnnsweep.executors.ray.actor_pool import LOOK, ActorPool, RemoteActor, Task
from cnnsweep.executors.ray.transfer import Sender, write_changed
from cnnsweep.executors.worker import in_one_line
from cnnsweep.training.keras_settings import SHARED_GPU
from cnnsweep.trial import EpochReport, TrialSpec

_log = logging.getLogger("cnnsweep.executors")


class RayConfig(ExecutorConfig):
    """The config of the Ray executor; conf/executor/ray.yaml explains the keys."""

    address: str | None
    num_gpus: Float | None = Field(ge=0, le=1)
    num_cpus: Float | None = Field(gt=0)


@configured_by(RayConfig)
class RayExecutor(Executor):
    """One worker for each actor that the cluster has room for; see conf/executor/ray.yaml for the arguments.

    A job whose worker dies is lost, as locally. One whose node dies is started again on another, once: a trial from
    its last checkpoint. Raises UserError where the cluster cannot be reached or has no room for a trial.
    """

    def __init__(
        self,
        address: str | None = None,
        num_gpus: float | None = None,
        num_cpus: float | None = None,
        backend: str = "tensorflow",
        log: Path | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self._log = log.absolute() if log else None
        self._tasks: dict[str, Task] = {}  # by worker
        self._waiting: deque[Task] = deque()
        self._events: deque[Event] = deque()
        self._closed = False
        with contextlib.ExitStack() as stack:
            if cluster.connect(address, backend):
                stack.callback(cluster.leave)
            cpus, gpus = cluster.shares(num_cpus, num_gpus, cluster.alive())
            device = {"device": "gpu", "gpus": 1} if gpus else {"device": "cpu", "threads": max(1, int(cpus))}
            settings = ActorSettings(
                sweep=uuid.uuid4().hex[:12],
                process={**device, "backend": backend, "preload": tuple(preload)},
                environment=SHARED_GPU if 0 < gpus < 1 else {},
                paths=tuple(os.path.abspath(path) for path in sys.path),
                folder=os.getcwd(),
            )
            self._pool = ActorPool(settings, cpus, gpus)
            stack.callback(self._pool.close)
            self._pool.start()
            self._opened = stack.pop_all()
        atexit.register(self.close)
        self._sender = Sender(cluster.load().put)
        self._prefix = "gpu" if gpus else "cpu"
        self._workers: tuple[str, ...] = ()
        self._name_workers()

    @property
    def workers(self) -> Sequence[str]:
        return self._workers

    @property
    def notes(self) -> Mapping[str, str]:
        return {task.worker: "waits for a node" for task in self._waiting}

    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Start a job on a free worker; where its node has gone it waits for another. Raises if it does not pickle."""
        if self._closed or worker in self._tasks:
            raise RuntimeError(f"worker {worker} is {'closed' if self._closed else 'busy'}")
        pickle.dumps((job, argument))
        self._tasks[worker] = task = Task(worker, job, argument)
        self._waiting.append(task)
        self._assign()

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds or for new workers, or if none can come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        looked = False
        while not self._closed:
            self._assign()
            joined = self._name_workers()
            if self._events:
                return self._events.popleft()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if (left is None and not self._tasks) or (left is not None and joined) or (left == 0 and looked):
                return None
            for remote, reply in self._pool.collect(LOOK if left is None else min(left, LOOK)):
                self._handle(remote, reply)
            looked = True
        return None

    def kill(self, worker: str, reason: str) -> None:
        """Kill the worker's process: its job is lost for this reason, unless it has just ended by itself."""
        task = self._tasks.get(worker)
        if task is None or task.killed:
            return
        self._events = deque(event for event in self._events if event.worker != worker)
        remote = next((remote for remote in self._pool.actors if remote.task is task), None)
        if remote is None:
            self._waiting.remove(task)
            self._end(task, "lost", reason)
        else:
            task.killed = reason
            self._pool.kill(remote, reason)

    def close(self) -> None:
        """Stop all workers, and the cluster where it was started here."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._opened.close()
        for kept in (self._tasks, self._waiting, self._events):
            kept.clear()

    def _name_workers(self) -> bool:
        """Have a name for each actor, those of running jobs among them; return whether there are new ones."""
        count = max(1, self._pool.ready)  # where the whole cluster is gone for now, jobs wait
        names = [*self._tasks]
        free = (name for n in itertools.count() if (name := f"{self._prefix}{n}") not in self._tasks)
        names += itertools.islice(free, max(0, count - len(names)))
        before, self._workers = self._workers, tuple(sorted(names, key=lambda name: (len(name), name)))
        return not set(self._workers) <= set(before)

    def _assign(self) -> None:
        """Give jobs that wait to actors that are free."""
        for remote in self._pool.actors:
            if self._waiting and remote.ready and remote.task is None:
                remote.task = task = self._waiting.popleft()
                try:
                    self._pool.order(remote, self._sender.pack(task.job, task.argument))
                except ExecutorGoneError:
                    raise
                except Exception as error:  # a file that cannot be read, say
                    remote.task = None
                    self._end(task, "lost", in_one_line(error))

    def _handle(self, remote: RemoteActor, reply: Reply) -> None:
        task, kind, value = remote.task, reply.kind, reply.value
        if task is None:
            return
        try:
            write_changed(reply.changed)
            if reply.log and self._log is not None:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(reply.log)
        except OSError as error:  # a full disk, say
            task.killed = task.killed or in_one_line(error)
            kind = kind if kind == "report" else "lost"
        if kind == "report":
            self._handle_report(remote, task, value)
            return
        remote.task = None
        if kind == "result":
            self._end(task, "result", value)
        elif kind == "gone" and not task.killed:
            self._move(task, remote.node.name, value)
        else:
            self._end(task, "lost", task.killed or value)

    def _handle_report(self, remote: RemoteActor, task: Task, report: object) -> None:
        if task.killed:
            self._pool.order(remote, task.killed)
        elif isinstance(report, EpochReport) and not task.keep_on and report.epoch == task.epoch:
            self._pool.order(remote, False)  # its answer was lost with its first node
        else:
            if isinstance(report, EpochReport):
                task.epoch = max(task.epoch, report.epoch)
            answer = answer_once(lambda keep_on: self._answer(remote, task, keep_on))
            self._events.append(Event(task.worker, "report", report, answer))

    def _answer(self, remote: RemoteActor, task: Task, keep_on: bool) -> None:
        if not self._closed and remote.task is task and task.killed is None:
            task.keep_on = keep_on
            self._pool.order(remote, keep_on)

    def _move(self, task: Task, node: str, reason: str) -> None:
        """Have a job whose node is lost started again on another, once."""
        _log.warning("%s: the worker on %s is lost: %s", task.worker, node, reason)
        if task.moved:
            self._end(task, "lost", f"its node was lost, for the second time: {reason}")
            return
        task.moved = True
        if isinstance(task.argument, TrialSpec) and task.epoch:
            # A trial that was to stop reports its last epoch again, to be stopped again.
            done = task.epoch if task.keep_on else task.epoch - 1
            task.argument = replace(task.argument, initial_epoch=max(done, task.argument.initial_epoch))
        self._waiting.append(task)

    def _end(self, task: Task, kind: Literal["result", "lost"], value: object) -> None:
        del self._tasks[task.worker]
        self._events.append(Event(task.worker, kind, value))

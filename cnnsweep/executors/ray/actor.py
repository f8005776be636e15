"""A node's side of a Ray cluster: an actor with one local worker process, to which it passes the driver's orders.

The worker is the one of the process executor, so a trial gives the same numbers and its death the same reasons. An
actor itself does nothing that could end it: where one is lost, its node is, or the cluster took it away.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cnnsweep import __version__
from cnnsweep.executors.base import Steps
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.ray.leftovers import PREFIX, occupy, remove_abandoned
from cnnsweep.executors.ray.transfer import Files, Package, Piece, Receiver, replace_paths
from cnnsweep.executors.worker import in_one_line

LOG_TAIL = 64 * 2**10
Order = Package | bool | str
"""A job to begin, the answer to its report, or the reason for which it is ended at that report."""


@dataclass(frozen=True)
class ActorSettings:
    """The settings of an actor."""

    sweep: str
    """Names what this driver leaves on a node."""
    process: Mapping[str, Any]
    """Arguments of its process executor."""
    environment: Mapping[str, str]
    paths: Sequence[str]
    """Where the driver finds modules."""
    folder: str
    """The driver's working directory, which modules may be given from."""


@dataclass(frozen=True)
class Reply:
    """A job's next report or its end, with the files that it has changed and the end of its log."""

    kind: Literal["report", "result", "lost", "gone"]
    """"gone" stands for the reply of an actor that is lost."""
    value: Any
    changed: Mapping[Path, Files] = field(default_factory=dict)
    log: str = ""


def home(sweep: str) -> Path:
    """Where a node keeps what it is sent, while the driver lives."""
    return Path(tempfile.gettempdir()) / f"{PREFIX}{sweep}"


def run_packed(order: tuple[bytes, Mapping[Path, Path]]) -> Steps:
    """The worker's job: to run the driver's, on files that are elsewhere."""
    task, places = order
    job, argument = pickle.loads(task)
    return (yield from job(replace_paths(argument, lambda path, _: places.get(path))))


class WorkerActor:
    """An actor's class. It gets one order after another, and replies to each once."""

    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._home = home(settings.sweep)
        self._log = self._home / f"log-{os.getpid()}.txt"
        self._log_sent = 0
        self._receiver = Receiver(self._home, _fetch)
        self._lock = threading.Lock()
        self._executor: ProcessExecutor | None = None
        self._in_use: BinaryIO | None = None
        self._answer: Callable[[bool], None] = lambda _: None
        self._number = 0
        self._reply: Reply | None = None
        self._killed = 0, ""

    def begin(self) -> str:
        """Start the worker process in the background; return the version of cnnsweep on this node."""
        settings = self._settings
        with self._lock:
            if self._executor is None:
                sys.path.extend(path for path in settings.paths if path not in sys.path and os.path.isdir(path))
                with contextlib.suppress(OSError):
                    os.chdir(settings.folder)
                os.environ.update(settings.environment)
                remove_abandoned(self._home.parent)
                self._in_use = occupy(self._home)
                self._executor = ProcessExecutor(workers=1, log=self._log, **settings.process)
        return __version__

    def step(self, number: int, order: Order) -> Reply:
        """Follow an order; return the next event. Ray may repeat a call after a broken connection: so is the reply."""
        with self._lock:
            if number != self._number or self._reply is None:
                assert self._executor is not None
                self._number = number
                try:
                    self._reply = self._follow(self._executor, order)
                except Exception as error:  # a full disk, say
                    self._reply = self._give_up(self._executor, in_one_line(error))
            return self._reply

    def kill(self, number: int, reason: str) -> None:
        """End the job of an order that has no reply yet."""
        self._killed = number, reason
        if number == self._number and self._executor is not None:
            self._executor.kill(self._executor.workers[0], reason)

    def leave(self) -> None:
        """End the worker and remove what this node was sent."""
        if self._executor is not None:
            self._executor.close()
        if self._in_use is not None:
            self._in_use.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _follow(self, executor: ProcessExecutor, order: Order) -> Reply:
        (worker,) = executor.workers
        match order:
            case Package():
                executor.submit(worker, run_packed, (order.task, self._receiver.unpack(order)))
            case bool():
                self._answer(order)
            case str():
                executor.kill(worker, order)
        if self._killed[0] == self._number:  # before the job had started
            executor.kill(worker, self._killed[1])
        event = executor.wait()
        assert event is not None
        self._answer = event.answer
        if event.kind == "report":
            return Reply("report", self._receiver.translate(event.value), self._receiver.changed())
        return self._ended(event.kind, event.value)

    def _give_up(self, executor: ProcessExecutor, reason: str) -> Reply:
        executor.kill(executor.workers[0], reason)
        while (event := executor.wait()) is not None and event.kind == "report":
            pass
        return self._ended("lost", reason)

    def _ended(self, kind: Literal["result", "lost"], value: object) -> Reply:
        changed = self._receiver.changed() if kind == "result" else {}
        value = self._receiver.translate(value)
        self._receiver.clear()
        return Reply(kind, value, changed, self._new_log())

    def _new_log(self) -> str:
        """The end of the worker's output since the last job."""
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_sent, end - LOG_TAIL))
            self._log_sent = end
            return file.read().decode(errors="replace")
        return ""


def _fetch(piece: Piece) -> bytes:
    import ray

    return bytes(ray.get(piece)) if isinstance(piece, ray.ObjectRef) else bytes(piece)

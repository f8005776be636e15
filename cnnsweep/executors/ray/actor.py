"""A node's side of a cluster: one local worker process, and an actor that passes on what the driver says to it.

The worker is that of `executor=cpu` and `executor=gpu`, so a trial gives the same numbers, is killed and is mourned in
the same way. The actor itself does nothing that could fail: where it is lost, its node is, or the cluster took it away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import shutil
import sys
import tempfile
import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cnnsweep
from cnnsweep.executors.base import Event
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.ray import transfer as cargo
from cnnsweep.executors.ray.depot import Depot
from cnnsweep.executors.ray.transfer import Cargo, Place, Stamp

LOG_TAIL = 64 * 2**10


@dataclass(frozen=True)
class Setup:
    """What a relay is to be."""

    backend: str
    gpu: bool
    shared: bool
    """Other trials use the same GPU."""
    threads: int | None
    preload: Sequence[str]
    paths: Sequence[str]
    """Where the driver finds modules."""
    folder: str
    """Where the driver works: paths may be given from there."""
    log: Place | None
    sweep: str
    """Names what this driver leaves on a node."""
    storage: str | None


@dataclass(frozen=True)
class Start:
    """Begin a job: the function and its argument, pickled, and the places in the argument."""

    job: bytes
    argument: bytes
    places: Sequence[Place]


@dataclass(frozen=True)
class Load:
    """Take the files that a job's places hold; those of a place without any come from the storage."""

    cargo: Mapping[Path, Cargo]


@dataclass(frozen=True)
class Answer:
    """What the driver says to a report."""

    keep_on: bool


@dataclass(frozen=True)
class Kill:
    """End the job, whose report is not answered."""

    reason: str


Order = Start | Load | Answer | Kill


@dataclass(frozen=True)
class Reply:
    """A report, a result or a loss; or "need" and the places that are not to be seen here."""

    kind: str
    value: Any
    cargo: Mapping[Path, Cargo] = field(default_factory=dict)
    log: str = ""


def arrive(parcel: tuple[bytes, bytes]) -> Generator[Any, bool, Any]:
    """The worker's job: to unpack the driver's and do it."""
    job, argument = (pickle.loads(part) for part in parcel)
    return (yield from job(argument))


def home(sweep: str) -> Path:
    """Where a node keeps what it was sent, for as long as the driver lives."""
    return Path(tempfile.gettempdir()) / f"cnnsweep-{sweep}"


class Relay:
    """An actor's class. It is asked one question after another, each of which is answered once, and told to kill."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._lock = threading.Lock()
        self._number = 0
        self._reply: Reply | None = None
        self._start: Start | None = None
        self._sent: dict[Path, tuple[Place, Path, dict[str, Stamp]]] = {}
        self._work: Path | None = None

    def hello(self) -> str:
        """Start the worker process in the background; return the version of cnnsweep here."""
        setup = self._setup
        sys.path.extend(path for path in setup.paths if path not in sys.path and os.path.isdir(path))
        with contextlib.suppress(OSError):
            os.chdir(setup.folder)
        if setup.shared:
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        seen = setup.log is None or setup.log.is_seen()
        self._log = None if seen else home(setup.sweep) / f"log-{os.getpid()}.txt"
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
        self._read = 0
        self._executor = ProcessExecutor(
            device="gpu" if setup.gpu else "cpu",
            gpus=1 if setup.gpu else None,
            workers=1,
            threads=setup.threads,
            backend=setup.backend,
            log=self._log or (setup.log.path if setup.log else None),
            preload=setup.preload,
        )
        return cnnsweep.__version__

    def step(self, number: int, order: Order) -> Reply:
        """Do what is asked and return what comes of it. Asked again, after a broken connection, tell it again."""
        with self._lock:
            if number != self._number or self._reply is None:
                self._reply, self._number = None, number
                self._reply = self._do(order)
            return self._reply

    def kill(self, number: int, reason: str) -> None:
        """End the job of the question that is being dealt with."""
        if number == self._number:
            self._executor.kill(self._executor.workers[0], reason)

    def leave(self) -> None:
        """End the worker, whatever it does, and remove what this node was sent."""
        self._executor.close()
        shutil.rmtree(home(self._setup.sweep), ignore_errors=True)

    def _do(self, order: Order) -> Reply:
        if isinstance(order, Start):
            self._start, self._sent = order, {}
            if missing := [place.path for place in order.places if not place.is_seen()]:
                return Reply("need", missing)
            self._executor.submit(self._executor.workers[0], arrive, (order.job, order.argument))
        elif isinstance(order, Load):
            self._take(order)
        elif isinstance(order, Kill):
            self._executor.kill(self._executor.workers[0], order.reason)
        else:
            self._event.answer(order.keep_on)
        return self._next()

    def _next(self) -> Reply:
        event = self._executor.wait()
        assert event is not None
        self._event: Event = event
        sent = {} if event.kind == "lost" else self._changed()
        value = self._as_at_home(event.value) if isinstance(event.value, str) else event.value
        if event.kind == "report":
            return Reply(event.kind, value, sent)
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = None
        return Reply(event.kind, value, sent, self._said())

    def _take(self, order: Load) -> None:
        """Put the job's files below this node's own folder, and start it on them."""
        assert self._start is not None
        self._work = home(self._setup.sweep) / "work" / uuid.uuid4().hex
        where: dict[Path, Path] = {}
        for number, place in enumerate(p for p in self._start.places if p.path in order.cargo):
            if not place.written:
                where[place.path] = self._shared(place, order.cargo[place.path])
                continue
            where[place.path] = folder = self._work / str(number)
            folder.mkdir(parents=True)
            self._fill(place, order.cargo[place.path], folder)
            self._sent[place.path] = place, folder, cargo.stamps(folder)
        argument = cargo.moved(pickle.loads(self._start.argument), where)
        self._executor.submit(self._executor.workers[0], arrive, (self._start.job, pickle.dumps(argument)))

    def _fill(self, place: Place, files: Cargo, folder: Path) -> None:
        if self._setup.storage is not None:
            Depot(self._setup.storage).get(place.key, folder)
        else:
            cargo.unpack(files, folder, _fetched)

    def _shared(self, place: Place, files: Cargo) -> Path:
        """Where this node keeps what is only read: written by the first relay that needs it, used by all."""
        folder = home(self._setup.sweep) / "data" / place.token
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{place.token}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                new = folder.with_name(f"{place.token}.new")
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                cargo.unpack(files, new, _fetched)
                os.rename(new, folder)
        single = place.path.name in place.stamps and len(place.stamps) == 1
        return folder / place.path.name if single else folder

    def _changed(self) -> dict[Path, Cargo]:
        """What the job has written since the last time; to a storage it is sent from here."""
        found = {}
        for path, (place, folder, before) in self._sent.items():
            now = cargo.stamps(folder)
            names = [name for name, stamp in now.items() if before.get(name) != stamp]
            self._sent[path] = place, folder, now
            if self._setup.storage is not None:
                Depot(self._setup.storage).put(folder, names, place.key)
            elif names:
                found[path] = cargo.pack(folder, names)
        return found

    def _as_at_home(self, text: str) -> str:
        """A path or an error with the driver's folders in place of those here."""
        for path, (_, folder, _) in self._sent.items():
            text = text.replace(str(folder), str(path))
        return text

    def _said(self) -> str:
        """The end of what the worker wrote since the last job, where the driver does not see its log."""
        if self._log is None or not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._read, end - LOG_TAIL))
            self._read = end
            return file.read().decode(errors="replace")


def _fetched(piece: Any) -> bytes:
    import ray

    return bytes(ray.get(piece)) if isinstance(piece, ray.ObjectRef) else piece

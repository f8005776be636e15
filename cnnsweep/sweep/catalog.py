"""The sweeps in a folder: their ids and locks, and the state of each, read quickly from its journal."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Tracking
from cnnsweep.errors import UserError, unknown
from cnnsweep.journal import journal
from cnnsweep.journal.events import (
    EpochEnded,
    Event,
    SweepResumed,
    SweepStarted,
    SweepStopped,
    TrialEnded,
    TrialStarted,
)

LOCK = "driver.lock"
PATIENCE = 2.0
"""Seconds to wait for a lock: longer than `is_held` keeps it."""
_TAIL = 4096
_TRIAL, _EPOCH, _METRICS = b'{"event":"trial",', b'{"event":"epoch",', b'"metrics":'
"""The starts of the most frequent lines; parsing their JSON would take most of the time."""


def new_id(tracking: Tracking, name: str, kind: str = "sweeps") -> str:
    """Return a name with the time, unique within a second, and make its folder under `kind`.

    In one folder that is a number. To a server others may log at that second from folders of their own: it is chance.
    """
    root = Path(tracking.dir).absolute()
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"-{secrets.token_hex(3)}" if tracking.uri else "")
    if root.is_symlink() and not root.exists():
        raise UserError(f"tracking.dir: '{root}' is a link to '{root.readlink()}', which is not there; set another")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        id_ = f"{name}-{stamp}{suffix}"
        try:
            (root / kind / id_).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"tracking.dir: '{root}' cannot be written ({error.strerror}); set another") from error
        return id_
    raise UserError(f"tracking.dir: '{root}' holds a thousand sweeps of this second")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the only driver of a sweep; the lock vanishes when its holder dies, however it dies.

    Raises UserError where another process drives it.
    """
    try:
        lock = FileLock(folder / LOCK, timeout=PATIENCE, thread_local=False).acquire()
    except Timeout as error:
        raise UserError(f"sweep {folder.name} is still running in another process; stop it there (Ctrl-C) before you "
                        "resume it here") from error  # fmt: skip
    except (OSError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        is_denied = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        advice = "" if is_denied else "; set tracking.dir to one on a file system with locks"
        raise UserError(f"the folder of sweep {folder.name} cannot be locked ({reason}){advice}") from error
    with lock:
        yield


def is_held(folder: Path) -> bool:
    """Whether a living process drives the sweep."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


@dataclass
class Row:
    """One sweep."""

    objective: Objective = field(default_factory=lambda: Objective.of("val_accuracy"))
    last: float = 0.0
    """When the last event was written, in seconds since 1970."""
    stop: str | None = None
    """The status with which it stopped."""
    trials: dict[int, str] = field(default_factory=dict)
    """The status of each, by number."""
    values: dict[int, float] = field(default_factory=dict)
    """The best value of each."""
    events: int = 0
    name: str = ""
    """The sweep's name, which its id begins with."""

    @property
    def best(self) -> float | None:
        """The best value of all trials."""
        values = [value for trial, value in self.values.items() if self.trials.get(trial) != "failed"]
        index = self.objective.best(values)
        return None if index is None else values[index]

    @property
    def counts(self) -> Counter[str]:
        """How many trials have each status."""
        return Counter(self.trials.values())

    def start(self, trial: int) -> None:
        """Take in a trial that starts; one that failed begins again."""
        if self.trials.get(trial) == "failed":
            self.values.pop(trial, None)
        self.trials[trial] = "running"

    def add(self, trial: int, value: float) -> None:
        """Take in an epoch's value."""
        if self.objective.better(value, self.values.get(trial)):
            self.values[trial] = value

    def apply(self, event: Event) -> None:
        """Take in an event."""
        match event:
            case SweepStarted():
                self.name = event.sweep
                self.objective = Objective.of(event.config["objective"])
            case TrialStarted():
                self.start(event.trial)
            case EpochEnded():
                self.add(event.trial, event.metrics[self.objective.metric])
            case TrialEnded():
                self.trials[event.trial] = event.status
            case SweepStopped():
                self.stop = event.status
            case SweepResumed():
                self.stop = None


def read(folder: Path) -> Row:
    """Return the row of the sweep in `folder`. Raises UserError where its journal is damaged or newer."""
    path, row = folder / journal.FILE, Row()
    metric = b""
    for row.events, line in enumerate(journal.lines(path), start=1):
        try:
            if line.startswith(_EPOCH) and line.endswith(b"}}"):
                row.add(int(_after(b'"trial":', line)), float(_after(metric, line[line.index(_METRICS) :])))
            elif line.startswith(_TRIAL) and line.endswith(b"}"):
                row.start(int(_after(b'"trial":', line)))
            else:
                row.apply(journal.parse(path, row.events, line))
                metric = f"{json.dumps(row.objective.metric)}:".encode()
        except UserError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise journal.damaged(path, row.events, f"this is no event: {line[:60]!r} ({error!r})") from error
    row.last = float(_after(b'"time":', line))
    return row


def _after(key: bytes, line: bytes) -> bytes:
    """The number after a key. Raises ValueError where the line has none."""
    start = line.index(key) + len(key)
    end = line.find(b",", start)
    return line[start:end].rstrip(b"}")


def state(folder: Path, row: Row) -> str:
    """One of running, interrupted, completed, failed; a sweep that was killed is interrupted."""
    return "running" if is_held(folder) else row.stop or "interrupted"


def unsent(folder: Path, events: int) -> int:
    """How many of the journal's events are not in MLflow, as far as is known."""
    try:
        with (folder / "tracking.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            sent = re.findall(rb'\{"sent": (\d+)\}', file.read())
    except OSError:
        return events
    return max(0, events - int(sent[-1])) if sent else events


def folders(root: Path) -> list[Path]:
    """The sweeps under a tracking.dir, by name."""
    try:
        return sorted(path.parent for path in (root / "sweeps").glob(f"*/{journal.FILE}"))
    except OSError as error:
        raise UserError(f"tracking.dir: '{root}' cannot be read ({error.strerror})") from error


def find(root: Path, wanted: str | None, larger: bool) -> Path:
    """The folder of the sweep with this id; else of those with this name, or of all, the one to go on with.

    `wanted` comes from the command line and must not lead anywhere else. With a larger budget a finished sweep may go
    on too.
    """
    ids = [folder.name for folder in folders(root)]
    if wanted in ids:
        return root / "sweeps" / wanted
    if not ids:
        what = "nothing to resume" if wanted is None else f"unknown sweep '{wanted}'"
        raise UserError(f"{what}: there are no sweeps in {root / 'sweeps'} (tracking.dir=DIR: elsewhere)")
    rows = _rows(root)
    if wanted is None:
        return _to_resume(rows, larger)
    if found := [row for row in rows if row[1].name == wanted]:
        return _to_resume(found, larger)
    raise unknown("sweep", wanted, {*ids[-10:], *(row.name for _, row, _ in rows[:10])})


def _rows(root: Path) -> list[tuple[Path, Row, str]]:
    """The sweeps that can be read, each with its state, the latest first."""
    rows: list[tuple[Path, Row, str]] = []
    for folder in folders(root):
        with contextlib.suppress(UserError):  # a damaged one has to be named by its id
            row = read(folder)
            rows.append((folder, row, state(folder, row)))
    return sorted(rows, key=lambda found: found[1].last, reverse=True)


def _to_resume(rows: list[tuple[Path, Row, str]], larger: bool) -> Path:
    """The sweep that ran last among those to go on with."""
    if not rows:
        raise UserError("nothing to resume: no journal can be read; name a sweep by its id")
    idle = [(folder, row, status) for folder, row, status in rows if status != "running"]
    if not idle:
        raise UserError(f"nothing to resume: {rows[0][0].name} is still running")
    interrupted = (folder for folder, _, status in idle if status == "interrupted")
    waiting = (folder for folder, row, _ in idle if not larger and unsent(folder, row.events))
    return next(itertools.chain(interrupted, waiting, [idle[0][0]]))

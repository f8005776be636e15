"""The file that records a sweep: one JSON line an event, appended before anything else learns of it.

If any process dies, the journal says what was proposed, reported and finished. The oracle is rebuilt from it, and
MLflow is brought up to date from it. `events.py` lists the events.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from cnnsweep.errors import UserError
from cnnsweep.formatting import counted
from cnnsweep.journal.events import EpochEnded, Event, SweepStarted, from_json, to_json

FORMAT = 1
FILE = "journal.jsonl"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write where a disk, a quota or a file is at its limit."""
SomeEvent = TypeVar("SomeEvent", bound=Event)


class CannotWriteError(RuntimeError):
    """An event could not be put on disk; the journal ends with the event before it."""


class Log(Protocol):
    """Where a sweep's events go."""

    def now(self) -> float:
        """The time by the clock of its events, in seconds since 1970."""

    def append(self, event: SomeEvent) -> SomeEvent:
        """Record an event and return it with its time."""


class Journal:
    """An append-only file of events; once `append` has returned, no crash of the driver loses the event.

    Each event but an epoch is also flushed to the disk itself, so that a power cut does not lose it either. For an
    epoch that would cost milliseconds, and its checkpoint holds the same numbers.

    Its clock is right when the journal is opened and then measures what passes: it does not jump when the system's
    clock is set, and stands still while the machine is suspended. So neither spends a budget's minutes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            mend(path)
        self._file = path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()

    def append(self, event: SomeEvent) -> SomeEvent:
        """Write an event and return it as it will be read back, with the time added.

        Raises CannotWriteError where the disk does not take it.
        """
        line = json.dumps(to_json(replace(event, time=round(self.now(), 3))), separators=(",", ":"), allow_nan=True)
        try:
            self._write(line.encode() + b"\n", flush=not isinstance(event, EpochEnded))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._size)
            advice = "free some of the disk, then resume" if error.errno in FULL else "repair that, then resume"
            raise CannotWriteError(
                f"{self.path} cannot be written: {error.strerror}; what is there is intact: {advice}"
            ) from error
        return from_json(json.loads(line))  # type: ignore[return-value]

    def close(self) -> None:
        self._file.close()

    def _write(self, line: bytes, flush: bool) -> None:
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if flush:
            os.fsync(self._file.fileno())
        self._size += len(line)


def lines(path: Path) -> list[bytes]:
    """The whole lines of a journal. Raises UserError where it has none or cannot be read."""
    found = _whole_lines(_bytes(path)).split(b"\n")[:-1]
    if not found:
        began = any((path.parent / name).exists() for name in ("trials", "best", "tracking.jsonl"))
        advice = "restore it from a copy" if began else "this sweep never began; delete its folder"
        raise UserError(f"{path} holds no event: {advice}")
    return found


def read(path: Path) -> list[Event]:
    """Return the events of a journal, oldest first; a half-written last line is ignored.

    Raises UserError, naming file and line, where it is damaged elsewhere, and for a newer format.
    """
    return [parse(path, number, line) for number, line in enumerate(lines(path), start=1)]


def parse(path: Path, number: int, line: bytes) -> Event:
    """Return the event of one line. Raises UserError, naming file and line number, where there is none."""
    try:
        values = json.loads(line)
        if not (isinstance(values["event"], str) and isinstance(values["time"], (int, float))):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise damaged(path, number, f"this is no event: {line[:60]!r}") from None
    if number == 1:
        _check_format(path, values["event"], values.get("format"))
    try:
        return from_json(values)
    except ValueError as error:
        raise damaged(path, number, str(error)) from error


def mend(path: Path) -> str | None:
    """Cut off a half-written last line. Returns a sentence that says so, None where nothing was wrong."""
    content = _bytes(path)
    whole = len(_whole_lines(content))
    if whole == len(content):
        return None
    os.truncate(path, whole)
    return f"{path}: the last line was half written ({counted(len(content) - whole, 'byte')}); it was removed"


def damaged(path: Path, line: int, reason: str) -> UserError:
    """The error for a journal that cannot be followed."""
    shorter = ", or cut it off before this line: the sweep then goes on from there" if line > 1 else ""
    return UserError(f"{path}, line {line} is damaged: {reason}\nrestore the file from a copy{shorter}")


def _check_format(path: Path, event: str, version: object) -> None:
    if event != SweepStarted.name or not isinstance(version, int):
        raise damaged(path, 1, "a journal begins with an event `sweep` that names its format")
    if version > FORMAT:
        from cnnsweep import __version__

        raise UserError(
            f"{path} has format {version}, written by a newer cnnsweep; this one ({__version__}) reads format "
            f"{FORMAT}: upgrade it"
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]

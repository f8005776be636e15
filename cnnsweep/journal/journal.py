"""The sweep's own record: one JSON line an event, appended before anything else learns of it.

Whatever process dies, the journal says what was proposed, reported and finished; the oracle is rebuilt from it, and
MLflow is a follower that is brought up to date from it. The events, in the order in which they can come:

    sweep      id, name, format, config, command, facts (git, versions, machine, data), pid, host
    trial      trial, name, values, seed, epochs (the target), proposal (the oracle's own id), config; retry (why it
               is tried again with other values). A promoted or resumed trial starts again with `trial`.
    epoch      trial, epoch, metrics
    end        trial, status, reason, epochs, summary
    interrupt  (a person or a cluster asked the sweep to stop)
    final      trial, metrics (of the test set), folder (of the model)
    gallery    trial, folder (of the pictures)
    stop       status (completed, interrupted, failed), reason, summary
    resume     budget, executor (what holds from here on), command, pid, host
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError

FORMAT = 1
FILE = "journal.jsonl"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write fails with where a disk, a quota or a file is at its limit."""


class CannotWriteError(RuntimeError):
    """An event could not be put on disk; the journal ends with the event before it."""


class Journal:
    """An append-only file of events; `append` returns once no crash of ours can lose the event.

    Each event is also on the disk itself before the next step is taken, so that a power cut cannot lose it either,
    but for an epoch: that would cost milliseconds, and its checkpoint holds the same numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            mend(path)
        self._file = path.open("ab", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        """Bytes of all events so far."""

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event and return it as it will be read back, with the time added (seconds since 1970).

        Raises CannotWriteError where the disk does not take it.
        """
        record = {"event": event, "time": round(time.time(), 3), **fields}
        line = json.dumps(record, separators=(",", ":"), allow_nan=True)
        try:
            self._write(line.encode() + b"\n", lasting=event != "epoch")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self.size)
            raise CannotWriteError(f"{self.path} cannot be written: {error.strerror}") from error
        return json.loads(line)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: bytes, lasting: bool) -> None:
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if lasting:
            os.fsync(self._file.fileno())
        self.size += len(line)


def read(path: Path) -> list[Mapping[str, Any]]:
    """Return the events of a journal, oldest first; a last line that is half written is left out.

    Raises UserError, naming file and line, where it is damaged elsewhere, and for a newer format.
    """
    return parse(path, _whole_lines(_bytes(path)))


def mend(path: Path) -> str | None:
    """Cut off a half-written last line. Returns a sentence that says so, None where nothing was wrong."""
    content = _bytes(path)
    whole = len(_whole_lines(content))
    if whole == len(content):
        return None
    os.truncate(path, whole)
    return f"{path}: the last line was half written ({len(content) - whole} bytes); it was removed"


def parse(path: Path, lines: bytes, first: int = 1) -> list[Mapping[str, Any]]:
    """Return the events in some whole lines of a journal, of which `first` is the number of the first."""
    events = []
    for number, line in enumerate(lines.split(b"\n")[:-1], start=first):
        try:
            event = json.loads(line)
            if not (isinstance(event["event"], str) and isinstance(event["time"], (int, float))):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise damaged(path, number, f"this is no event: {line[:60]!r}") from None
        if number == 1:
            _check_head(path, event)
        events.append(event)
    if first == 1 and not events:
        raise UserError(f"{path} holds no event: this sweep never began; delete its folder")
    return events


def damaged(path: Path, line: int, what: str) -> UserError:
    """The error for a journal that cannot be followed."""
    return UserError(
        f"{path}, line {line} is damaged: {what}\n"
        "restore the file from a copy, or cut it off before this line: the sweep then goes on from there"
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _check_head(path: Path, event: Mapping[str, Any]) -> None:
    version = event.get("format")
    if event["event"] != "sweep" or not isinstance(version, int):
        raise damaged(path, 1, "a journal begins with an event `sweep` that names its format")
    if version > FORMAT:
        from cnnsweep import __version__

        raise UserError(
            f"{path} has format {version}, written by a newer cnnsweep; this one ({__version__}) reads format "
            f"{FORMAT}: upgrade it"
        )

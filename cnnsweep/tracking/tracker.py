"""MLflow as a follower of the journal: each event is sent in order, at least once, and changes the store once.

A background thread does the sending, so that a slow or dead server never holds up training. What makes sending
twice harmless: metrics carry the event's own time, so MLflow drops a repeated point; a run is looked up by its
tags before it is created where an earlier attempt may have created it; params and tags are the same each time.
How far the sending has come, and which run belongs to which trial, stands in `tracking.jsonl` in the sweep's
folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.run_updates import Event, Records, Write, merge
from cnnsweep.tracking.run_writer import Runs, is_lasting
from cnnsweep.tracking.store import open_store

__all__ = ["Follower", "NullTracker", "Tracker", "open_store"]

LINGER = 0.5
"""Seconds for which events are gathered before they are sent: fewer, larger requests."""
BATCH = 200
"""So many are enough not to wait for more."""
MOST = 5000
"""Events sent together where the store is slower than the sweep: a trial's epochs that meet cost one call, not five."""
BACKOFF = (1, 2, 4, 8, 15, 30)
PATIENCE = 8
"""Attempts at one request that a server, though it answers, refuses with an error of its own."""
_log = logging.getLogger("cnnsweep.tracking")


class Follower(Protocol):
    """What the sweep needs of a tracker."""

    def log(self, event: Event) -> None: ...
    def flush(self, timeout: float) -> int: ...
    def close(self, timeout: float) -> int: ...


class NullTracker:
    """Follows nothing."""

    trouble: str | None = None

    def __init__(self) -> None:
        self.runs: dict[int | None, str] = {}

    def log(self, event: Event) -> None:
        """Forget the event."""

    def catch_up(self, events: Iterable[Event]) -> None:
        """Forget the events."""

    def flush(self, timeout: float = 0) -> int:  # noqa: ARG002
        return 0

    def close(self, timeout: float = 0) -> int:  # noqa: ARG002
        return 0


class Progress:
    """How many events the store has, and the run of each trial; a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.sent = 0
        self.runs: dict[int | None, str] = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            self._take(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._file.write(b"\n")  # a last line that was cut off by a crash ends here

    @classmethod
    def known(cls, path: Path) -> dict[int | None, str]:
        """The runs that a progress file names; the file is only read."""
        progress = cls.__new__(cls)
        progress.sent, progress.runs = 0, {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            progress._take(line)
        return progress.runs

    def note_sent(self, sent: int) -> None:
        self.sent = sent
        self._write({"sent": sent})

    def note_run(self, trial: int | None, run: str) -> None:
        self.runs[trial] = run
        self._write({"trial": trial, "run": run})

    def forget(self) -> None:
        self.sent = 0
        self.runs.clear()
        self._write({"forget": True})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a full disk: what is not noted is sent again, which changes nothing
            self._file.write(json.dumps(line).encode() + b"\n")

    def _take(self, line: bytes) -> None:
        try:
            note = json.loads(line)
        except ValueError:
            return
        if "sent" in note:
            self.sent = note["sent"]
        elif "run" in note:
            self.runs[note["trial"]] = note["run"]
        elif "forget" in note:
            self.sent, self.runs = 0, {}


class Tracker:
    """Sends a sweep's events to MLflow. After a restart, `catch_up` with the whole journal comes first."""

    def __init__(self, uri: str, experiment: str, folder: Path, tags: Mapping[str, Any]) -> None:
        self._place = redact(uri)
        self._progress = Progress(folder / "tracking.jsonl")
        self._records = Records(folder, tags)
        self._sink = Runs(uri, experiment, self._progress)
        self._queue: deque[Event] = deque()
        self._taken = 0
        self._wake = threading.Condition()
        self._hurry = self._closing = False
        self._down: str | None = None
        self._skipped: list[str] = []
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    @property
    def runs(self) -> dict[int | None, str]:
        """The run id of each trial's number, and of the sweep under None, as far as they are created."""
        return dict(self._progress.runs)

    @property
    def trouble(self) -> str | None:
        """One line for the screen while the store does not answer or something could not be logged."""
        if self._down:
            return f"MLflow does not answer ({self._down}): {len(self._queue)} events wait, training goes on"
        if self._skipped:
            return f"MLflow: {len(self._skipped)} entries could not be logged ({self._skipped[-1]})"
        return None

    def log(self, event: Event) -> None:
        """Take an event, in the journal's order, and return at once."""
        with self._wake:
            self._queue.append(event)
            self._wake.notify_all()
        if self._thread.ident is None:
            self._thread.start()

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take a journal from its beginning; what the store has already is not sent again."""
        for event in events:
            self.log(event)

    def flush(self, timeout: float) -> int:
        """Wait for the events to be sent, `timeout` seconds at most; return how many still wait."""
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._queue, timeout)
            self._hurry = False
            return len(self._queue)

    def close(self, timeout: float = 10) -> int:
        """Flush, then stop the thread; what was not sent waits in the journal for the next `catch_up`."""
        left = self.flush(timeout)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._progress.close()
        return left

    def _work(self) -> None:
        if not self._opened():
            return
        while batch := self._gather():
            groups = merge(write for event in batch for write in self._writes(event))
            for group in groups:
                if self._closing or not self._deliver(group):
                    return
            if self._taken > self._progress.sent:
                self._progress.note_sent(self._taken)
            with self._wake:
                for _ in batch:
                    self._queue.popleft()
                self._wake.notify_all()

    def _gather(self) -> list[Event]:
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._closing)
            self._wake.wait_for(lambda: self._hurry or self._closing or len(self._queue) >= BATCH, LINGER)
            return [] if self._closing else list(islice(self._queue, MOST))

    def _writes(self, event: Event) -> list[Write]:
        self._taken += 1
        try:
            writes = self._records.writes(event)
        except Exception as error:
            self._skip(f"event {self._taken}", error)
            return []
        return writes if self._taken > self._progress.sent else []

    def _opened(self) -> bool:
        return self._until_done(self._sink.open, lambda _: False)

    def _deliver(self, group: list[Write]) -> bool:
        """Send one run's writes in one go; False where the tracker was closed before they arrived."""
        whole = reduce(Write.then, group)
        given_up: list[Exception] = []

        def give_up(error: Exception) -> bool:
            given_up.append(error)
            return True

        if not self._until_done(lambda: self._sink.send(whole), give_up):
            return False
        if given_up and len(group) > 1:  # find the one that is to blame
            return all(self._deliver([write]) for write in group)
        if given_up:
            self._skip("the sweep" if whole.trial is None else f"trial {whole.trial}", given_up[0])
        return True

    def _until_done(self, action: Callable[[], None], give_up: Callable[[Exception], bool]) -> bool:
        """Repeat `action` until it works or is hopeless; False where the tracker was closed before."""
        for attempt in count():
            try:
                action()
            except Exception as error:  # whatever goes wrong with tracking must not end the sweep
                hopeless = is_lasting(error) or (attempt >= PATIENCE and self._sink.answers())
                if hopeless and give_up(error):
                    break
                _log.warning("attempt %d: %s", attempt + 1, brief(error))
                self._down = brief(error)
                self._sink.doubtful = True
                if self._pause(attempt):
                    return False
            else:
                break
        self._down = None
        return True

    def _pause(self, attempt: int) -> bool:
        """Wait before another attempt, less while someone waits in `flush`; True where closed."""
        with self._wake:
            hurried = self._hurry
            seconds = 1 if hurried else BACKOFF[min(attempt, len(BACKOFF) - 1)]
            self._wake.wait_for(lambda: self._closing or (self._hurry and not hurried), seconds)
            return self._closing

    def _skip(self, what: str, error: Exception) -> None:
        self._skipped.append(f"{what}: {brief(error)}")
        _log.warning("not logged: %s", self._skipped[-1])


def brief(error: Exception) -> str:
    """Return an error's first line, without credentials, short enough for the screen."""
    told = redact(str(error)).strip().splitlines()
    lines = [line for line in told if not line.startswith("(raised as a result")] or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 100 else f"{lines[0][:99]}…"

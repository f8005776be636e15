"""Logging to MLflow by following the journal: each event is sent in order, at least once, and counts once.

A background thread sends the events, so that a slow or dead server never delays training. Sending twice is harmless:
metrics carry the event's own time, so MLflow drops a repeated point; a run is looked up by its tags before it is
created where an earlier attempt may have created it; params and tags are the same each time. `tracking.jsonl` in the
sweep's folder records how many events were sent, and the run of each trial.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import UserDict, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count, islice
from pathlib import Path

from cnnsweep.formatting import counted
from cnnsweep.journal.events import Event
from cnnsweep.tracking.credentials import brief
from cnnsweep.tracking.run_updates import RunUpdate, RunUpdates, by_run, combine
from cnnsweep.tracking.run_writer import RunWriter, is_lasting

FILE = "tracking.jsonl"
GATHER_SECONDS, ENOUGH, MOST = 0.5, 200, 5000
"""Events are gathered for so long or until there are enough, and so many at most are sent together: fewer requests."""
BACKOFF = (1, 2, 4, 8, 15, 30)
"""Seconds between attempts."""
PATIENCE = 8
"""Attempts at one request that a server, though it answers, refuses with an error of its own."""
_log = logging.getLogger("cnnsweep.tracking")


class _ClosedError(Exception):
    pass


class Progress(UserDict[int | None, str]):
    """The run id of each trial, the sweep's under None, and how many events were sent; in a file that only grows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sent, self.data = read_progress(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._file.write(b"\n")  # a last line that was cut off by a crash ends here

    def note_sent(self, sent: int) -> None:
        self.sent = sent
        self._write({"sent": sent})

    def __setitem__(self, trial: int | None, run: str) -> None:
        self.data[trial] = run
        self._write({"trial": trial, "run": run})

    def clear(self) -> None:
        self.sent, self.data = 0, {}
        self._write({"forget": True})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # a full disk: events of which this is not noted are sent again
            self._file.write(json.dumps(line).encode() + b"\n")


def read_progress(path: Path) -> tuple[int, dict[int | None, str]]:
    """Return how many events were sent, and the run ids by trial, as a progress file has them."""
    sent: int = 0
    runs: dict[int | None, str] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if "sent" in note:
            sent = note["sent"]
        elif "run" in note:
            runs[note["trial"]] = note["run"]
        elif "forget" in note:
            sent, runs = 0, {}
    return sent, runs


class Tracker:
    """Sends a sweep's events to MLflow. After a restart, `catch_up` with the whole journal comes first."""

    def __init__(self, uri: str, experiment: str, folder: Path, tags: Mapping[str, object]) -> None:
        self._progress = Progress(folder / FILE)
        self._updates = RunUpdates(folder, tags)
        self._writer = RunWriter(uri, experiment, self._progress)
        self._queue: deque[Event] = deque()
        self._taken = self._seen = 0
        self._wake = threading.Condition()
        self._hurry = self._closing = False
        self._down: str | None = None
        self._skipped: list[str] = []
        self._missing = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    @property
    def runs(self) -> dict[int | None, str]:
        """The run id of each trial's number, and of the sweep under None, as far as they are created."""
        return dict(self._progress)

    @property
    def trouble(self) -> str | None:
        """One line for the screen while the store does not answer or something could not be logged."""
        if self._down:
            return f"MLflow does not answer ({self._down}): {counted(len(self._queue), 'event')} in the journal for it"
        if self._skipped:
            return f"MLflow: {len(self._skipped)} entries could not be logged ({self._skipped[-1]})"
        return None

    def log(self, event: Event) -> None:
        """Take an event, in the journal's order, and return at once."""
        with self._wake:
            self._queue.append(event)
            self._taken += 1
            self._wake.notify_all()
        if self._thread.ident is None:
            self._thread.start()

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take a journal from its beginning; events that the store has already are not sent again."""
        for event in events:
            self.log(event)

    def flush(self, timeout: float) -> int:
        """Wait for the events to be sent, `timeout` seconds at most; return how many the store has not got.

        These are all since the first that was skipped, unless another attempt would fail as well: a restart sends them.
        A Ctrl-C ends the waiting, and nothing else: the sweep has ended.
        """
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            with contextlib.suppress(KeyboardInterrupt):
                self._wake.wait_for(lambda: not self._queue, timeout)
            self._hurry = False
            return max(0, self._taken - self._progress.sent)

    def close(self, timeout: float = 10) -> int:
        """Flush, then stop the thread; events that were not sent wait in the journal for the next `catch_up`."""
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
        with contextlib.suppress(_ClosedError):
            self._attempt(self._writer.open, give_up=False)
            while True:
                batch = self._gather()
                for updates in by_run(update for event in batch for update in self._updates_of(event)):
                    self._deliver(updates)
                if self._seen > self._progress.sent and not self._missing:  # else all are sent again after a restart
                    self._progress.note_sent(self._seen)
                with self._wake:
                    for _ in batch:
                        self._queue.popleft()
                    self._wake.notify_all()

    def _gather(self) -> list[Event]:
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._closing)
            self._wake.wait_for(lambda: self._hurry or self._closing or len(self._queue) >= ENOUGH, GATHER_SECONDS)
            self._expect_open()
            return list(islice(self._queue, MOST))

    def _updates_of(self, event: Event) -> list[RunUpdate]:
        self._seen += 1
        try:
            updates = list(self._updates.of(event))
        except Exception as error:
            self._skip(f"event {self._seen}", error)
            return []
        return updates if self._seen > self._progress.sent else []

    def _deliver(self, updates: list[RunUpdate]) -> None:
        """Send one run's updates in one go, or one by one where that fails; skip the one that is to blame."""
        whole = combine(updates)
        error = self._attempt(lambda: self._writer.send(whole))
        if error and len(updates) > 1:
            for update in updates:
                self._deliver([update])
        elif error:
            self._missing = self._missing or whole.trial not in self._progress or not is_lasting(error)
            self._skip("the sweep" if whole.trial is None else f"trial {whole.trial}", error)

    def _attempt(self, action: Callable[[], None], give_up: bool = True) -> Exception | None:
        """Repeat `action` until it works; where it is hopeless and may be given up, return its error."""
        found: Exception | None = None
        for attempt in count():
            self._expect_open()
            try:
                action()
                break
            except Exception as error:  # a fault of tracking must not end the sweep
                hopeless = give_up and (is_lasting(error) or attempt >= PATIENCE)
                problem = self._writer.problem() if hopeless else error  # an experiment may be restored
                if problem is None:
                    found = error
                    break
                _log.warning("attempt %d: %s", attempt + 1, brief(problem))
                self._down = brief(problem, 100)
                self._writer.doubtful = True
            self._pause(attempt)
        self._down = None
        return found

    def _pause(self, attempt: int) -> None:
        """Wait before another attempt, less while `flush` waits."""
        with self._wake:
            hurried = self._hurry
            seconds = 1 if hurried else BACKOFF[min(attempt, len(BACKOFF) - 1)]
            self._wake.wait_for(lambda: self._closing or (self._hurry and not hurried), seconds)

    def _expect_open(self) -> None:
        if self._closing:
            raise _ClosedError

    def _skip(self, entry: str, error: Exception) -> None:
        self._skipped.append(f"{entry}: {brief(error, 100)}")
        _log.warning("not logged: %s", self._skipped[-1])

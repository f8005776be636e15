"""Worker processes as the driver sees them, and the starting of them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import queue
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection, spawn
from multiprocessing.process import BaseProcess

import psutil

from cnnsweep.executors.worker import Setup, ensure_fork_server, exit_reason, fork_server_end, kernel_kills, work

GROWTH = 2**30
"""Bytes that a worker may hold beyond those after its first job. Frameworks keep some of the memory of each trial."""
_NAME = "cnnsweep-worker"
_server_backend: str | None = None


class WorkerProcess:
    """A process that may still be starting. Messages sent into its pipe before then wait there."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.pipe, self.theirs = connection.Pipe()
        self.process: BaseProcess | None = None
        self.busy, self.jobs = False, 0
        self.reason: str | None = None
        """Why it was killed or could not start: reported in place of the signal."""
        self._killed = False
        self._lock = threading.Lock()
        self._at_first: int | None = None  # bytes that it held after its first job
        self._kills = kernel_kills()

    def started(self, process: BaseProcess) -> None:
        with self._lock:
            self.process = process
            if self._killed:
                process.kill()

    @property
    def began(self) -> bool:
        """Whether it has started, or could not be."""
        return self.process is not None or self.reason is not None

    def kill(self, reason: str) -> None:
        """Kill the process now, or as soon as it has started."""
        with self._lock:
            self._killed, self.reason = True, reason
            if self.process is not None:
                self.process.kill()

    def dead(self) -> bool:
        with self._lock:
            return self.reason is not None or (self.process is not None and not self.process.is_alive())

    def has_grown(self) -> bool:
        """Whether it holds far more memory than after its first job; to be asked after each job."""
        if self.process is None:
            return False
        try:
            memory = psutil.Process(self.process.pid).memory_info()
        except psutil.Error:  # it has died
            return False
        held = memory.rss - (memory.shared if psutil.LINUX else 0)  # pages of files that it reads do not count
        if self._at_first is None:
            self._at_first = held
        return bool(held - self._at_first > GROWTH)

    def answer(self, keep_on: bool) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile: `wait` reports that
            self.pipe.send(keep_on)

    def end(self, grace: float = 5.0) -> str:
        """Wait for the process to end, kill it where it does not, and return why it ended."""
        self.pipe.close()
        with self._lock:
            process, self.process = self.process, None
            self._killed = True
            if process is None:
                return self.reason or "its worker process did not start"
            try:
                process.join(max(0.0, grace))
            finally:  # after a Ctrl-C too: Python waits at its end for processes that live
                if process.is_alive():
                    process.kill()
            process.join()
            code = process.exitcode
            process.close()
        return self.reason or exit_reason(code, kernel_kills() > self._kills)


class Launcher:
    """Starts workers, one after another, on a thread: the first must wait for the fork server's imports."""

    def __init__(self, backend: str, log: str, modules: Sequence[str]) -> None:
        """`modules` are imported before workers are forked, so they must not start threads or devices."""
        global _server_backend
        # One fork server a driver: workers of a second backend are started from scratch.
        self.forks = _server_backend in (None, backend) and "forkserver" in multiprocessing.get_all_start_methods()
        self._ensure_server = functools.partial(ensure_fork_server, backend, log, modules)
        if self.forks:
            _server_backend = backend
            self._ensure_server()
        self._queue: queue.SimpleQueue[tuple[WorkerProcess, WorkerProcess | None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="cnnsweep-launcher", daemon=True)
        self._thread.start()

    def launch(self, setup: Setup, replaced: WorkerProcess | None = None) -> WorkerProcess:
        """Return a process at once, to be started; `replaced` is ended, first where both would share a GPU."""
        new = WorkerProcess(setup)
        self._queue.put((new, replaced))
        return new

    def close(self) -> None:
        """Start no further process. One that is just starting is killed as soon as it has."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(0.5)  # longer only while the fork server still imports: that need not be waited for

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            new, replaced = task
            if replaced is not None and replaced.setup.gpu:
                replaced.end()
            self._start(new)
            if replaced is not None:
                replaced.end()
            if self._closed:
                new.end(0)

    def _start(self, new: WorkerProcess) -> None:
        context = multiprocessing.get_context("forkserver") if self.forks else multiprocessing.get_context("spawn")
        try:
            if self._closed:
                return
            if self.forks:
                self._ensure_server()
            process = context.Process(target=work, args=(new.theirs, new.setup), name=_NAME)
            with _without_main_module():
                process.start()
            new.started(process)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            if self.forks and isinstance(error, (EOFError, ConnectionError)) and (end := fork_server_end()):
                fault = f"the one that they are forked from was lost ({end})"
            new.reason = f"no worker process could be started: {fault}"
        finally:
            new.theirs.close()


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep workers from importing the driver's main module: a script without a main guard would start them again."""
    prepare = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, object]:
        main = ("init_main_from_name", "init_main_from_path") if name == _NAME else ()
        return {key: value for key, value in prepare(name).items() if key not in main}

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare

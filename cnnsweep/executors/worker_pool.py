"""The driver's side of worker processes: starting them without waiting, and telling how they ended."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, spawn
from multiprocessing.connection import Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cnnsweep.executors.worker import SERVER_VARIABLE, Setup, work

_HINTS = {
    "SIGKILL": ": often the kernel's out-of-memory killer",
    "SIGSEGV": ": native code crashed",
    "SIGABRT": ": native code gave up",
    "SIGBUS": ": native code crashed, or shared memory is full",
}
_GRACE = 5.0
_NAME = "cnnsweep-worker"
_environment_lock = threading.Lock()
_server_backend: str | None = None


class Worker:
    """A process that may still be starting. What is sent into its pipe before waits there for it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.pipe, self.theirs = Pipe()
        self.process: BaseProcess | None = None
        self.busy = False
        self.jobs = 0
        self.verdict: str | None = None
        """Why it was killed or could not start; told instead of the signal."""
        self._doomed = False
        self._lock = threading.Lock()
        self._kills = kernel_kills()

    def started(self, process: BaseProcess) -> None:
        """Take over the running process."""
        with self._lock:
            self.process = process
            if self._doomed:
                process.kill()

    def kill(self) -> None:
        """Kill the process now, or as soon as it has started."""
        with self._lock:
            self._doomed = True
            if self.process is not None:
                self.process.kill()

    def dead(self) -> bool:
        """Whether the process has ended, in which case a job sent to it would be lost."""
        with self._lock:
            return self.verdict is not None or (self.process is not None and not self.process.is_alive())

    def asker(self) -> Callable[[bool], None]:
        """Return the function that answers the report just received."""
        unanswered = [True]

        def answer(keep_on: bool) -> None:
            if not unanswered:
                raise RuntimeError("this report was answered already")
            unanswered.clear()
            with contextlib.suppress(OSError):  # it died meanwhile: `wait` tells
                self.pipe.send(bool(keep_on))

        return answer

    def end(self, grace: float = _GRACE) -> str:
        """Wait for the process to end, kill it where it does not, and say how it ended."""
        self.pipe.close()
        with self._lock:
            process, self.process = self.process, None
            self._doomed = True
            if process is None:
                return self.verdict or "its worker process did not start"
            process.join(grace)
            if process.is_alive():
                process.kill()
                process.join()
            code = process.exitcode
            process.close()
        return self.verdict or how_it_ended(code, kernel_kills() > self._kills)


def kernel_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, in this container or on this machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in Path(path).read_text().splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def how_it_ended(code: int | None, memory: bool = False) -> str:
    """Say what a process' exit code means; `memory`: the kernel has just killed a process for want of it.

    >>> how_it_ended(3), how_it_ended(-9)
    ('exited with code 3', "killed by SIGKILL (signal 9): often the kernel's out-of-memory killer")
    """
    if code is None or code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"
    if memory and name == "SIGKILL":
        return "killed by SIGKILL (signal 9): out of memory, the kernel counts one more such kill"
    return f"killed by {name} (signal {-code}){_HINTS.get(name, '')}"


class Launcher:
    """Starts workers, one after another, on a thread: the first must wait for the fork server's imports."""

    def __init__(self, backend: str, log: str, modules: Sequence[str]) -> None:
        """`modules` are imported before workers are forked, so they must not start threads or devices."""
        global _server_backend
        self._settings = {"log": log, "modules": [*modules]}
        self._backend = backend
        # One fork server a driver: workers of a second backend are started from scratch.
        fits = _server_backend in (None, backend)
        self.forks = fits and "forkserver" in multiprocessing.get_all_start_methods()
        if self.forks:
            _server_backend = backend
            forkserver.set_forkserver_preload(["cnnsweep.executors.preload"])
            self._ensure_server()
        self._queue: queue.SimpleQueue[tuple[Worker, Worker | None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="cnnsweep-launcher", daemon=True)
        self._thread.start()

    def launch(self, setup: Setup, replaced: Worker | None = None) -> Worker:
        """Return a worker at once, to be started; `replaced` is ended, first where both would share a GPU."""
        worker = Worker(setup)
        self._queue.put((worker, replaced))
        return worker

    def close(self) -> None:
        """Start nothing more. A worker that is just starting is killed as soon as it has."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(0.5)  # longer only while the fork server still imports: that need not be waited for

    def _serve(self) -> None:
        while (task := self._queue.get()) is not None:
            worker, replaced = task
            if replaced is not None and replaced.setup.gpu:
                replaced.end()
            self._start(worker)
            if replaced is not None:
                replaced.end()
            if self._closed:
                worker.end(0)

    def _start(self, worker: Worker) -> None:
        context: Any = multiprocessing.get_context("forkserver" if self.forks else "spawn")
        try:
            if self._closed:
                return
            if self.forks:
                self._ensure_server()
            process = context.Process(target=work, args=(worker.theirs, worker.setup), name=_NAME)
            with _main_left_alone():
                process.start()
            worker.started(process)
        except Exception as error:
            worker.verdict = f"no worker process could be started: {type(error).__name__}: {error}"
        finally:
            worker.theirs.close()

    def _ensure_server(self) -> None:
        # The kernel watches the thread that starts the server, and only the main one is sure to outlive it.
        main = threading.current_thread() is threading.main_thread()
        settings = json.dumps({**self._settings, "driver": os.getpid() if main else None})
        with _environment({SERVER_VARIABLE: settings, **_server_environment(self._backend)}):
            forkserver.ensure_running()


def _server_environment(backend: str) -> dict[str, str]:
    """The environment in which Keras is imported. OpenBLAS' threads would not survive a fork: it gets one."""
    root = Path(__file__).parents[2]
    checkout = "" if root.name in ("site-packages", "dist-packages") else str(root)
    return {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [checkout, os.environ.get("PYTHONPATH")])),
    }


@contextlib.contextmanager
def _main_left_alone() -> Iterator[None]:
    """Keep workers from importing the driver's main module: a script without a main guard would start them again."""
    prepare = spawn.get_preparation_data

    def without_main(name: str) -> dict[str, Any]:
        data: dict[str, Any] = dict(prepare(name))
        if name == _NAME:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    with _environment_lock:
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

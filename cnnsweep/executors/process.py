"""The process executor: trials in worker processes, each pinned to a GPU or a core. The default."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import connection, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ExecutorConfig
from cnnsweep.config.validation import Int
from cnnsweep.executors.base import Event, Executor, Job, answer_once
from cnnsweep.executors.devices import chosen_gpus, cores
from cnnsweep.executors.worker import Setup, ensure_fork_server, exit_reason, kernel_kills, work

_STARTING = 0.2  # seconds between looks at workers that have no process to wait for yet
_NAME = "cnnsweep-worker"
_server_backend: str | None = None


class ProcessConfig(ExecutorConfig):
    """The config of the process executor; conf/executor/auto.yaml explains the keys."""

    device: Literal["auto", "gpu", "cpu"]
    gpus: Int | None = Field(ge=1)
    workers_per_gpu: Int = Field(ge=1)
    workers: Int | None = Field(ge=1)
    threads: Int | None = Field(ge=1)
    trials_per_worker: Int | None = Field(ge=1)


@configured_by(ProcessConfig)
class ProcessExecutor(Executor):
    """One process for each worker; see conf/executor/auto.yaml for the arguments.

    `preload` names modules that jobs need, to be imported once, before workers are forked. The output of workers goes
    to `log`, if there is one. Workers start in the background. Raises UserError for a GPU that is not there.
    """

    def __init__(
        self,
        device: str = "auto",
        gpus: int | None = None,
        workers_per_gpu: int = 1,
        workers: int | None = None,
        threads: int | None = None,
        trials_per_worker: int | None = None,
        backend: str = "tensorflow",
        log: Path | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        output = os.path.abspath(log) if log else os.devnull
        visible = [gpu.visible for gpu in chosen_gpus(device, gpus, backend)]
        places = _gpu_workers(visible, workers_per_gpu) or {f"cpu{n}": "" for n in range(workers or cores())}
        # JAX and PyTorch look for devices while they are imported, so each worker must do that for itself.
        self._launcher = Launcher(backend, output, ["keras", *preload] if backend == "tensorflow" else [])
        if not visible:
            threads = threads or max(1, cores() // len(places))
        # Fresh processes are cheap only where they are forked with Keras loaded and have no device to open.
        fresh = backend == "tensorflow" and self._launcher.forks and not visible
        self._trials_per_worker = trials_per_worker or (1 if fresh else 20)
        self._processes: dict[str, WorkerProcess] = {}
        for worker, place in places.items():
            setup = Setup(backend, place, workers_per_gpu > 1, threads, output, self._launcher.forks)
            self._processes[worker] = self._launcher.launch(setup)
        self._events: deque[Event] = deque()
        self._closed = False
        atexit.register(self.close)

    @property
    def workers(self) -> Sequence[str]:
        return tuple(self._processes)

    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Start a job on a free worker; returns at once. Raises where the job cannot be pickled."""
        process = self._processes[worker]
        if self._closed or process.busy:
            raise RuntimeError(f"worker {worker} is {'closed' if self._closed else 'busy'}")
        if process.dead():
            process = self._replace(worker)
        with contextlib.suppress(ConnectionError):  # it is dead already: `wait` reports that
            process.pipe.send((job, argument))
        process.busy = True

    def wait(self, timeout: float | None = None) -> Event | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left is None and not any(process.busy for process in self._processes.values()):
                return None
            self._collect(left)
            if left == 0:
                break
        return self._events.popleft() if self._events else None

    def kill(self, worker: str, reason: str) -> None:
        """Kill the worker's process: its job is lost for this reason, unless it has just ended by itself."""
        if self._processes[worker].busy:
            self._processes[worker].kill(reason)

    def close(self) -> None:
        """Let idle workers end and kill the others after a second."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for process in self._processes.values():
            process.pipe.close()
        self._launcher.close()
        deadline = time.monotonic() + 1.0
        for process in self._processes.values():
            process.end(deadline - time.monotonic())
        self._events.clear()

    def _collect(self, timeout: float | None) -> None:
        """Take one message from each worker that has one: that keeps the order fair."""
        busy = {worker: process for worker, process in self._processes.items() if process.busy}
        waiting: dict[connection.Connection | int, str] = {process.pipe: worker for worker, process in busy.items()}
        waiting |= {child.sentinel: worker for worker, process in busy.items() if (child := process.process)}
        if len(waiting) < 2 * len(busy):
            timeout = _STARTING if timeout is None else min(timeout, _STARTING)
        if not busy:
            time.sleep(timeout or 0)
            return
        ready = connection.wait(list(waiting), timeout)
        for worker in dict.fromkeys(worker for item, worker in waiting.items() if item in ready):
            self._receive(worker, self._processes[worker])

    def _receive(self, worker: str, process: WorkerProcess) -> None:
        try:
            if not process.pipe.poll():  # the process ended, but a child of its own still holds the pipe
                raise EOFError
            kind, value = process.pipe.recv()
        except (EOFError, OSError):
            self._events.append(Event(worker, "lost", process.end()))
            self._processes[worker] = self._launcher.launch(process.setup)
        except Exception as error:  # its message cannot be unpickled here
            self.kill(worker, f"{type(error).__name__}: {error}")
        else:
            if kind == "report":
                self._events.append(Event(worker, kind, value, answer_once(process.answer)))
                return
            process.busy = False
            process.jobs += 1
            if kind == "lost" or process.jobs >= self._trials_per_worker:
                self._replace(worker)
            self._events.append(Event(worker, kind, value))

    def _replace(self, worker: str) -> WorkerProcess:
        old = self._processes[worker]
        old.pipe.close()  # tells an idle worker to end
        self._processes[worker] = new = self._launcher.launch(old.setup, replaced=old)
        return new


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
        self._kills = kernel_kills()

    def started(self, process: BaseProcess) -> None:
        with self._lock:
            self.process = process
            if self._killed:
                process.kill()

    def kill(self, reason: str) -> None:
        """Kill the process now, or as soon as it has started."""
        with self._lock:
            self._killed, self.reason = True, reason
            if self.process is not None:
                self.process.kill()

    def dead(self) -> bool:
        with self._lock:
            return self.reason is not None or (self.process is not None and not self.process.is_alive())

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
            process.join(max(0.0, grace))
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
            new.reason = f"no worker process could be started: {type(error).__name__}: {error}"
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


def _gpu_workers(visible: Sequence[str], per_gpu: int) -> dict[str, str]:
    """Worker names and CUDA_VISIBLE_DEVICES in each; every GPU gets a worker before any gets a second."""
    return {
        f"gpu{number}" if per_gpu == 1 else f"gpu{number}.{share}": gpu
        for share in range(per_gpu)
        for number, gpu in enumerate(visible)
    }

"""Trials in worker processes, each pinned to a GPU or a core: the default executor."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError, unknown
from cnnsweep.executors.base import Event, Job
from cnnsweep.executors.devices import Gpu, chosen_gpus, cores
from cnnsweep.executors.worker import Setup
from cnnsweep.executors.worker_pool import Launcher, Worker

BACKENDS = ("tensorflow", "jax", "torch")
_STARTING = 0.2
"""Seconds between looks at workers that are still starting and so have no process to wait for."""


class ProcessExecutor:
    """One process for each worker; see conf/executor/auto.yaml for the arguments.

    `preload` names modules that jobs need, to be imported once, before workers are forked. What workers
    write goes to `log`, else nowhere. Raises UserError for a GPU that is not there. Workers start meanwhile.
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
        _check(backend, workers_per_gpu, workers, threads, trials_per_worker)
        output = os.path.abspath(log) if log else os.devnull
        gpu_workers = _gpu_workers(chosen_gpus(device, gpus, backend), workers_per_gpu)
        # JAX and PyTorch look for devices while they are imported, so each worker must do that for itself.
        self._launcher = Launcher(backend, output, ["keras", *preload] if backend == "tensorflow" else [])
        if gpu_workers:
            places, shared = gpu_workers, workers_per_gpu > 1
        else:
            places, shared = {f"cpu{number}": "" for number in range(workers or cores())}, False
            threads = threads or max(1, cores() // len(places))
        # Fresh processes are cheap only where they are forked with Keras loaded and have no device to open.
        fresh = backend == "tensorflow" and self._launcher.forks and not gpu_workers
        self._trials = trials_per_worker or (1 if fresh else 20)
        self._processes: dict[str, Worker] = {}
        for worker, place in places.items():
            environment = _environment(place, threads, shared)
            setup = Setup(backend, environment, threads, bool(place), output, self._launcher.forks)
            self._processes[worker] = self._launcher.launch(setup)
        self.workers: tuple[str, ...] = tuple(places)
        self._events: deque[Event] = deque()
        self._closed = False
        atexit.register(self.close)

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        """Start a job, a function importable by name, on a free worker; returns at once."""
        if self._closed or self._processes[worker].busy:
            raise RuntimeError(f"worker {worker} is {'closed' if self._closed else 'busy'}")
        if self._processes[worker].dead():
            self._replace(worker)
        process = self._processes[worker]
        with contextlib.suppress(ConnectionError):  # it is dead already: `wait` tells
            process.pipe.send((job, argument))
        process.busy = True

    def wait(self, timeout: float | None = None) -> Event | None:
        """Return the next event, oldest first; None after `timeout` seconds, or if none can come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left is None and not any(process.busy for process in self._processes.values()):
                return None
            self._collect(left)
            if left == 0 and not self._events:
                return None
        return self._events.popleft()

    def kill(self, worker: str, reason: str) -> None:
        """Kill the worker's process: its job is lost for this reason, unless it has just ended by itself."""
        process = self._processes[worker]
        if process.busy:
            process.verdict = reason
            process.kill()

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
            process.end(max(0.0, deadline - time.monotonic()))
        self._events.clear()

    def _collect(self, timeout: float | None) -> None:
        """Take one message from each worker that has one: that keeps the order fair."""
        waiting: dict[Any, str] = {}
        for worker, process in self._processes.items():
            if process.busy:
                waiting[process.pipe] = worker
                if process.process is not None:
                    waiting[process.process.sentinel] = worker
                else:
                    timeout = _STARTING if timeout is None else min(timeout, _STARTING)
        if not waiting:
            time.sleep(timeout or 0)
            return
        for worker in dict.fromkeys(waiting[item] for item in connection.wait(list(waiting), timeout)):
            self._receive(worker, self._processes[worker])

    def _receive(self, worker: str, process: Worker) -> None:
        try:
            if not process.pipe.poll():  # the process ended, but a child of its own still holds the pipe
                raise EOFError
            kind, value = process.pipe.recv()
        except (EOFError, OSError):
            reason = process.end()
            self._processes[worker] = self._launcher.launch(process.setup)
            self._events.append(Event(worker, "lost", reason))
        except Exception as error:  # what it sent cannot be read here
            process.verdict = f"{type(error).__name__}: {error}"
            process.kill()
        else:
            if kind == "report":
                self._events.append(Event(worker, kind, value, process.asker()))
                return
            process.busy = False
            process.jobs += 1
            if kind == "lost" or process.jobs >= self._trials:
                self._replace(worker)
            self._events.append(Event(worker, kind, value))

    def _replace(self, worker: str) -> None:
        old = self._processes[worker]
        old.pipe.close()  # tells an idle worker to end
        self._processes[worker] = self._launcher.launch(old.setup, replaced=old)


def _gpu_workers(gpus: Sequence[Gpu], per_gpu: int) -> dict[str, str]:
    """Slot names and CUDA_VISIBLE_DEVICES in each; every GPU gets a worker before any gets a second."""
    return {
        f"gpu{number}" if per_gpu == 1 else f"gpu{number}.{share}": gpu.visible
        for share in range(per_gpu)
        for number, gpu in enumerate(gpus)
    }


def _environment(gpu: str, threads: int | None, shared: bool) -> dict[str, str]:
    quiet = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
    settings = {"CUDA_VISIBLE_DEVICES": gpu, "TF_CPP_MIN_LOG_LEVEL": quiet}
    if not gpu:
        settings |= {"JAX_PLATFORMS": "cpu"}
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # NPROC: XLA's pool
        settings |= dict.fromkeys(names, str(threads))
    if shared:
        settings |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return settings


def _check(backend: str, per_gpu: int, workers: int | None, threads: int | None, trials: int | None) -> None:
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    counts = {"workers_per_gpu": per_gpu, "workers": workers, "threads": threads, "trials_per_worker": trials}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"executor.{name}={count}: give 1 or more")

"""The process executor: trials in worker processes, each pinned to a GPU or a core. The default."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ExecutorConfig
from cnnsweep.config.validation import Int
from cnnsweep.executors.base import Event, Executor, Job, answer_once
from cnnsweep.executors.devices import chosen_gpus, cores, expect_installed
from cnnsweep.executors.launcher import Launcher, WorkerProcess
from cnnsweep.executors.worker import LEAN_KERAS, Setup, compiled

_STARTING = 0.2  # seconds between looks at workers that have no process to wait for yet


class ProcessConfig(ExecutorConfig):
    """The config of the process executor; conf/executor/auto.yaml explains the keys."""

    device: Literal["auto", "gpu", "cpu"]
    gpus: Int | None = Field(ge=1)
    workers_per_gpu: Int = Field(ge=1)
    workers: Int | None = Field(ge=1)
    threads: Int | None = Field(ge=1)
    trials_per_worker: Int | None = Field(ge=1)

    @model_validator(mode="after")
    def _expect_used(self) -> Self:
        """Refuse what is for the other device."""
        if self.device == "cpu" and (self.gpus or self.workers_per_gpu > 1):
            name = "gpus" if self.gpus else "workers_per_gpu"
            raise ValueError(f"{name}={getattr(self, name)} has no effect on the CPU; executor=gpu trains on GPUs")
        if self.device == "gpu" and self.workers:
            advice = "executor.gpus says how many to use, executor.workers_per_gpu how many trials share one"
            raise ValueError(f"workers={self.workers} has no effect on GPUs; {advice}")
        return self


@configured_by(ProcessConfig)
class ProcessExecutor(Executor):
    """One process for each worker; see conf/executor/auto.yaml for the arguments.

    `preload` names modules that jobs need, to be imported once, before workers are forked. The output of workers goes
    to `log`, if there is one. Workers start in the background. Raises UserError for a GPU that is not there, or a
    backend that is not installed.
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
        expect_installed(backend)
        output = os.path.abspath(log) if log else os.devnull
        visible = [gpu.visible for gpu in chosen_gpus(device, gpus, backend)]
        places = _gpu_workers(visible, workers_per_gpu) or {f"cpu{n}": "" for n in range(workers or cores())}
        self._compiled = compiled(output)
        # JAX and PyTorch look for devices while they are imported, so each worker must do that for itself.
        self._launcher = Launcher(backend, output, [LEAN_KERAS, *preload] if backend == "tensorflow" else [])
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

    @property
    def notes(self) -> Mapping[str, str]:
        return {worker: "starting" for worker, process in self._processes.items() if process.busy and not process.began}

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
        deadline = time.monotonic() + 1.0
        with contextlib.ExitStack() as ending:  # each is ended, even where a Ctrl-C comes between
            for process in self._processes.values():
                ending.callback(lambda ended: ended.end(deadline - time.monotonic()), process)
            self._launcher.close()
        shutil.rmtree(self._compiled, ignore_errors=True)
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
            if kind == "lost" or process.jobs >= self._trials_per_worker or process.has_grown():
                self._replace(worker)
            self._events.append(Event(worker, kind, value))

    def _replace(self, worker: str) -> WorkerProcess:
        old = self._processes[worker]
        old.pipe.close()  # tells an idle worker to end
        self._processes[worker] = new = self._launcher.launch(old.setup, replaced=old)
        return new


def _gpu_workers(visible: Sequence[str], per_gpu: int) -> dict[str, str]:
    """Worker names and CUDA_VISIBLE_DEVICES in each; every GPU gets a worker before any gets a second."""
    return {
        f"gpu{number}" if per_gpu == 1 else f"gpu{number}.{share}": gpu
        for share in range(per_gpu)
        for number, gpu in enumerate(visible)
    }

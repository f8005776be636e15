"""The worker's side: a process that gets jobs through a pipe, runs them, and ends when its driver does."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from cnnsweep.executors.base import Job

_SET_PARENT_DEATH_SIGNAL = 1
_OUT_OF_MEMORY = ("OOM", "out of memory", "RESOURCE_EXHAUSTED")
SERVER_VARIABLE = "CNNSWEEP_FORK_SERVER"
"""Tells the fork server what to do, as JSON: the arguments of `warm.prepare`."""


@dataclass(frozen=True)
class Setup:
    """What a worker process puts in place before its first job."""

    backend: str
    environment: Mapping[str, str]
    threads: int | None
    """None leaves the number to the framework."""
    gpu: bool
    log: str
    """Where its stdout and stderr go."""
    forked: bool
    """Whether a fork server started it."""


def work(pipe: Connection, setup: Setup) -> None:
    """Run jobs from the pipe until it closes: (job, argument) and answers come in, (kind, value) go out."""
    become_background(setup.log)
    if setup.forked:
        end_with_parent()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    fault = _configure(setup)
    while True:
        try:
            job, argument = pipe.recv()
        except (EOFError, ConnectionError):
            _leave()
        except Exception as error:  # the job's module cannot be imported here, say
            _tell(pipe, ("lost", fault or _told(error)))
            continue
        _tell(pipe, ("lost", fault) if fault else _run(pipe, job, argument))


def become_background(log: str) -> None:
    """Leave signals and the terminal to the driver: all output goes to the log, else nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a cluster signals the whole group; the driver decides
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    faulthandler.enable(file=2)


def end_with_parent() -> None:
    """Have the kernel (Linux) kill this process when its parent ends, even if native code holds the GIL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def in_one_line(error: BaseException) -> str:
    """Return the type and the line that says what happened, without TensorFlow's preamble.

    >>> in_one_line(ValueError("no such file\\nmore"))
    'ValueError: no such file'
    >>> in_one_line(MemoryError())
    'MemoryError'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    skipped = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    telling = [line for line in lines if not line.startswith(skipped)] or lines
    memory = [line for line in telling if any(word in line for word in _OUT_OF_MEMORY)]
    return ": ".join([type(error).__name__, *(memory or telling)[:1]])[:400]


def _configure(setup: Setup) -> str | None:
    """Load the framework as set up; return why that failed, which is then each job's reason."""
    os.environ.update(setup.environment)
    os.environ["KERAS_BACKEND"] = setup.backend
    try:
        keras = importlib.import_module("keras")
        if keras.backend.backend() != setup.backend:
            raise RuntimeError(f"Keras was loaded with {keras.backend.backend()}, not {setup.backend}")
        framework: Any = importlib.import_module(setup.backend)
        if setup.threads and setup.backend == "tensorflow":
            framework.config.threading.set_intra_op_parallelism_threads(setup.threads)
            framework.config.threading.set_inter_op_parallelism_threads(1)
        if setup.threads and setup.backend == "torch":
            framework.set_num_threads(setup.threads)
        if setup.gpu and not _sees_gpu(setup.backend, framework):
            seen = os.environ["CUDA_VISIBLE_DEVICES"]
            raise RuntimeError(f"{setup.backend} sees no GPU (CUDA_VISIBLE_DEVICES={seen})")
    except Exception as error:
        return _told(error)
    return None


def _sees_gpu(backend: str, framework: Any) -> bool:
    if backend == "tensorflow":
        return bool(framework.config.list_physical_devices("GPU"))
    if backend == "torch":
        return bool(framework.cuda.is_available())
    return framework.default_backend() != "cpu"


def _run(pipe: Connection, job: Job, argument: Any) -> tuple[str, Any]:
    try:
        steps = job(argument)
        report = next(steps)
        while True:
            _tell(pipe, ("report", report))
            report = steps.send(_answer(pipe))
    except StopIteration as end:
        return "result", end.value
    except BaseException as error:  # SystemExit too: a job must not end the worker unsaid
        return "lost", _told(error)


def _told(error: BaseException) -> str:
    with contextlib.suppress(OSError):  # the log's disk may be full
        traceback.print_exception(error)
    return in_one_line(error)


def _tell(pipe: Connection, message: tuple[str, Any]) -> None:
    try:
        pipe.send(message)
    except ConnectionError:
        _leave()
    except Exception as error:  # it does not pickle, and nothing of it was sent
        if message[0] == "report":
            raise
        pipe.send(("lost", _told(error)))


def _answer(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv())
    except (EOFError, ConnectionError):
        _leave()


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _leave() -> NoReturn:
    """End without the frameworks' shutdown, which can take seconds or hang."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)

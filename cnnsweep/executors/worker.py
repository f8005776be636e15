"""The worker's side: a process that gets jobs through a pipe, runs them, and ends when its driver does.

As the first import of a fork server it also prepares that server: see `_prepare_fork_server`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from cnnsweep.executors.background import (
    be_killed_first,
    become_background,
    end_with_driver,
    end_with_parent,
    let_children_be_terminated,
)
from cnnsweep.executors.base import Job
from cnnsweep.executors.sockets import make_socket_folder
from cnnsweep.training import keras_settings

LEAN_KERAS = "cnnsweep.training.lean_keras"
_OUT_OF_MEMORY = ("OOM", "out of memory", "RESOURCE_EXHAUSTED")
_HINTS = {
    "SIGKILL": ": often the kernel's out-of-memory killer",
    "SIGSEGV": ": native code crashed",
    "SIGABRT": ": native code gave up, for a reason that the log has",
    "SIGILL": ": this processor lacks instructions for which native code was built",
    "SIGBUS": ": native code crashed, or shared memory is full",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
"""What a terminal would obey: colours, as Keras has them in its errors, and other control characters."""
_UNKNOWN = 255
"""The exit code of a forked process whose fork server was lost before it."""
_SERVER = "CNNSWEEP_FORK_SERVER"
"""Set for a fork server alone: the arguments of `_prepare_fork_server`, as JSON."""
_environment_lock = threading.Lock()


@dataclass(frozen=True)
class Setup:
    """The settings of a worker process, put in place before its first job."""

    backend: str
    gpu: str
    """The one that CUDA shows to it; "" for none."""
    shares_gpu: bool
    threads: int | None
    """None leaves the number to the framework."""
    log: str
    """Where its stdout and stderr go."""
    forked: bool
    """True where a fork server started it."""


def work(pipe: Connection, setup: Setup) -> None:
    """Run jobs from the pipe until it closes: (job, argument) and answers come in, (kind, value) go out."""
    become_background(setup.log)
    let_children_be_terminated()
    be_killed_first()
    if setup.forked:
        end_with_parent()
    threading.Thread(target=end_with_driver, daemon=True).start()
    fault = _configure(setup)
    while True:
        try:
            job, argument = pipe.recv()
        except (EOFError, ConnectionError):
            _leave()
        except Exception as error:  # the job's module cannot be imported here, say
            _send(pipe, ("lost", fault or _log_error(error)))
            continue
        _send(pipe, ("lost", fault) if fault else _run(pipe, job, argument, setup.backend != "none"))


def in_one_line(error: BaseException) -> str:
    """Return the error's type and its most informative line, without TensorFlow's preamble.

    >>> in_one_line(ValueError("no such file\\nmore"))
    'ValueError: no such file'
    >>> in_one_line(ValueError("\\x1b[1mbold\\x1b[0m"))
    'ValueError: bold'
    >>> in_one_line(MemoryError())
    'MemoryError'
    """
    lines = [line.strip() for line in _ESCAPES.sub("", str(error)).splitlines() if line.strip()]
    skipped = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    informative = [line for line in lines if not line.startswith(skipped)] or lines
    memory = [line for line in informative if any(word in line for word in _OUT_OF_MEMORY)]
    return ": ".join([type(error).__name__, *(memory or informative)[:1]])[:400]


def kernel_kills() -> int:
    """Return how many processes the kernel has killed to free memory, in this container or on this machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with contextlib.suppress(OSError, ValueError):
            counts = dict(line.split() for line in Path(path).read_text(encoding="utf-8").splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def exit_reason(code: int | None, memory: bool = False) -> str:
    """Return the meaning of a process' exit code; `memory`: the kernel has just killed a process to free memory.

    >>> exit_reason(3), exit_reason(-9)
    ('exited with code 3', "killed by SIGKILL (signal 9): often the kernel's out-of-memory killer")
    """
    if code == _UNKNOWN and memory:
        return "lost with the process that workers are forked from: out of memory, the kernel counts one more kill"
    if code is None or code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"
    if memory and name == "SIGKILL":
        return "killed by SIGKILL (signal 9): out of memory, the kernel counts one more such kill"
    return f"killed by {name} (signal {-code}){_HINTS.get(name, '')}"


def fork_server_end() -> str | None:
    """Return why the process of which workers are forked has ended; None where it lives, or this system cannot say."""
    server, deadline = forkserver._forkserver._forkserver_pid, time.monotonic() + 1.0  # type: ignore[attr-defined]
    while server is not None and hasattr(os, "waitid") and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            # WNOWAIT: multiprocessing is to notice it too.
            if end := os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return exit_reason(end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)
        time.sleep(0.02)
    return None


def ensure_fork_server(backend: str, log: str, modules: Sequence[str]) -> None:
    """Start the process of which workers are forked, with `modules` imported, unless it runs."""
    # The kernel watches the thread that starts the server, and only the main one is sure to outlive it.
    driver = os.getpid() if threading.current_thread() is threading.main_thread() else None
    root = Path(__file__).parents[2]
    checkout = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    with _environment_lock:
        before = dict(os.environ)
        changes = {
            _SERVER: json.dumps({"log": log, "modules": [*modules], "driver": driver}),
            **keras_settings.environment(backend),
            "OPENBLAS_NUM_THREADS": "1",  # more would not survive a fork
            "PYTHONPATH": os.pathsep.join([*checkout, *filter(None, [before.get("PYTHONPATH")])]),
        }
        os.environ.update(changes)
        forkserver.set_forkserver_preload([__name__])
        make_socket_folder()
        try:
            forkserver.ensure_running()
        finally:
            for name in changes:
                os.environ.pop(name)
            os.environ.update((name, before[name]) for name in changes if name in before)


def _prepare_fork_server(log: str, modules: Sequence[str], driver: int | None) -> None:
    """Prepare this process as the fork server: no output, ended with `driver` (a process id), `modules` imported."""
    become_background(log)
    if driver is not None:
        end_with_parent()
        if os.getppid() != driver:
            os._exit(0)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # the worker will meet it again, and report it as its job's reason
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # a collection in a worker would touch, and so copy, all pages it shares with its siblings


def _configure(setup: Setup) -> str | None:
    """Load the framework with these settings; return why that failed, which is then each job's reason."""
    os.environ.update(_environment(setup))
    if setup.backend == "none":  # what a job needs, it imports itself
        return None
    try:
        importlib.import_module(LEAN_KERAS)
        keras = importlib.import_module("keras")
        if keras.backend.backend() != setup.backend:
            raise RuntimeError(f"Keras was loaded with {keras.backend.backend()}, not {setup.backend}")
        framework: ModuleType = importlib.import_module(setup.backend)
        if setup.threads and setup.backend == "tensorflow":
            framework.config.threading.set_intra_op_parallelism_threads(setup.threads)
            framework.config.threading.set_inter_op_parallelism_threads(1)
        if setup.threads and setup.backend == "torch":
            framework.set_num_threads(setup.threads)
        if setup.gpu and not _sees_gpu(setup.backend, framework):
            raise RuntimeError(f"{setup.backend} sees no GPU (CUDA_VISIBLE_DEVICES={setup.gpu})")
    except Exception as error:
        return _log_error(error)
    return None


def compiled(log: str) -> str:
    """The folder beside the log in which JAX keeps what it compiled: to compile a network takes seconds on a GPU."""
    return f"{os.path.splitext(log)[0]}-compiled"


def _environment(setup: Setup) -> dict[str, str]:
    settings = keras_settings.environment(setup.backend) | {"CUDA_VISIBLE_DEVICES": setup.gpu}
    if not setup.gpu:
        settings["JAX_PLATFORMS"] = "cpu"
    else:
        settings |= keras_settings.on_gpu(setup.backend, setup.shares_gpu)
    if setup.gpu and setup.log != os.devnull and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        settings["JAX_COMPILATION_CACHE_DIR"] = compiled(setup.log)
        settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if setup.threads:
        names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"]  # NPROC: XLA's pool
        if setup.backend == "none":  # else TensorFlow gets it by its own functions
            names += ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
        settings |= dict.fromkeys(names, str(setup.threads))
    return settings


def _sees_gpu(backend: str, framework: ModuleType) -> bool:
    if backend == "tensorflow":
        return bool(framework.config.list_physical_devices("GPU"))
    if backend == "torch":
        return bool(framework.cuda.is_available())
    return bool(framework.default_backend() != "cpu")


def _run(pipe: Connection, job: Job, argument: object, with_keras: bool) -> tuple[str, object]:
    try:
        if with_keras:
            keras_settings.use_defaults()
        steps = job(argument)
        report = next(steps)
        while True:
            _send(pipe, ("report", report))
            report = steps.send(_answer(pipe))
    except StopIteration as end:
        return "result", end.value
    except BaseException as error:  # SystemExit too: a job must not end the worker without a reason
        return "lost", _log_error(error)


def _log_error(error: BaseException) -> str:
    with contextlib.suppress(OSError):  # the log's disk may be full
        traceback.print_exception(error)
    return in_one_line(error)


def _send(pipe: Connection, message: tuple[str, object]) -> None:
    try:
        pipe.send(message)
    except ConnectionError:
        _leave()
    except Exception as error:  # it cannot be pickled, and none of it was sent
        if message[0] == "report":
            raise
        pipe.send(("lost", _log_error(error)))


def _answer(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv())
    except (EOFError, ConnectionError):
        _leave()


def _leave() -> NoReturn:
    """End without the frameworks' shutdown, which can take seconds or hang."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


if _SERVER in os.environ:
    _prepare_fork_server(**json.loads(os.environ.pop(_SERVER)))

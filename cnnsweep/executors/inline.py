"""Trials in the driver itself, one at a time: for debugging."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError
from cnnsweep.executors.base import Event, Job
from cnnsweep.executors.worker import in_one_line


class InlineExecutor:
    """One worker, whose job goes on while `wait` is called. A KeyboardInterrupt passes through and ends it.

    What jobs and frameworks write to stderr goes to `log`, if there is one; so do tracebacks of lost jobs.
    With as many threads as a worker has, the numbers are the same to the last digit; the number cannot be changed
    once TensorFlow has computed something. Raises UserError where Keras is loaded with another backend already.
    """

    workers: tuple[str, ...] = ("inline",)

    def __init__(self, backend: str = "tensorflow", log: Path | None = None, threads: int = 1) -> None:
        if "keras" in sys.modules and sys.modules["keras"].backend.backend() != backend:
            loaded = sys.modules["keras"].backend.backend()
            raise UserError(f"backend={backend}, but Keras is loaded in this process with {loaded}")
        os.environ["KERAS_BACKEND"] = backend
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        self._log = log
        self._threads: int | None = threads if backend == "tensorflow" else None
        self._steps: Generator[Any, bool, Any] | None = None
        self._answer: bool | None = None
        self._asking = False
        self._lost: Event | None = None

    def submit(self, worker: str, job: Job, argument: Any) -> None:
        """Take a job on; it starts with the next `wait`."""
        if worker not in self.workers or self._steps is not None:
            raise RuntimeError(f"worker {worker} is {'busy' if worker in self.workers else 'unknown'}")
        self._steps, self._answer = job(argument), None

    def wait(self, timeout: float | None = None) -> Event | None:  # noqa: ARG002 a step takes what it takes
        """Run the job to its next event; None where there is no job, or its report is not answered yet."""
        if self._lost is not None:
            event, self._lost = self._lost, None
            return event
        steps = self._steps
        if steps is None or self._asking:
            return None
        self._steps = None  # also when a KeyboardInterrupt passes
        try:
            with _stderr_to(self._log):
                self._limit_threads()
                report = next(steps) if self._answer is None else steps.send(self._answer)
        except StopIteration as end:
            return Event("inline", "result", end.value)
        except Exception as error:
            with _stderr_to(self._log):
                traceback.print_exception(error)
            return Event("inline", "lost", in_one_line(error))
        self._steps, self._asking = steps, True
        return Event("inline", "report", report, self._take_answer)

    def kill(self, worker: str, reason: str) -> None:  # noqa: ARG002 there is one worker
        """End the job where it waits for an answer. One that hangs cannot be ended from its own process."""
        if self._steps is not None:
            self._end()
            self._lost = Event("inline", "lost", reason)

    def close(self) -> None:
        """End the job."""
        self._end()
        self._lost = None

    def _limit_threads(self) -> None:
        if self._threads is not None:
            import tensorflow as tf

            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(self._threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            self._threads = None

    def _take_answer(self, keep_on: bool) -> None:
        self._answer, self._asking = bool(keep_on), False

    def _end(self) -> None:
        steps, self._steps, self._asking = self._steps, None, False
        if steps is not None:
            steps.close()


@contextlib.contextmanager
def _stderr_to(log: Path | None) -> Iterator[None]:
    """Redirect the descriptor too, since frameworks write past sys.stderr."""
    if log is None:
        yield
        return
    terminal = os.dup(2)
    try:
        with open(log, "a", buffering=1, encoding="utf-8") as target, contextlib.redirect_stderr(target):
            os.dup2(target.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)

"""The inline executor: trials in the driver's own process, one at a time, for debugging."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import ExecutorConfig
from cnnsweep.config.validation import Int
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Event, Executor, Job, Steps, answer_once
from cnnsweep.executors.devices import expect_installed
from cnnsweep.executors.worker import in_one_line
from cnnsweep.training import keras_settings

WORKER = "inline"


class InlineConfig(ExecutorConfig):
    """The config of the inline executor."""

    threads: Int = Field(ge=1)


@configured_by(InlineConfig)
class InlineExecutor(Executor):
    """One worker, whose job runs while `wait` is called. A KeyboardInterrupt passes through and ends the job.

    The stderr of jobs and frameworks goes to `log`, if there is one; so do tracebacks of lost jobs. With as many
    threads as a worker process has, the numbers are the same to the last digit; the number cannot be changed once
    TensorFlow has computed something. Raises UserError where the backend is not installed, or Keras is loaded with
    another one already.
    """

    def __init__(self, backend: str = "tensorflow", log: Path | None = None, threads: int = 1) -> None:
        self._with_keras = backend != "none"
        loaded = sys.modules["keras"].backend.backend() if self._with_keras and "keras" in sys.modules else backend
        if loaded != backend:
            raise UserError(f"backend={backend}, but Keras is loaded in this process with {loaded}")
        expect_installed(backend)
        os.environ.update(keras_settings.environment(backend))
        self._log = log
        self._threads: int | None = threads if backend == "tensorflow" else None
        self._steps: Steps | None = None
        self._answer: bool | None = None  # None before the first step
        self._unanswered = False
        self._lost: Event | None = None

    @property
    def workers(self) -> Sequence[str]:
        return (WORKER,)

    def submit(self, worker: str, job: Job, argument: object) -> None:
        """Accept a job; it starts with the next `wait`."""
        if worker != WORKER or self._steps is not None:
            raise RuntimeError(f"worker {worker} is {'busy' if worker == WORKER else 'unknown'}")
        self._steps, self._answer = job(argument), None

    def wait(self, timeout: float | None = None) -> Event | None:  # noqa: ARG002 a step takes what it takes
        """Run the job to its next event; None where there is no job, or its report is not answered yet."""
        lost, self._lost = self._lost, None
        if lost is not None or self._steps is None or self._unanswered:
            return lost
        steps, self._steps = self._steps, None  # also when a KeyboardInterrupt passes
        try:
            with _stderr_to(self._log):
                self._limit_threads()
                if self._answer is None and self._with_keras:
                    keras_settings.use_defaults()
                report = next(steps) if self._answer is None else steps.send(self._answer)
        except StopIteration as end:
            return Event(WORKER, "result", end.value)
        except Exception as error:
            with _stderr_to(self._log):
                traceback.print_exception(error)
            return Event(WORKER, "lost", in_one_line(error))
        self._steps, self._unanswered = steps, True
        return Event(WORKER, "report", report, answer_once(self._take_answer))

    def kill(self, worker: str, reason: str) -> None:  # noqa: ARG002 there is one worker
        """End the job where it waits for an answer. A job that hangs cannot be ended from its own process."""
        if self._steps is not None:
            self.close()
            self._lost = Event(WORKER, "lost", reason)

    def close(self) -> None:
        steps, self._steps, self._unanswered, self._lost = self._steps, None, False, None
        if steps is not None:
            steps.close()

    def _take_answer(self, keep_on: bool) -> None:
        self._answer, self._unanswered = keep_on, False

    def _limit_threads(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            import tensorflow as tf

            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)


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

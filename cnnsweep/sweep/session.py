"""A sweep from its config to its outcome: its workers, log and other parts are made, then it runs to its last event."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsweep.config import own_code
from cnnsweep.config.components import locate
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config, Tracking
from cnnsweep.config.section import Plain
from cnnsweep.data import loading
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor, ExecutorGoneError, Job, run_all
from cnnsweep.executors.shared_work import SharedWorkExecutor
from cnnsweep.executors.time_limits import TimeLimitedExecutor
from cnnsweep.formatting import counted
from cnnsweep.journal.events import Event, SweepResumed, SweepStarted
from cnnsweep.journal.journal import FILE, FORMAT, CannotWriteError, Journal
from cnnsweep.journal.state import SweepState
from cnnsweep.search.oracle import Oracle
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import Problem, make_problem
from cnnsweep.sweep import catalog, finish, loop
from cnnsweep.sweep.discovery import discover
from cnnsweep.sweep.earlier_trials import learn
from cnnsweep.sweep.precision import settle
from cnnsweep.sweep.sweep import Sweep, interruptible, responsive
from cnnsweep.tracking.credentials import redact, shown
from cnnsweep.tracking.provenance import gather
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.tracker import Tracker
from cnnsweep.training.cost_model import TrialForecaster
from cnnsweep.training.effects import check_effects
from cnnsweep.training.targets import check_labels
from cnnsweep.trial import Inspection, Status

FLUSH_SECONDS = 60
HURRIED_SECONDS = 5
"""For MLflow, where someone waits for the end; events that are not sent wait in the journal."""
PRELOAD = (
    "cnnsweep.training.train", "cnnsweep.models.cnn", "cnnsweep.training.feature_cache",
    "matplotlib.figure", "matplotlib.backends.backend_agg",
)  # fmt: skip
"""Modules that worker processes import before their first job."""


@dataclass(frozen=True)
class Outcome:
    """The result of a sweep that ended."""

    id: str
    folder: Path
    uri: str
    """Of the MLflow store, without credentials."""
    config: Config = field(repr=False)
    """Its `tracking` has the credentials that were given."""
    state: SweepState
    trouble: str | None = None
    """What could not be logged to MLflow or written to disk, if anything."""
    waiting: int = 0
    """Events that are not in MLflow."""

    @property
    def status(self) -> Status:
        return self.state.stop.status if self.state.stop else "interrupted"


class Watcher:
    """Shows a sweep to a person; this one shows nothing."""

    def say(self, text: str) -> None:
        """Show one line about the preparations."""

    def watch(self, sweep: Sweep, trouble: Callable[[], str | None]) -> contextlib.AbstractContextManager[Any]:  # noqa: ARG002
        """Show a running sweep, and what is wrong with MLflow, if anything."""
        return contextlib.nullcontext()

    def log(self, event: Event) -> None:
        """Follow the events of the journal."""


@dataclass(frozen=True)
class Parts:
    """What a sweep needs to run, be it new or resumed."""

    folder: Path
    data: loading.Dataset
    problem: Problem
    """Its config is without credentials: it goes into the journal, the trials' specs and the artifacts."""
    search: Oracle
    executor: SharedWorkExecutor
    uri: str
    tracking: Tracking = field(repr=False)
    """As it was given, with credentials."""
    earlier: Sequence[Mapping[str, Any]] = ()
    """Trials of the sweep that `search.learn_from` names."""


def start(config: Config, watcher: Watcher, command: Sequence[str] = (), job: Job | None = None) -> Outcome:
    """Run a new sweep of a checked config, `job` in place of the one that it names.

    Raises `UserError` before any training where something does not fit.
    """
    check_effects(config)
    id_ = catalog.new_id(config.tracking, config.name)
    folder = Path(config.tracking.dir).absolute() / "sweeps" / id_
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_unless_begun, folder)
        stack.enter_context(catalog.hold(folder))
        parts = assemble(config, folder, watcher, stack, loading.load(config.data, config.seed, config.task))
        opening = SweepStarted(
            id=id_,
            sweep=config.name,
            format=FORMAT,
            config=parts.problem.config.plain(),
            provenance=redact(gather(parts.data, tuple(parts.executor.workers))),
            earlier=list(parts.earlier),
            **driver(command),
        )
        return conduct(parts, SweepState(parts.search.objective), {}, watcher, stack, opening, job=job)


def driver(command: Sequence[str]) -> Plain:
    """What an opening event says of this process."""
    return {"command": redact(list(command)), "pid": os.getpid(), "host": platform.node()}


def assemble(
    config: Config,
    folder: Path,
    watcher: Watcher,
    stack: contextlib.ExitStack,
    data: loading.Dataset,
    earlier: Sequence[Mapping[str, Any]] | None = None,
) -> Parts:
    """Start the workers, open the store and save the data where the workers find it.

    `earlier`: what the search learned from when the sweep began; None for a new one, which reads it from the store.
    """
    log = folder / "log.txt"
    executor = make_executor(config, log)
    stack.callback(executor.close)
    executor.say = watcher.say
    if len(data.x_train):
        watcher.say(data.describe())
    with framework_noise_to(log):
        config = discover(config, data, executor, watcher.say)
    config = settle(config, executor, watcher.say)
    uri = open_store(config.tracking)
    tracking, config = config.tracking, redact(config)
    check_labels(config, data)
    with framework_noise_to(log):
        problem = make_problem(config, data.input_shape, data.classes, data.kind, data.images_an_epoch)
    check_code(config, data, executor)
    stack.enter_context(log_to(log))
    shown = os.path.relpath(log) if log.is_relative_to(Path.cwd()) else log
    watcher.say(f"{counted(len(executor.workers), 'worker')}: {', '.join(executor.workers)} · log: {shown}")
    with framework_noise_to(log):
        search = build(config, problem, Objective.of(config.objective))
        locate("model._target_", config.model.target)
    learned = learn(search, config.replace(tracking=tracking), problem, earlier, watcher.say)
    for note in search.notes if earlier is None else ():  # a resumed sweep may have another budget
        watcher.say(note)
    loading.save(data, folder / "data")
    return Parts(folder, data, problem, search, executor, uri, tracking, learned)


def conduct(
    parts: Parts,
    state: SweepState,
    pending: dict[int, bool],
    watcher: Watcher,
    stack: contextlib.ExitStack,
    opening: SweepStarted | SweepResumed,
    sent: Sequence[Event] = (),
    job: Job | None = None,
) -> Outcome:
    """Run a sweep from its opening event to its stop; `sent` are the events of the journal so far."""
    config, folder, executor = parts.problem.config, parts.folder, parts.executor
    tracker = Tracker(parts.uri, config.tracking.experiment, folder, config.tracking.tags)
    stack.callback(lambda: tracker.close(HURRIED_SECONDS))
    tracker.catch_up(sent)
    root, workers, images = folder.parents[1], len(executor.workers), parts.data.images_an_epoch
    forecaster = TrialForecaster.load(parts.problem, root, workers, images)
    journal = stack.enter_context(contextlib.closing(Journal(folder / FILE)))
    sweep = Sweep(folder, parts.problem, parts.search, executor, journal, state, [tracker, watcher], pending)
    sweep.job = job or job_of(config)
    kept = max(config.tracking.gallery, config.budget.finalists or 1)
    sweep.listeners.append(finish.Cleanup(folder, state, parts.search, kept))
    sweep.forecaster, sweep.say = forecaster, watcher.say
    grace = config.executor.grace_seconds
    with watcher.watch(sweep, lambda: tracker.trouble), interruptible(sweep, grace), responsive():
        trouble = _run(sweep, opening)
    with contextlib.suppress(OSError):
        forecaster.save(root, workers)
    hurried = sweep.interrupted or trouble or tracker.trouble
    if (waiting := tracker.flush(HURRIED_SECONDS if hurried else FLUSH_SECONDS)) or tracker.trouble:
        trouble.append(tracker.trouble or f"MLflow has not got {counted(waiting, 'event')} yet")
    config = config.replace(tracking=parts.tracking)
    outcome = Outcome(folder.name, folder, shown(parts.uri), config, state, "\n".join(trouble) or None, waiting)
    if outcome.status == "completed":
        executor.close()
        shutil.rmtree(folder / "data", ignore_errors=True)  # `resume` makes it again
    return outcome


def _run(sweep: Sweep, opening: SweepStarted | SweepResumed) -> list[str]:
    """Run the sweep from its opening event on; return what went wrong, if anything."""
    try:
        sweep.record(opening)
        try:
            loop.search(sweep)
            finish.finish(sweep)
        except KeyboardInterrupt:
            finish.give_up(sweep)
    except CannotWriteError as error:  # nothing more can be recorded, so nothing more is done
        return [str(error)]
    except ExecutorGoneError as error:
        finish.give_up(sweep)
        return [f"{error}; go on once it is back, or on another executor"]
    return []


def make_executor(config: Config, log: Path) -> SharedWorkExecutor:
    """The executor that the config names. Its workers start in the background and write to `log`."""
    settings, target = config.executor.settings(), config.executor.target
    if target.endswith((".ProcessExecutor", ".RayExecutor")) and config.trains_networks:
        settings["preload"] = PRELOAD
    executor = locate("executor._target_", target)(backend=config.backend, log=log, **settings)
    limited = TimeLimitedExecutor(executor, config.executor.trial_minutes, config.executor.hang_minutes)
    step = config.model.prepare
    return SharedWorkExecutor(limited, locate("model.prepare", step) if step else lambda spec: spec)


def job_of(config: Config) -> Job:
    """The job that trains a trial."""
    job: Job = locate("job._target_", config.job.target)
    return job


def check_code(config: Config, data: loading.Dataset, executor: Executor) -> None:
    """Have a worker try what can only be checked by building or importing it. Raises `UserError` with all faults."""
    training, own = config.training, config.trains_networks and own_code.is_run_by(config.plain())
    needed = {"callbacks": training.callbacks, "user_metrics": training.has_user_metrics, "own_check": own}
    checks = {"job.check": config.job.check, "model.check": config.model.check}
    checks |= {name: f"cnnsweep.training.{name}.check" for name, is_needed in needed.items() if is_needed}
    for key, name in checks.items():
        if name:
            (end,) = run_all(executor, [(locate(key, name), Inspection(config, data.input_shape, data.classes))])
            if faults := end.value if end.kind == "result" else [str(end.value)]:
                raise UserError("\n  ".join(faults))


def _remove_unless_begun(folder: Path) -> None:
    if not (folder / FILE).exists():
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write cnnsweep's log records to a file."""
    logger, handler = logging.getLogger("cnnsweep"), logging.FileHandler(path, encoding="utf-8", errors="replace")
    # A full disk is reported elsewhere.
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # noqa: ARG005
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


@contextlib.contextmanager
def framework_noise_to(path: Path) -> Iterator[None]:
    """Send what native code writes to stderr into a file: TensorFlow's start-up lines cannot be turned off."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

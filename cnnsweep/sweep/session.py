"""Putting a sweep together from its config, and running it from the first line of its journal to the last."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsweep.config.components import locate
from cnnsweep.config.objective import Objective
from cnnsweep.data import loading as datasets
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor, ExecutorGoneError, Job
from cnnsweep.executors.shared_work import Preparing
from cnnsweep.journal import replay
from cnnsweep.journal import state as ledger
from cnnsweep.journal.journal import FILE as JOURNAL
from cnnsweep.journal.journal import FORMAT, CannotWriteError, Journal
from cnnsweep.search import search as searches
from cnnsweep.search_space import problem
from cnnsweep.sweep import lock
from cnnsweep.sweep.catalog import Scribe
from cnnsweep.sweep.cleanup import Housekeeper, forget_data
from cnnsweep.sweep.loop import Listener, Sweep
from cnnsweep.sweep.signals import interruptible
from cnnsweep.tracking import provenance as facts
from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.tracker import Tracker, open_store
from cnnsweep.training import pricing
from cnnsweep.training.train import train
from cnnsweep.trial import Inspection

PRELOAD = ("cnnsweep.training.train", "cnnsweep.models.cnn", "cnnsweep.training.feature_cache", "sklearn")
FLUSH_SECONDS = 60
HURRIED_SECONDS = 5
"""For MLflow, where someone waits for the end; what is not sent waits in the journal."""
OURS = ("_target_", "trial_minutes", "hang_minutes", "grace_seconds")
"""Keys of an executor's config that are for the sweep."""


@dataclass(frozen=True)
class Outcome:
    """What a finished sweep leaves."""

    id: str
    folder: Path
    uri: str
    """Of the MLflow store."""
    config: Mapping[str, Any]
    ledger: ledger.SweepState
    trouble: str | None = None
    """What could not be logged to MLflow or written to disk, if anything."""
    waiting: int = 0
    """Events that MLflow has not got."""
    report: Path | None = None
    """The report's page, where one was made."""

    @property
    def status(self) -> str:
        return str(self.ledger.stop["status"]) if self.ledger.stop else "interrupted"


class Watcher:
    """Shows a sweep to a person; this one shows nothing."""

    def say(self, text: str) -> None:
        """One line about getting ready."""

    def watch(self, sweep: Sweep, trouble: Callable[[], str | None]) -> contextlib.AbstractContextManager[Any]:  # noqa: ARG002
        return contextlib.nullcontext()

    def log(self, event: Mapping[str, Any]) -> None:
        """Every event of the journal."""


@dataclass(frozen=True)
class Parts:
    """What a sweep needs to run, be it new or resumed."""

    config: Mapping[str, Any]
    """Without credentials: it goes into the journal, the trials' specs and the artifacts."""
    folder: Path
    data: datasets.Dataset
    problem: problem.Problem
    objective: Objective
    search: searches.Search
    executor: Any
    uri: str
    earlier: Sequence[Mapping[str, Any]] = ()
    """Trials of the sweep that `search.learn_from` names."""


def start(config: Mapping[str, Any], watcher: Watcher, command: Sequence[str] = (), job: Job = train) -> Outcome:
    """Run a new sweep of a checked config, `job` being what a trial does.

    Raises `UserError` before any training where something does not fit.
    """
    root = Path(config["tracking"]["dir"]).absolute()
    id_ = new_id(config["tracking"], config["name"])
    folder = root / "sweeps" / id_
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_unless_begun, folder)
        stack.enter_context(lock.hold(folder))
        parts = assemble(config, folder, watcher, stack, datasets.load(config["data"], config["seed"]))
        about = facts.gather(parts.data, tuple(parts.executor.workers))
        told = {"command": redact(list(command)), "facts": redact(about)}
        if parts.earlier:
            told["earlier"] = parts.earlier
        opening = {"id": id_, "name": config["name"], "format": FORMAT, "config": parts.config, **told}
        nothing = replay.Replayed(ledger.SweepState(parts.objective))
        return conduct(parts, nothing, watcher, stack, "sweep", opening, job=job)


def assemble(
    config: Mapping[str, Any],
    folder: Path,
    watcher: Watcher,
    stack: contextlib.ExitStack,
    data: datasets.Dataset,
    earlier: Sequence[Mapping[str, Any]] | None = None,
) -> Parts:
    """Start the workers, open the store and put the data where the workers find it.

    `earlier`: what the search learned from when the sweep began; None for a new one, which reads it from the store.
    """
    root = folder.parents[1]
    executor = make_executor(config, folder / "log.txt", root)
    stack.callback(executor.close)
    executor.say = watcher.say
    watcher.say(data.describe())
    uri = open_store(config["tracking"])
    tracking, config = config["tracking"], redact(config)
    posed = problem.pose(config, data.input_shape, data.classes)
    try_networks(config, data.input_shape, executor)
    objective = Objective.of(config["objective"])
    stack.enter_context(log_to(folder / "log.txt"))
    watcher.say(f"{len(executor.workers)} workers: {', '.join(executor.workers)} · log: {_short(folder / 'log.txt')}")
    with framework_noise_to(folder / "log.txt"):
        search = searches.build(config, posed, objective)
        locate("model._target_", config["model"]["_target_"])
    if earlier is None and config["search"].get("learn_from"):
        from cnnsweep.tracking.earlier_trials import earlier as read

        earlier, told = read({**config, "tracking": tracking}, posed, objective)
        watcher.say(told)
    if earlier:
        search.learn(earlier)
    for note in getattr(search.oracle, "notes", ()):
        watcher.say(note)
    datasets.save(data, folder / "data")
    return Parts(config, folder, data, posed, objective, search, executor, uri, earlier or ())


def conduct(
    parts: Parts,
    before: replay.Replayed,
    watcher: Watcher,
    stack: contextlib.ExitStack,
    event: str,
    opening: Mapping[str, Any],
    sent: Sequence[Mapping[str, Any]] = (),
    job: Job = train,
) -> Outcome:
    """Run a sweep from its opening event to its stop; `sent` are the events of the journal so far."""
    config, folder = parts.config, parts.folder
    tracker = Tracker(parts.uri, config["tracking"]["experiment"], folder, config["tracking"]["tags"])
    stack.callback(lambda: tracker.close(HURRIED_SECONDS))
    tracker.catch_up(sent)
    journal = stack.enter_context(contextlib.closing(Journal(folder / JOURNAL)))
    kept = max(config["tracking"]["gallery"], config["budget"]["finalists"] or 1)
    keeper = Housekeeper(folder, before.ledger, parts.search, kept)
    listeners: list[Listener] = [tracker, watcher, Scribe(folder, journal), keeper]
    sweep = Sweep(
        folder, parts.problem, parts.search, parts.executor, journal, before.ledger, listeners, before.pending, job=job
    )
    workers, root = len(parts.executor.workers), folder.parents[1]
    images = len(parts.data.x_train), len(parts.data.x_val)
    sweep.pricer = pricing.pricer(parts.problem, root, workers, images)
    trouble = []
    with watcher.watch(sweep, lambda: tracker.trouble), interruptible(sweep, grace_seconds(config)):
        try:
            sweep.begin(event, **opening)
            _run(sweep)
        except CannotWriteError as error:  # nothing more can be recorded, so nothing more is done
            trouble.append(f"{error}; what is there is intact")
        except ExecutorGoneError as error:
            sweep.give_up()
            trouble.append(f"{error}; go on once it is back, or on another executor")
    with contextlib.suppress(OSError):
        sweep.pricer.save(root, workers)
    seconds = HURRIED_SECONDS if sweep.interrupted or trouble or tracker.trouble else FLUSH_SECONDS
    if (waiting := tracker.flush(seconds)) or tracker.trouble:
        trouble.append(tracker.trouble or f"MLflow: {waiting} events are not sent yet")
    report = None
    if config["tracking"]["report"] and not (sweep.interrupted or trouble) and sweep.ledger.ranked():
        from cnnsweep.report.report import at_end

        report = at_end(config["tracking"], folder.name)
    told = "\n".join(trouble) or None
    outcome = Outcome(folder.name, folder, parts.uri, config, sweep.ledger, told, waiting, report)
    if outcome.status == "completed":
        parts.executor.close()
        forget_data(folder)
    return outcome


def _run(sweep: Sweep) -> None:
    try:
        sweep.run()
        sweep.finish()
    except KeyboardInterrupt:
        sweep.give_up()


def grace_seconds(config: Mapping[str, Any]) -> float:
    """An executor of a user's own need not say."""
    return float(config["executor"].get("grace_seconds", 30))


def make_executor(config: Mapping[str, Any], log: Path, root: Path) -> Any:
    """The executor that the config names. Its workers start in the background."""
    settings = {k: v for k, v in config["executor"].items() if k not in OURS}
    made = locate("executor._target_", config["executor"]["_target_"])
    if config["executor"]["_target_"].endswith((".ProcessExecutor", ".RayExecutor")):
        settings["preload"] = PRELOAD
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"tracking.dir: '{root}' cannot be written ({error.strerror}); set another") from error
    executor = made(backend=config["backend"], log=log, **settings)
    step = config["model"].get("prepare")
    return Preparing(executor, locate("model.prepare", step) if step else lambda spec: spec)


def try_networks(config: Mapping[str, Any], shape: tuple[int, int, int], executor: Executor) -> None:
    """Have a worker build what the model family can only check by building. Raises `UserError` with all faults."""
    family = config["model"].get("check")
    if not family:
        return
    executor.submit(executor.workers[0], locate("model.check", family), Inspection(config, shape))
    while (event := executor.wait()) is None:
        pass
    faults = event.value if event.kind == "result" else [str(event.value)]
    if faults:
        raise UserError("\n  ".join(faults))


def new_id(tracking: Mapping[str, Any], name: str, kind: str = "sweeps") -> str:
    """The name and the time, and what tells those of one second apart; its folder under `kind` is made.

    In one folder that is a number. To a server others may log at that second from folders of their own: it is chance.
    """
    root = Path(tracking["dir"]).absolute()
    stamp = time.strftime("%Y%m%d-%H%M%S") + (f"-{secrets.token_hex(3)}" if tracking["uri"] else "")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        id_ = f"{name}-{stamp}{suffix}"
        try:
            (root / kind / id_).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"tracking.dir: '{root}' cannot be written ({error.strerror}); set another") from error
        return id_
    raise UserError(f"tracking.dir: '{root}' holds a thousand sweeps of this second")


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write cnnsweep's log records to a file."""
    logger = logging.getLogger("cnnsweep")
    handler = logging.FileHandler(path)
    handler.handleError = _ignore  # type: ignore[method-assign]  # a full disk is told of elsewhere
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


def _remove_unless_begun(folder: Path) -> None:
    if not (folder / JOURNAL).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _ignore(record: logging.LogRecord) -> None:
    pass


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

"""Putting a sweep together from its config, and running it from the first line of its journal to the last."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsweep import data as datasets
from cnnsweep import facts, ledger, problem
from cnnsweep import search as searches
from cnnsweep.components import locate
from cnnsweep.errors import UserError
from cnnsweep.executors import Job
from cnnsweep.journal import FORMAT, Journal
from cnnsweep.objective import Objective
from cnnsweep.sweep import Sweep
from cnnsweep.tracking import Tracker, open_store
from cnnsweep.training import train

PRELOAD = ("cnnsweep.training", "cnnsweep.models.cnn", "sklearn")
FLUSH_SECONDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a finished sweep leaves."""

    id: str
    folder: Path
    uri: str
    """Of the MLflow store."""
    config: Mapping[str, Any]
    ledger: ledger.Ledger
    trouble: str | None = None
    """What could not be logged to MLflow, if anything."""

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


def start(config: Mapping[str, Any], watcher: Watcher, command: Sequence[str] = (), job: Job = train) -> Outcome:
    """Run a new sweep of a checked config, `job` being what a trial does.

    Raises `UserError` before any training where something does not fit.
    """
    root = Path(config["tracking"]["dir"]).absolute()
    id_ = new_id(root, config["name"])
    folder = root / "sweeps" / id_
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_unless_begun, folder)
        executor = make_executor(config, folder / "log.txt", root)
        stack.callback(executor.close)
        data = datasets.load(config["data"], config["seed"])
        watcher.say(data.describe())
        posed = problem.pose(config, data.input_shape, data.classes)
        objective = Objective.of(config["objective"])
        uri = open_store(config["tracking"])
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(log_to(folder / "log.txt"))
        watcher.say(f"{len(executor.slots)} workers: {', '.join(executor.slots)} · log: {_short(folder / 'log.txt')}")
        with framework_noise_to(folder / "log.txt"):
            search = searches.build(config, posed, objective)
        datasets.save(data, folder / "data")
        tracker = Tracker(uri, config["tracking"]["experiment"], folder, config["tracking"]["tags"])
        stack.callback(lambda: tracker.close(FLUSH_SECONDS))
        journal = stack.enter_context(contextlib.closing(Journal(folder / "journal.jsonl")))
        sweep = Sweep(folder, posed, search, executor, journal, ledger.Ledger(objective), [tracker, watcher], job=job)
        gathered = facts.gather(data, tuple(executor.slots))
        sweep.begin(id=id_, name=config["name"], format=FORMAT, config=config, command=list(command), facts=gathered)
        with watcher.watch(sweep, lambda: tracker.trouble), interruptible(sweep):
            sweep.run()
            sweep.finish()
        waiting = tracker.flush(FLUSH_SECONDS)
        trouble = tracker.trouble if waiting or tracker.trouble else None
        return Outcome(id_, folder, uri, config, sweep.ledger, trouble)


def make_executor(config: Mapping[str, Any], log: Path, root: Path) -> Any:
    """The executor that the config names. Its workers start in the background."""
    settings = {k: v for k, v in config["executor"].items() if k != "_target_"}
    made = locate("executor._target_", config["executor"]["_target_"])
    if config["executor"]["_target_"].endswith(".ProcessExecutor"):
        settings["preload"] = PRELOAD
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"tracking.dir: '{root}' cannot be written ({error.strerror}); set another") from error
    return made(backend=config["backend"], log=log, **settings)


def new_id(root: Path, name: str) -> str:
    """The name and the time, and a number where two sweeps start in one second."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        id_ = f"{name}-{stamp}{suffix}"
        try:
            (root / "sweeps" / id_).mkdir(parents=True)
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
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
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


@contextlib.contextmanager
def interruptible(sweep: Sweep) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: end after the running epochs. Twice: end now."""

    def on_signal(number: int, frame: Any) -> None:  # noqa: ARG001
        if sweep.halt and sweep.stopping:
            raise KeyboardInterrupt
        sweep.interrupt()

    try:
        before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: a notebook's or a test's own affair
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _remove_unless_begun(folder: Path) -> None:
    if not (folder / "journal.jsonl").exists():
        shutil.rmtree(folder, ignore_errors=True)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

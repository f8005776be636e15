"""How sweeps stand, told fast from many: a small file beside each journal, and the journal's lines since.

`state.json` is only a short cut. It says up to where in the journal it holds, and may be missing or old.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError, unknown
from cnnsweep.journal.journal import FILE, Journal, damaged, parse
from cnnsweep.sweep import lock

STATE = "state.json"
GROWTH = 5
_TAIL = 4096


@dataclass
class Standing:
    """What the list of sweeps shows of one."""

    id: str = ""
    metric: str = "val_accuracy"
    began: float = 0.0
    last: float = 0.0
    stop: str | None = None
    reason: str | None = None
    trials: dict[str, str] = field(default_factory=dict)
    """The status of each, by number."""
    values: dict[str, float] = field(default_factory=dict)
    """The best value of each, but for those that failed."""
    events: int = 0
    size: int = 0
    """Bytes of the journal that this tells."""

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the journal."""
        trial = str(event.get("trial"))
        match event["event"]:
            case "sweep":
                self.id, self.began = event["id"], event["time"]
                self.metric = Objective.of(event["config"]["objective"]).metric
            case "trial":
                self.trials[trial] = "running"
            case "epoch":
                value = event["metrics"][self.metric]
                if Objective.of(self.metric).better(value, self.values.get(trial)):
                    self.values[trial] = value
            case "end":
                self.trials[trial] = event["status"]
                if event["status"] == "failed":
                    self.values.pop(trial, None)
            case "stop":
                self.stop, self.reason = event["status"], event["reason"]
            case "resume":
                self.stop = self.reason = None
        self.last = event["time"]
        self.events += 1

    @property
    def best(self) -> float | None:
        values = list(self.values.values())
        index = Objective.of(self.metric).best(values)
        return None if index is None else values[index]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.trials.values())


class Scribe:
    """Follows a sweep's events and keeps its `state.json`."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._journal = folder, journal
        self._standing = read(folder) if journal.size else Standing()
        self._written = 0
        """Bytes of the file as it was last written."""

    def log(self, event: Mapping[str, Any]) -> None:
        """Take in an event; write the file when a trial or the sweep ends.

        A large file is written once the journal has grown by several times its size: so a trial costs the same however
        many there are, and what is left to read of the journal stays little.
        """
        self._standing.apply(event)
        grown = self._journal.size - self._standing.size
        if event["event"] == "stop" or (event["event"] == "end" and grown >= GROWTH * self._written):
            self._standing.size = self._journal.size
            self._write()

    def _write(self) -> None:
        partial = self._folder / f"{STATE}.{os.getpid()}"
        text = json.dumps(vars(self._standing))
        self._written = len(text)
        with contextlib.suppress(OSError):
            partial.write_text(text)
            os.replace(partial, self._folder / STATE)


def read(folder: Path) -> Standing:
    """Return how the sweep in `folder` stands. Raises UserError where its journal is damaged or newer."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            standing = _saved(folder, os.fstat(file.fileno()).st_size)
            file.seek(standing.size)
            rest = file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    whole = rest[: rest.rfind(b"\n") + 1]
    for event in parse(path, whole, first=standing.events + 1):
        try:
            standing.apply(event)
        except (KeyError, TypeError) as error:
            raise damaged(path, standing.events + 1, f"its event lacks something ({error!r})") from error
    standing.size += len(whole)
    return standing


def _saved(folder: Path, size: int) -> Standing:
    try:
        standing = Standing(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return Standing()
    return standing if standing.size <= size else Standing()


def state(folder: Path, standing: Standing) -> str:
    """One of running, interrupted, completed, failed; a sweep that was killed is interrupted."""
    if lock.is_held(folder):
        return "running"
    return standing.stop or "interrupted"


def unsent(folder: Path, events: int) -> int:
    """How many of the journal's events MLflow has not got, as far as is known."""
    try:
        with (folder / "tracking.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            sent = re.findall(rb'\{"sent": (\d+)\}', file.read())
    except OSError:
        return events
    return max(0, events - int(sent[-1])) if sent else events


def folders(root: Path) -> list[Path]:
    """The sweeps under a tracking.dir, by name."""
    try:
        return sorted(path.parent for path in (root / "sweeps").glob(f"*/{FILE}"))
    except OSError as error:
        raise UserError(f"tracking.dir: '{root}' cannot be read ({error.strerror})") from error


def find(root: Path, id_: str) -> Path:
    """The folder of a sweep; `id_` comes from the command line and must not lead anywhere else."""
    ids = [folder.name for folder in folders(root)]
    if id_ not in ids:
        if not ids:
            raise UserError(f"unknown sweep '{id_}': there is none in {root / 'sweeps'} (tracking.dir=DIR: elsewhere)")
        raise unknown("sweep", id_, ids[-10:])
    return root / "sweeps" / id_

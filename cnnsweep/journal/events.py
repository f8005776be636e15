"""The events of a sweep's journal: one frozen dataclass each, and how they are written as JSON.

In the order in which they can come: a `SweepStarted`, then for each trial a `TrialStarted`, its `EpochEnded` and a
`TrialEnded`; a promoted or resumed trial starts again. After the search come `ReplicateEnded`, `WinnerChosen`,
`BestTested` and `GalleryDrawn`, then `SweepStopped`; a sweep that is continued goes on with `SweepResumed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from cnnsweep.trial import Status

Plain: TypeAlias = Mapping[str, Any]
"""What JSON holds: a config, say, or what is known of the machine."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have."""

    name: ClassVar[str]
    """As in the journal, key `event`."""
    time: float = 0.0
    """When it was written, in seconds since 1970; the journal sets it."""


@dataclass(frozen=True, kw_only=True)
class SweepStarted(Event):
    """A new sweep; the journal's first line."""

    name = "sweep"
    id: str
    sweep: str
    """The config's `name`."""
    format: int
    config: Plain
    command: list[str] = field(default_factory=list)
    provenance: Plain = field(default_factory=dict)
    """Git, versions, machine and data."""
    earlier: list[Plain] = field(default_factory=list)
    """Trials of another sweep, which `search.learn_from` names."""
    pid: int = 0
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial starts: for the first time, promoted, resumed, or again with a smaller batch."""

    name = "trial"
    trial: int
    """Its number, from 1."""
    title: str
    """The network in a few characters."""
    values: Plain
    seed: int
    epochs: int
    """Train until so many epochs are done in all."""
    proposal: str
    """The oracle's own id for it."""
    worker: str
    config: Plain
    network: Mapping[str, float] = field(default_factory=dict)
    """parameters and mmacs, where they are known beforehand."""
    retry: str | None = None
    """Why it is tried again with other values."""
    rival: Plain | None = None
    """Of data in folds: `values` and `margin` of the trial that it is compared with between its folds."""


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """A running trial finished an epoch."""

    name = "epoch"
    trial: int
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A trial ended, finally or until it is promoted or resumed."""

    name = "end"
    trial: int
    status: Status
    reason: str | None = None
    epochs: int = 0
    summary: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReplicateEnded(Event):
    """A finalist was trained once more with another seed."""

    name = "replicate"
    trial: int
    replicate: int
    seed: int
    value: float | None
    """The objective's best value; None where it failed."""
    epochs: int = 0
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class WinnerChosen(Event):
    """The replicates of all finalists are done."""

    name = "winner"
    trial: int
    results: Mapping[str, Mapping[str, float]]
    """mean, std and count of each finalist, by its number."""


@dataclass(frozen=True, kw_only=True)
class BestTested(Event):
    """The best network was evaluated on the test set."""

    name = "final"
    trial: int
    epoch: int | None
    folder: str
    """Of the model, below the sweep's."""
    metrics: Mapping[str, float]
    images: int


@dataclass(frozen=True, kw_only=True)
class GalleryDrawn(Event):
    """Pictures of a trial's network were drawn."""

    name = "gallery"
    trial: int
    folder: str
    """Of the pictures, below the sweep's."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a picture could not be drawn, by its name."""


@dataclass(frozen=True, kw_only=True)
class SweepStopped(Event):
    """The sweep ended, by itself or because someone asked for it."""

    name = "stop"
    status: Status
    reason: str | None = None
    summary: Mapping[str, float] = field(default_factory=dict)
    front: list[int] | None = None
    """The trials of the Pareto front, where there are several objectives."""


@dataclass(frozen=True, kw_only=True)
class SweepResumed(Event):
    """The sweep is continued."""

    name = "resume"
    budget: Plain
    executor: Plain
    command: list[str] = field(default_factory=list)
    pid: int = 0
    host: str = ""


EVENTS: Mapping[str, type[Event]] = {kind.name: kind for kind in Event.__subclasses__()}
_OPTIONAL = ("retry", "rival", "front", "earlier")
"""Fields that are not written where they are None or empty."""
_KEYS = {"sweep": "name", "title": "name"}
"""Fields that have another key in the journal."""
_FIELDS = {kind: {_KEYS.get(f.name, f.name): f.name for f in fields(kind)} for kind in EVENTS.values()}
"""The fields of each event by their keys in the journal."""


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as the journal writes it.

    >>> to_json(EpochEnded(trial=1, epoch=2, metrics={"loss": 0.5}, time=3.0))
    {'event': 'epoch', 'time': 3.0, 'trial': 1, 'epoch': 2, 'metrics': {'loss': 0.5}}
    """
    values = {key: getattr(event, name) for key, name in _FIELDS[type(event)].items()}
    return {"event": event.name, **{k: v for k, v in values.items() if k not in _OPTIONAL or v}}


def from_json(line: Mapping[str, Any]) -> Event:
    """Return the event of a journal's line. Raises ValueError for an unknown event, a missing or an unknown field."""
    kind = EVENTS.get(line.get("event", ""))
    if kind is None:
        raise ValueError(f"unknown event '{line.get('event')}' (one of: {', '.join(EVENTS)})")
    try:
        return kind(**{_FIELDS[kind].get(key, key): value for key, value in line.items() if key != "event"})
    except TypeError as error:
        raise ValueError(str(error)) from error

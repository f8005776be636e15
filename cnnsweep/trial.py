"""A trial's spec, reports and result, which travel between the driver and a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cnnsweep.config.schema import Config

Status = Literal["running", "completed", "pruned", "failed", "interrupted"]


@dataclass(frozen=True)
class Rival:
    """The best trial so far, whose folds those of another are compared with before it trains on the next."""

    values: Sequence[float] = ()
    """Its objective on each fold, at its best epoch; none where too little is known to stop a trial."""
    margin: float = 0.0
    """How far the difference of two trials on one fold can be from that of their means: half of a 95% interval."""


@dataclass(frozen=True)
class TrialSpec:
    """One complete, trainable configuration and where its files go. Plain values only, so it pickles anywhere."""

    number: int
    """Counted from 1 over the sweep."""
    values: Mapping[str, Any]
    """The searched keys and their values, as in the config: {"model.filters.1": 32}. Inactive keys are absent."""
    config: Config
    """The whole resolved config, with the values put in."""
    seed: int
    """Derived from the sweep's seed and the trial's number."""
    folder: Path
    """The only place the worker writes to."""
    data: Path
    """Where the driver saved the data set, for `data.open_saved`."""
    epochs: int
    """Train until this many epochs are done, counted over the trial's whole life."""
    initial_epoch: int = 0
    """Epochs done already; above 0 the trial goes on from the checkpoint in its folder."""
    fold: int | None = None
    """Of data in folds: the one that validates, from 1; 0: train on all images; None: on each fold in turn."""
    rival: Rival | None = None
    """Of data in folds: train on one after another, and stop once this cannot be reached; None: on all together."""
    again: bool = False
    """It was begun before: go on with the checkpoints of its folds, although no epoch may have been reported."""
    since: int = 0
    """Epochs that were done when the search asked for this; it gets at least one more, despite patience."""
    seconds: float = 0.0
    """Of the epochs done already, for `executor.trial_minutes`."""
    builder: str | None = None
    """Builds what is trained on `data` in place of the model's own `_target_`: only its last part, say."""
    frozen_parameters: int = 0
    """Of the part before that, whose output `data` holds."""

    @property
    def title(self) -> str:
        """The number and the network in a few characters, for lists and legends: "022 · 32-64-96 k3 same max"."""
        return f"{self.number:03d} · {self.config.model.describe(self.values)}"


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial, from the sweep's seed and the trial's number: 31 bits of SHA-256.

    >>> trial_seed(0, 1) == trial_seed(0, 1) != trial_seed(0, 2)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Inspection:
    """The argument of the checks of a job and of a model family, which run before the first trial."""

    config: Config
    input_shape: tuple[int, ...]
    classes: int = 0


@dataclass(frozen=True)
class Discovered:
    """What a worker finds out about code of the user's own before the first trial."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Its keys, each with its default."""
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For the keys that are to be searched, an entry of a space."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Its own names of keys that have another in the config."""
    notes: tuple[str, ...] = ()
    fault: str | None = None
    """Why it cannot be used."""


@dataclass(frozen=True)
class Step:
    """Work that several trials need: done once, as a job of its own, before the first of them."""

    key: str
    """Equal for two trials that need the same."""
    job: Callable[[Any], Any]
    """Reports its progress as a line for the screen; its result is the last of these lines."""
    argument: Any


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch, sent by the worker, which then waits for the answer "keep on" or "stop"."""

    trial: int
    epoch: int
    """Counted from 1 over the trial's whole life."""
    metrics: Mapping[str, float]
    """loss and the other metrics, each with its `val_` twin, epoch_seconds, learning_rate."""
    note: str | None = None
    """A line for the screen, such as that the trial had to begin again."""


@dataclass(frozen=True)
class TrialResult:
    """The end of a trial."""

    trial: int
    status: Status
    reason: str | None = None
    """Why it failed or was stopped; None for a trial that ran to its end."""
    epochs: int = 0
    """Epochs done over the trial's whole life."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Metrics with one value: parameters, trial_seconds …"""

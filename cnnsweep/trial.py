"""What travels between the driver and a worker: a trial's spec, its reports and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["running", "completed", "pruned", "failed", "interrupted"]


@dataclass(frozen=True)
class TrialSpec:
    """One complete, trainable configuration and where its files go. Plain values only, so it pickles anywhere."""

    number: int
    """Counted from 1 over the sweep."""
    values: Mapping[str, Any]
    """The searched keys and their values, as in the config: {"model.filters.1": 32}. Inactive keys are absent."""
    config: Mapping[str, Any]
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
    since: int = 0
    """Epochs that were done when the search asked for this; it gets at least one more, whatever patience says."""
    builder: str | None = None
    """Builds what is trained on `data` in place of the model's own `_target_`: only its last part, say."""
    frozen_parameters: int = 0
    """Of the part before that, whose output `data` holds."""


@dataclass(frozen=True)
class Inspection:
    """What a model family's `check` is to look at before the first trial: a sweep's config and its images' shape."""

    config: Mapping[str, Any]
    input_shape: tuple[int, int, int]


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
    """loss, accuracy, val_loss, val_accuracy, epoch_seconds, learning_rate."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    trial: int
    status: Status
    reason: str | None = None
    """Why it failed or was stopped; None for a trial that ran to its end."""
    epochs: int = 0
    """Epochs done over the trial's whole life."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Metrics with one value: parameters, trial_seconds …"""

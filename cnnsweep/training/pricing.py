"""A sweep's own use of the forecast: it learns from every epoch, predicts every trial, and keeps the score."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import apply
from cnnsweep.training.cost_model import Amounts, Forecaster, amounts_of, first_epoch

FILE = "forecast.json"


@dataclass
class Pricer:
    """Predicts trials from what is measured so far: by a plan, by earlier sweeps on the machine, by this one."""

    problem: Problem
    forecaster: Forecaster
    images: tuple[int, int]
    """For training and for validation."""
    errors: list[float] = field(default_factory=list)
    """|predicted - actual| / actual of each trial, over the epochs that it ran."""
    _open: dict[int, tuple[Amounts, tuple[float, float] | None, list[float]]] = field(default_factory=dict)

    def seconds(self, values: Mapping[str, Any], epochs: int) -> float | None:
        """What so many epochs of a configuration will take; None while nothing is measured."""
        return self.forecaster.trial(self._amounts(values), epochs) if self.forecaster.measured else None

    def start(self, number: int, values: Mapping[str, Any]) -> None:
        """Take note of the prediction for a trial that starts now, from its beginning or from a checkpoint."""
        amounts = self._amounts(values)
        parts = self.forecaster.parts(amounts) if self.forecaster.measured else None
        self._open[number] = amounts, parts, []

    def epoch(self, number: int, seconds: float) -> None:
        """Learn from an epoch that a trial has finished."""
        amounts, _, epochs = self._open[number]
        if not epochs:
            amounts = {**amounts, **first_epoch(amounts)}
        epochs.append(seconds)
        self.forecaster.learn(amounts, seconds)

    def end(self, number: int, wall: float) -> dict[str, float]:
        """Compare a trial that took `wall` seconds with its prediction, for the epochs that it ran."""
        _, parts, epochs = self._open.pop(number, (None, None, []))
        if not epochs or wall <= 0:
            return {}
        self.forecaster.starts.append(max(0.0, wall - sum(epochs)))
        if parts is None:
            return {"actual_seconds": round(wall, 3)}
        predicted = parts[0] + (len(epochs) - 1) * parts[1]
        self.errors.append(abs(predicted - wall) / wall)
        return {"predicted_seconds": round(predicted, 3), "actual_seconds": round(wall, 3)}

    def summary(self) -> dict[str, float]:
        """How good the forecast was: the median relative error of a trial's time."""
        if not self.errors:
            return {}
        return {
            "forecast_median_error": round(float(np.median(self.errors)), 4),
            "forecast_trials": float(len(self.errors)),
        }

    def save(self, folder: Path, workers: int) -> None:
        """Keep what was measured for the next sweep."""
        if self.forecaster.measured:
            self.forecaster.save(folder / FILE, machine(self.problem.config, workers))

    def _amounts(self, values: Mapping[str, Any]) -> Amounts:
        config = apply(self.problem.config, values)
        return amounts_of(self.problem.judge(values).network, config, *self.images)


def machine(config: Mapping[str, Any], workers: int) -> str:
    """What prices hold for: measurements from elsewhere say little."""
    executor = config["executor"]
    where = executor.get("address") or executor.get("device")
    return f"{platform.node()} {platform.machine()} {config['backend']} {where} {workers}"


def pricer(problem: Problem, folder: Path, workers: int, images: tuple[int, int]) -> Pricer:
    """A sweep's pricer, with what is known of the machine from the file in `folder`."""
    return Pricer(problem, Forecaster.load(folder / FILE, machine(problem.config, workers)), images)

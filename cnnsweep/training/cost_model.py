"""Cost model: the seconds of an epoch and of a trial, from arithmetic and measurements.

An epoch's seconds are a sum of amounts of work that are known beforehand (multiply-adds, elements that pass through
pooling, steps, weights to update …), each times the seconds of one unit, which are fitted to measured epochs:
non-negative, and drawn towards typical ones as far as the measurements leave them open.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from cnnsweep.config.schema import Config
from cnnsweep.geometry.branches import Element
from cnnsweep.geometry.layers import KINDS, elements
from cnnsweep.geometry.network import Network
from cnnsweep.search_space.problem import Problem
from cnnsweep.training import batch_norm

Amounts = dict[str, float]
"""Units of work by kind; the kinds are those of `TYPICAL`."""
TYPICAL: Amounts = {
    "epoch": 0.02,
    "first epoch": 0.02,
    "first epoch, by layer": 0.075,
    "step": 0.002,
    "weights updated": 5e-09,
    "image": 4e-06,
    "multiply-adds": 4e-11,
    "patches": 4e-10,
    "convolved": 3.5e-09,
    "max pooled": 1e-09,
    "average pooled": 5e-10,
    "normalised": 2.5e-09,
    "activated": 1e-09,
    "activated by exp": 1.5e-09,
    "augmented": 8e-09,
}
"""Seconds of one unit on one core (fitted to 26 configurations of conf/space/cnn.yaml), where fitting starts."""
BY_PRECISION = ("multiply-adds", "patches", "convolved", "max pooled", "average pooled", "normalised", "activated")
MIXED = " in 16 bits"
TYPICAL |= {name + MIXED: TYPICAL[name] / 2 for name in BY_PRECISION}
FILE = "forecast.json"
FORWARD = 0.33  # the share of a training step's work in a validation step, which has no gradients
LATEST = 400  # epochs remembered
START = 1.0  # seconds of a trial outside its epochs, before any are measured
STRENGTH = 0.1  # weight of a typical unit against a measurement (1: as much as one epoch that says twice as much)


@dataclass(frozen=True)
class Epoch:
    """One measured epoch."""

    amounts: Mapping[str, float]
    seconds: float

    @cached_property
    def row(self) -> np.ndarray:
        return _row(self.amounts)


@dataclass
class Forecaster:
    """Forecasts of seconds, fitted again as measurements come in."""

    epochs: list[Epoch] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    """Seconds of trials outside their epochs."""
    _seconds_per_unit: np.ndarray | None = None

    def learn(self, amounts: Mapping[str, float], seconds: float) -> None:
        """Add a measured epoch."""
        self.epochs.append(Epoch(amounts, seconds))
        del self.epochs[:-LATEST]
        self._seconds_per_unit = None

    def epoch(self, amounts: Mapping[str, float]) -> float:
        """The seconds that an epoch of these amounts will take."""
        return float(_row(amounts) @ self.seconds_per_unit)

    def trial(self, amounts: Mapping[str, float], epochs: int) -> float:
        """The seconds of a trial of so many epochs, from its start in a fresh worker to its end."""
        first, other = self.parts(amounts)
        return first + (epochs - 1) * other if epochs > 0 else 0.0

    def parts(self, amounts: Mapping[str, float]) -> tuple[float, float]:
        """The seconds of a trial of one epoch, and of each further epoch."""
        start = float(np.median(self.starts[-LATEST:])) if self.starts else START
        return start + self.epoch({**amounts, **first_epoch(amounts)}), self.epoch(amounts)

    @property
    def measured(self) -> bool:
        return bool(self.epochs)

    @property
    def seconds_per_unit(self) -> np.ndarray:
        """Seconds of one unit of each kind of work, in the order of `TYPICAL`."""
        if self._seconds_per_unit is None:
            self._seconds_per_unit = _fit(self.epochs)
        return self._seconds_per_unit

    def save(self, path: Path, machine: str) -> None:
        """Write the measurements, for later sweeps on the same machine."""
        epochs = [(e.amounts, e.seconds) for e in self.epochs]
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(
            json.dumps({"machine": machine, "starts": self.starts[-LATEST:], "epochs": epochs}), encoding="utf-8"
        )
        new.replace(path)

    @staticmethod
    def load(path: Path, machine: str) -> Forecaster:
        """The measurements of an earlier sweep or plan on this machine; none if the file is missing or unusable."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["machine"] == machine:
                return Forecaster([Epoch(dict(a), float(s)) for a, s in kept["epochs"]], list(kept["starts"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return Forecaster()


@dataclass
class Prediction:
    """A running trial."""

    amounts: Amounts
    parts: tuple[float, float] | None
    """The seconds predicted at its start, as of `Forecaster.parts`; None if nothing was measured."""
    epochs: list[float] = field(default_factory=list)
    """The seconds of its epochs so far."""


@dataclass
class TrialForecaster:
    """A sweep's forecasts: each trial is predicted as it starts, learned from, and compared with its prediction."""

    problem: Problem
    forecaster: Forecaster
    images: tuple[int, int]
    """For training and for validation."""
    errors: list[float] = field(default_factory=list)
    """|predicted - actual| / actual of each trial, over the epochs that it ran."""
    _running: dict[int, Prediction] = field(default_factory=dict)

    @staticmethod
    def load(problem: Problem, folder: Path, workers: int, images: tuple[int, int]) -> TrialForecaster:
        """Start with the measurements of this machine from the file in `folder`."""
        forecaster = Forecaster.load(folder / FILE, machine(problem.config, workers))
        return TrialForecaster(problem, forecaster, images)

    def save(self, folder: Path, workers: int) -> None:
        """Keep the measurements for the next sweep."""
        if self.forecaster.measured:
            self.forecaster.save(folder / FILE, machine(self.problem.config, workers))

    def seconds(self, values: Mapping[str, object], epochs: int) -> float | None:
        """The seconds that so many epochs of a configuration will take; None while nothing is measured."""
        return self.forecaster.trial(self._amounts(values), epochs) if self.forecaster.measured else None

    def start(self, number: int, values: Mapping[str, object]) -> None:
        """Predict a trial that starts now, from its beginning or from a checkpoint."""
        amounts = self._amounts(values)
        parts = self.forecaster.parts(amounts) if self.forecaster.measured else None
        self._running[number] = Prediction(amounts, parts)

    def epoch(self, number: int, seconds: float) -> None:
        """Learn from an epoch that a trial has finished."""
        trial = self._running[number]
        amounts = trial.amounts if trial.epochs else {**trial.amounts, **first_epoch(trial.amounts)}
        trial.epochs.append(seconds)
        self.forecaster.learn(amounts, seconds)

    def end(self, number: int, wall: float) -> dict[str, float]:
        """Compare a trial that took `wall` seconds with its prediction, for the epochs that it ran."""
        trial = self._running.pop(number, None)
        if trial is None or not trial.epochs or wall <= 0:
            return {}
        self.forecaster.starts.append(max(0.0, wall - sum(trial.epochs)))
        if trial.parts is None:
            return {"actual_seconds": round(wall, 3)}
        predicted = trial.parts[0] + (len(trial.epochs) - 1) * trial.parts[1]
        self.errors.append(abs(predicted - wall) / wall)
        return {"predicted_seconds": round(predicted, 3), "actual_seconds": round(wall, 3)}

    def summary(self) -> dict[str, float]:
        """The median relative error of a trial's seconds, and the number of trials."""
        if not self.errors:
            return {}
        error = round(float(np.median(self.errors)), 4)
        return {"forecast_median_error": error, "forecast_trials": float(len(self.errors))}

    def _amounts(self, values: Mapping[str, object]) -> Amounts:
        config = self.problem.config.with_values(values)
        return amounts_of(self.problem.validate(values).network, config, *self.images)


def machine(config: Config, workers: int) -> str:
    """A name for the circumstances of measurements: machine, backend, device and number of workers."""
    executor = config.executor.plain()
    where = executor.get("address") or executor.get("device")
    own = "" if config.trains_networks else f" {config.job.plain().get('call', config.job.target)}"
    return f"{platform.node()} {platform.machine()} {config.backend} {where} {workers}{own}"


def _fit(epochs: Sequence[Epoch]) -> np.ndarray:
    """Least squares of the relative errors, non-negative, with typical units scaled to this machine as the prior."""
    from scipy.optimize import nnls

    typical = np.array(list(TYPICAL.values()))
    if not epochs:
        return typical
    rows = np.array([e.row for e in epochs])
    seconds = np.array([max(e.seconds, 1e-4) for e in epochs])
    typical = typical * math.exp(float(np.median(np.log(seconds / (rows @ typical)))))
    # The unknowns are multiples of the typical units, so that one strength fits all.
    scaled = rows * typical / seconds[:, None]
    pull, target = STRENGTH * np.eye(len(typical)), np.full(len(typical), STRENGTH)
    found, _ = nnls(np.vstack([scaled, pull]), np.concatenate([np.ones(len(seconds)), target]))
    return found * typical


def _row(amounts: Mapping[str, float]) -> np.ndarray:
    """The amounts in the order of `TYPICAL`."""
    return np.array([amounts.get(name, 0.0) for name in TYPICAL])


def amounts_of(network: Network | None, config: Config, images: int, validation: int, first: bool = False) -> Amounts:
    """The amounts of one epoch of a configuration on so many training and validation images."""
    images = config.training.examples(images)
    norms = network is not None and any(e.kind == "batch_norm" for e in chain(*_elements(network)))
    forward = validation + norms * min(batch_norm.IMAGES, images)  # its statistics are computed again
    steps, seen = math.ceil(images / config.training.batch_size), images + FORWARD * forward
    augment, mixed = config.data.augment.work, config.training.policy != "float32"
    found: Amounts = {"epoch": 1.0, "step": steps + FORWARD * math.ceil(validation / 256), "image": seen}
    if network is not None:
        for name, amount in per_image(network).items():
            found[name + MIXED * (mixed and name in BY_PRECISION)] = seen * amount
        found["weights updated"] = float(steps * network.parameters)
        is_text = network.layers[0].layer.kind == "embedding"
        found["augmented"] = float(images * augment * math.prod(network.input_shape[: 1 if is_text else None]))
        found["layers"] = float(sum(len(inside) for inside in _elements(network)) + augment)
    return found | first_epoch(found) if first else found


def first_epoch(amounts: Mapping[str, float]) -> Amounts:
    """The further amounts of the first epoch: tracing the functions that it runs."""
    return {"first epoch": 1.0, "first epoch, by layer": amounts.get("layers", 10.0)}


def per_image(network: Network) -> Amounts:
    """The work of a network for one image, by kind."""
    found: Amounts = defaultdict(float)
    for element in chain(*_elements(network)):
        for name, amount in _work(element):
            found[name] += amount
    return found


def _elements(network: Network) -> Iterator[list[Element]]:
    """The elementary layers of each layer; what was measured of a Keras model is there as it is."""
    shape = network.input_shape
    for row in network.layers:
        if row.layer.kind in KINDS:
            yield elements(row.layer.kind, row.layer.settings, shape)
        else:
            cost = row.parameters, row.mult_adds, row.activation_bytes
            yield [Element(row.layer.kind, row.layer.settings, shape, row.output_shape, cost)]
        shape = row.output_shape


def _work(element: Element) -> Iterator[tuple[str, float]]:
    kind, settings, size = element.kind, element.settings, float(math.prod(element.output))
    axes = len(element.shape) - 1 - bool(settings.get("each_frame"))
    yield "multiply-adds", element.cost[1]
    if kind == "conv":
        yield "patches", size / element.output[-1] * settings["kernel_size"] ** axes * element.shape[-1]
        yield "convolved", size
    elif kind == "depthwise_conv":
        yield "patches", size * settings["kernel_size"] ** axes
        yield "convolved", size
    elif kind in ("max_pool", "average_pool", "global_max_pool"):
        yield "average pooled" if kind == "average_pool" else "max pooled", math.prod(element.shape)
    elif kind == "batch_norm":
        yield "normalised", size
    elif kind in ("add", "multiply"):
        yield "activated", size
    elif kind == "activation":
        cheap = settings["function"] in ("relu", "linear", "relu6", "leaky_relu")
        yield "activated" if cheap else "activated by exp", size

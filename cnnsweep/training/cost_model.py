"""What training will cost in time, from arithmetic and a few measurements.

An epoch's seconds are a sum of amounts that are known beforehand (multiply-adds, elements that pass through pooling,
steps, weights to update …), each times a price that only measuring tells. The prices are fitted to measured epochs,
non-negative, and drawn towards typical ones as far as the measurements say nothing about them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.geometry.network import Network

Amounts = dict[str, float]
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
    "normalised": 1e-08,
    "activated": 1e-09,
    "activated by exp": 1.5e-09,
    "augmented": 8e-09,
}
"""Seconds for one of each on one core (fitted to 26 configurations of conf/space/cnn.yaml), where fitting starts."""
FORWARD = 0.33
"""The share of a training step's work that a validation step does: no gradients."""
MOST = 400
"""Epochs remembered: the latest."""
START = 1.0
"""Seconds from a trial's start to its first epoch and from its last to its end, before any is known."""


@dataclass(frozen=True)
class Epoch:
    """One measured epoch."""

    amounts: Mapping[str, float]
    seconds: float

    @cached_property
    def row(self) -> np.ndarray:
        """The amounts in the order of `TYPICAL`."""
        return _row(self.amounts)


@dataclass
class Forecaster:
    """Prices, refitted as measurements come in."""

    epochs: list[Epoch] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    """Seconds of trials outside their epochs."""
    strength: float = 0.1
    """How much a typical price counts against a measurement (1: as much as one epoch that says twice as much)."""
    _prices: np.ndarray | None = None

    def learn(self, amounts: Mapping[str, float], seconds: float) -> None:
        """Take in a measured epoch."""
        self.epochs.append(Epoch(amounts, seconds))
        del self.epochs[:-MOST]
        self._prices = None

    def epoch(self, amounts: Mapping[str, float]) -> float:
        """The seconds that an epoch of these amounts will take."""
        return float(_row(amounts) @ self.prices)

    def trial(self, amounts: Mapping[str, float], epochs: int) -> float:
        """The seconds of a trial of so many epochs, from its start in a fresh worker to its end."""
        first, other = self.parts(amounts)
        return first + (epochs - 1) * other if epochs > 0 else 0.0

    def parts(self, amounts: Mapping[str, float]) -> tuple[float, float]:
        """The seconds of a trial of one epoch, and of each further epoch."""
        start = float(np.median(self.starts[-MOST:])) if self.starts else START
        return start + self.epoch({**amounts, **first_epoch(amounts)}), self.epoch(amounts)

    @property
    def measured(self) -> bool:
        """Whether anything was measured, on which a forecast could stand."""
        return bool(self.epochs)

    def save(self, path: Path, machine: str) -> None:
        """Write what was measured, for later sweeps on the same machine."""
        kept = {
            "machine": machine,
            "starts": self.starts[-MOST:],
            "epochs": [(e.amounts, e.seconds) for e in self.epochs],
        }
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(kept))
        new.replace(path)

    @staticmethod
    def load(path: Path, machine: str) -> Forecaster:
        """What an earlier sweep or plan measured on this machine; empty where there is nothing of use."""
        try:
            kept = json.loads(path.read_text())
            if kept["machine"] == machine:
                return Forecaster([Epoch(dict(a), float(s)) for a, s in kept["epochs"]], list(kept["starts"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return Forecaster()

    @property
    def prices(self) -> np.ndarray:
        """Seconds for one of each amount, in the order of `TYPICAL`."""
        if self._prices is None:
            self._prices = _fit(self.epochs, self.strength)
        return self._prices


def _fit(epochs: Sequence[Epoch], strength: float) -> np.ndarray:
    """Least squares of the relative errors, non-negative, with typical prices scaled to this machine as the prior."""
    from scipy.optimize import nnls

    typical = np.array(list(TYPICAL.values()))
    if not epochs:
        return typical
    rows = np.array([e.row for e in epochs])
    seconds = np.array([max(e.seconds, 1e-4) for e in epochs])
    typical = typical * math.exp(float(np.median(np.log(seconds / (rows @ typical)))))
    # Unknowns are the prices in units of the typical ones, so that one strength fits all.
    scaled = rows * typical / seconds[:, None]
    pull = strength * np.eye(len(typical))
    found, _ = nnls(np.vstack([scaled, pull]), np.concatenate([np.ones(len(seconds)), np.full(len(typical), strength)]))
    return found * typical


def _row(amounts: Mapping[str, float]) -> np.ndarray:
    return np.array([amounts.get(name, 0.0) for name in TYPICAL])


def amounts_of(
    network: Network | None, config: Mapping[str, Any], images: int, validation: int, first: bool = False
) -> Amounts:
    """The amounts of one epoch of a configuration on so many training and validation images."""
    batch = config["training"]["batch_size"]
    steps, seen = math.ceil(images / batch), images + FORWARD * validation
    augment = sum(bool(v) for v in config["data"].get("augment", {}).values())
    found: Amounts = {"epoch": 1.0, "step": steps + FORWARD * math.ceil(validation / 256), "image": seen}
    if network is not None:
        found |= {name: seen * amount for name, amount in per_image(network).items()}
        found["weights updated"] = float(steps * network.parameters)
        found["augmented"] = float(images * augment * prod(network.input_shape))
        found["layers"] = float(len(network.layers) + augment)
    return found | first_epoch(found) if first else found


def first_epoch(amounts: Mapping[str, float]) -> Amounts:
    """What the first epoch has besides: tracing the functions that it runs."""
    return {"first epoch": 1.0, "first epoch, by layer": amounts.get("layers", 10.0)}


def per_image(network: Network) -> Amounts:
    """The work of a network for one image, by kind."""
    found = dict.fromkeys(
        ("multiply-adds", "patches", "convolved", "max pooled", "average pooled", "normalised", "activated",
         "activated by exp"), 0.0,
    )  # fmt: skip
    shape = network.input_shape
    for row in network.layers:
        size, kind = float(prod(row.output_shape)), row.layer.kind
        found["multiply-adds"] += row.mult_adds
        if kind == "conv":
            found["patches"] += size / row.output_shape[-1] * row.layer.settings["kernel_size"] ** 2 * shape[-1]
            found["convolved"] += size
        elif kind in ("max_pool", "average_pool"):
            found["max pooled" if kind == "max_pool" else "average pooled"] += prod(shape)
        elif kind == "batch_norm":
            found["normalised"] += size
        elif kind == "activation":
            cheap = row.layer.settings["function"] in ("relu", "linear", "relu6", "leaky_relu")
            found["activated" if cheap else "activated by exp"] += size
        shape = row.output_shape
    return found

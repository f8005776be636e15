"""Short signals of four shapes, made by formulas: of any pitch, shifted, and with noise."""

from __future__ import annotations

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays

SHAPES = ("sine", "square", "sawtooth", "chirp")
STEPS, SIGNALS, TEST_SIGNALS, NOISE = 256, 1600, 400, 0.5


@configured_by(DataConfig)
def load(config: DataConfig) -> Arrays:  # noqa: ARG001 - every loader takes the config
    """The same signals each time, float32 (signals, 256, 1): 1,600 for training and 400 for the test."""
    rng, y = np.random.default_rng(0), np.arange(SIGNALS + TEST_SIGNALS, dtype=np.int32) % len(SHAPES)
    x = np.stack([_signal(rng, SHAPES[label]) for label in y])[..., None].astype(np.float32)
    return Arrays(
        x_train=x[:SIGNALS],
        y_train=y[:SIGNALS],
        x_test=x[SIGNALS:],
        y_test=y[SIGNALS:],
        class_names=SHAPES,
        source="formulas in cnnsweep",
        scale=1.0,
        name="made_signals",
        kind="signal",
    )


def _signal(rng: np.random.Generator, shape: str) -> Array:
    time = np.linspace(0, 1, STEPS, endpoint=False)
    phase = (rng.uniform(6, 14) * time + rng.random()) % 1
    match shape:
        case "sine":
            wave = np.sin(2 * np.pi * phase)
        case "square":
            wave = np.where(phase < 0.5, 1.0, -1.0)
        case "sawtooth":
            wave = 2 * phase - 1
        case _:
            wave = np.sin(2 * np.pi * (rng.uniform(4, 7) * time + rng.uniform(8, 14) * time**2 + rng.random()))
    return wave * rng.uniform(0.7, 1.3) + rng.normal(0, NOISE, STEPS)

"""Keras' global settings, and the environment in which it is imported."""

from __future__ import annotations

import os


def environment(backend: str) -> dict[str, str]:
    """The environment in which Keras is to be imported with a backend; what the user has set stays.

    TensorFlow turns oneDNN on by itself only on processors with instructions for neural networks, but it is faster on
    others too (experiments/benchmarks/training_speed.md).
    """
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1"}
    chosen = {} if backend == "none" else {"KERAS_BACKEND": backend}
    return chosen | {name: os.environ.get(name, value) for name, value in defaults.items()}


def use_defaults() -> None:
    """Put Keras' own defaults in place of what keras.json, the environment or an earlier job of the process set."""
    from keras import config

    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    config.set_epsilon(1e-7)
    config.set_dtype_policy("float32")
    if hasattr(config, "set_max_epochs"):  # Keras 3.11
        config.set_max_epochs(None)
        config.set_max_steps_per_epoch(None)

"""Keras' global settings."""

from __future__ import annotations


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

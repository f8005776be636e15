"""Weights of a backbone from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.errors import UserError, nearest

if TYPE_CHECKING:
    import keras


def load_file(built: keras.Model, name: str, weights: str) -> None:
    """Load a file of weights into the application `name`. Raises UserError where there is none, or it does not fit."""
    path = Path(weights).expanduser()
    if not path.is_file():
        beside = (p.name for p in path.parent.glob("*") if p.is_file())
        raise UserError(
            f"model.weights: '{weights}' is neither imagenet nor none nor a file{nearest(path.name, beside)}"
        )
    try:
        built.load_weights(path)
    except Exception as error:  # h5py and Keras raise errors of many types
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.weights: '{weights}' does not fit {name} without its classifier (include_top=False): {first}"
        ) from error
    _divide_by_deviation(built, name)


def _divide_by_deviation(built: keras.Model, name: str) -> None:
    """Let EfficientNet divide by the deviations of ImageNet's colours, which its files have as variances.

    Keras corrects that by another layer, which it adds with `weights="imagenet"` alone.
    """
    import keras

    deviation = getattr(sys.modules[getattr(keras.applications, name).__module__], "IMAGENET_STDDEV_RGB", None)
    for layer in built.layers:
        if deviation and isinstance(layer, keras.layers.Normalization):
            variance = np.asarray(layer.adapt_variance)
            if np.allclose(variance, deviation, atol=1e-3):
                layer.adapt_variance.assign(variance * deviation)
                layer.finalize_state()

"""KerasTuner's Hyperband as the record keeper of search=hyperband; it imports TensorFlow."""

from __future__ import annotations

import cnnsweep.training.lean_keras  # noqa: F401  before KerasTuner imports Keras in full

# isort: split
import keras_tuner

from cnnsweep.search.keras_tuner_engine import Engine


class HyperbandEngine(Engine, keras_tuner.oracles.HyperbandOracle):
    """Adds the sizes and epochs of Hyperband's brackets."""

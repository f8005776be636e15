"""Random search (Bergstra and Bengio 2012): uniform over the valid configurations, none twice."""

from __future__ import annotations

import keras_tuner

from cnnsweep.search.oracle import Proposing


class RandomOracle(Proposing, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search over configurations that are valid and new."""

    several = True

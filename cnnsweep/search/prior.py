"""What is expected of a configuration before anything is trained, by rules of thumb for convolutional networks.

A learning rate that suits the optimizer and the batch, normalisation, and a network that is not too small. The rules
are guesses: a search weighs them by what it observes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cnnsweep.search_space.problem import Problem

LEARNING_RATES = {"sgd": 2e-2, "adagrad": 2e-2, "adadelta": 1.0, "rmsprop": 1e-3, "lion": 3e-4}
OTHERWISE = 2e-3
"""Of Adam and its relatives, for batches of `BATCH`; it grows with the root of the batch (Krizhevsky 2014)."""
BATCH = 64
DECADE = 0.25
"""How much the logarithm of the error grows where the learning rate is ten times too large or too small."""
NORMALISED, CAPACITY = 0.15, 0.1
"""How much it falls with batch normalisation, and while multiply-adds grow e-fold."""


def expected_error(problem: Problem, values: Mapping[str, object]) -> float:
    """The logarithm of a configuration's error or loss, up to a constant."""
    training = problem.config.with_values({k: v for k, v in values.items() if k.startswith("training.")}).training
    best = LEARNING_RATES.get(training.optimizer, OTHERWISE) * math.sqrt(training.batch_size / BATCH)
    found = DECADE * math.log10(max(training.learning_rate, 1e-12) / best) ** 2
    found -= NORMALISED * bool(values.get("model.batch_norm"))
    network = problem.validate(values).network
    return found - CAPACITY * math.log(network.mmacs) if network and network.mmacs > 0 else found

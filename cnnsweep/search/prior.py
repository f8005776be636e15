"""What is expected of a configuration before anything is trained, by rules of thumb for convolutional networks.

A learning rate that suits the optimizer, the batch and the length of training; batch normalisation; many steps; a
network that is not too small, and that does not shrink its maps too much. The rules are guesses with weights that agree
on three tables of trained networks (experiments/search_quality): a search weighs them by what it observes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cnnsweep.geometry.network import Network
from cnnsweep.search_space.problem import Problem

LEARNING_RATES = {"sgd": 2e-2, "adagrad": 2e-2, "adadelta": 1.0, "rmsprop": 1e-3, "lion": 3e-4}
OTHERWISE = 2e-3
"""Of Adam and its relatives, for batches of `BATCH`; it grows with the root of the batch (Krizhevsky 2014)."""
BATCH = 64
STEPS, MOST = 25_000, 4.0
"""So many steps suit these rates; fewer suit larger ones, by the root of how many times fewer, up to `MOST` times."""
DECADE, NEAR = 0.5, 0.3
"""How much the logarithm of the error grows with each factor of ten by which the learning rate is too large or too
small; within a factor of 10^`NEAR` it grows little.
"""
NORMALISED = 0.25
"""How much it falls with batch normalisation."""
BATCHES = 0.05
"""How much it grows while the batch grows e-fold, so that there are fewer steps."""
SIZE = 0.06
"""How much it falls while parameters grow e-fold, and as much for multiply-adds."""
MAPS = 0.06
"""How much it falls while the positions of the last feature map grow e-fold."""


def expected_error(problem: Problem, values: Mapping[str, object]) -> float:
    """The logarithm of a configuration's error or loss, up to a constant."""
    training = problem.config.with_values({k: v for k, v in values.items() if k.startswith("training.")}).training
    steps = training.epochs * training.examples(problem.images[0]) / training.batch_size
    best = LEARNING_RATES.get(training.optimizer, OTHERWISE) * math.sqrt(training.batch_size / BATCH)
    best *= min(max(math.sqrt(STEPS / steps), 1.0), MOST)
    off = math.log10(max(training.learning_rate, 1e-12) / best)
    found = DECADE * math.hypot(off, NEAR) + BATCHES * math.log(training.batch_size)
    found -= NORMALISED * bool(values.get("model.batch_norm"))
    network = problem.validate(values).network
    return found - _of_network(network) if network else found


def _of_network(network: Network) -> float:
    """How much the size of a network and of its last feature map promises."""
    found = SIZE * sum(math.log(size) for size in (network.parameters, network.mmacs) if size > 0)
    maps = [row.output_shape for row in network.layers if len(row.output_shape) > 1]
    return found + MAPS * math.log(math.prod(maps[-1][:-1])) if maps else found

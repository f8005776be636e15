"""The scale on which learning curves are compared: the logarithm of the distance to the best value that is possible."""

from __future__ import annotations

import numpy as np

from cnnsweep.config.objective import Objective
from cnnsweep.config.tasks import kind_of

LEAST = 1e-4
"""Smaller errors count as equal: of a share as such, of other metrics in relation to the median."""
SHARE = 0.5
"""A metric that Keras does not know counts as a share from a best value of so much on."""
BEYOND = 3.0
"""Where no limit is known: how far the best possible is beyond the best, in its lead on the best quarter."""


def log_errors(values: np.ndarray, objective: Objective) -> np.ndarray:
    """Logarithms of errors, (trials, epochs), of values of that shape, of which the smaller are the better.

    `values`: the best until each epoch, with their sign changed where larger ones are better. No loss is thought to be
    below 0, no share above 1, and no metric that was never above 0 to come above it. Other metrics (percentages,
    rewards, likelihoods) have a limit that is taken from how they differ, so that their unit makes no difference.
    """
    ends = values[:, -1]
    best, unit = float(ends.min()), 1.0
    least = 0.0 if kind_of(objective.metric) else SHARE
    if objective.direction == "max" and -1 <= best < -least:
        limit = -1.0
    else:
        limit = 0.0 if best >= 0 else best - BEYOND * (float(np.quantile(ends, 0.25)) - best or abs(best))
        unit = float(np.median(ends)) - limit or 1.0
    return np.asarray(np.log(np.maximum(values - limit, LEAST * unit)))

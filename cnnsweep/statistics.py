"""Statistics of measured shares."""

from __future__ import annotations

import math


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share measured on `count` independent cases (Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half

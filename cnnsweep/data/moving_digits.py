"""Videos of handwritten digits, 0 to 4, that move left or right: which digit, and which way.

Neither a frame alone nor the mean of all frames tells the direction, since each video is as often played backwards.
"""

from __future__ import annotations

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays
from cnnsweep.data.digits import read

DIGITS, FRAMES, SIDE, WIDTH = 5, 6, 8, 16
CLASSES = tuple(f"{digit} {way}" for digit in range(DIGITS) for way in ("left", "right"))


@configured_by(DataConfig)
def load(config: DataConfig) -> Arrays:  # noqa: ARG001 - every loader takes the config
    """The same videos each time, uint8 (videos, 6, 8, 16, 1); a fifth of the digits is in those of the test alone."""
    (pictures, digits), rng = read(), np.random.default_rng(0)
    pictures, digits = pictures[digits < DIGITS], digits[digits < DIGITS]
    videos, labels = [], []
    for picture, digit in zip(pictures, digits, strict=True):
        right = _moving(rng, picture)
        videos += [right[::-1], right]
        labels += [2 * digit, 2 * digit + 1]
    x, y = np.stack(videos)[..., None], np.array(labels, np.int32)
    first = 2 * (len(pictures) * 4 // 5)
    return Arrays(
        x_train=x[:first],
        y_train=y[:first],
        x_test=x[first:],
        y_test=y[first:],
        class_names=CLASSES,
        source="scikit-learn's load_digits, moved",
        scale=1 / 16,
        name="moving_digits",
        kind="video",
    )


def _moving(rng: np.random.Generator, picture: Array) -> Array:
    """A digit that moves right by 1 to 2 pixels a frame: (frames, height, width)."""
    speed = rng.uniform(1, (WIDTH - SIDE) / (FRAMES - 1))
    start = rng.integers(0, WIDTH - SIDE - int(speed * (FRAMES - 1)) + 1)
    video = np.zeros((FRAMES, SIDE, WIDTH), np.uint8)
    for frame in range(FRAMES):
        left = start + int(speed * frame)
        video[frame, :, left : left + SIDE] = picture
    return video

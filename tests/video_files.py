"""Small video files and folders of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RATE = 10
"""Frames a second of the files."""


def frames(count: int = 12, height: int = 8, width: int = 12, first: int = 0) -> np.ndarray:
    """Grey frames (count, height, width, 3), each brighter than the one before by 10."""
    return (
        np.full((count, height, width, 3), 1, np.uint8)
        * np.arange(first, first + 10 * count, 10, np.uint8)[:, None, None, None]
    )


def write(path: Path, pictures: np.ndarray, codec: str = "ffv1", pixels: str = "bgr0") -> Path:
    """A video file of RGB frames, by default without loss."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, pictures: np.ndarray) -> Path:
    """A folder of numbered PNG files, whose numbers have no zeros before them."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder

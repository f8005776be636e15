"""JPEG files that need no resizing: libjpeg decodes them at any number of eighths of their size, straight to an array.

The inverse transform takes the place of the filter. That is about half the work, and nearer to an ideal filter than
the one of `decode` is.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from simplejpeg import decode_jpeg, decode_jpeg_header

from cnnsweep.data.arrays import Array

EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
SPACES = ("YCbCr", "Gray")
COLORS = {"rgb": "RGB", "grey": "GRAY"}
Size = tuple[int, int]
"""(height, width)"""


def read_jpeg(raw: bytes, size: Size, color: str, resize: str) -> Array | None:
    """Return what `decode` does, or None where Pillow has to: for files that no number of eighths makes fit, turned
    ones, other formats and colour spaces, and those to be judged because they are broken or enormous.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = decode_jpeg_header(raw)
        least = _reduced((height, width), size, resize)
        if least is None or space not in SPACES or _is_enormous(height * width) or _is_turned(raw):
            return None
        pixels = decode_jpeg(raw, COLORS[color], min_height=least[0], min_width=least[1])
    except ValueError:
        return None
    return _padded(pixels, size) if resize == "pad" else _cropped(pixels, size)


def is_turned(image: Image.Image) -> bool:
    """Whether a camera says that the image does not lie as it is stored."""
    return "exif" in image.info and image.getexif().get(ORIENTATION, 1) != 1


def _reduced(shape: Size, size: Size, resize: str) -> Size | None:
    """Return the number of eighths of `shape` that fits `size` without resizing, if there is one.

    >>> _reduced((256, 341), (224, 224), "crop"), _reduced((300, 400), (224, 224), "crop")
    ((224, 299), None)
    >>> _reduced((256, 341), (299, 299), "pad"), _reduced((256, 384), (224, 336), "stretch")
    ((224, 299), (224, 336))
    """
    for eighths in range(1, 9):
        reduced = -(-shape[0] * eighths // 8), -(-shape[1] * eighths // 8)
        over = reduced[0] - size[0], reduced[1] - size[1]
        if over == (0, 0) or (resize == "crop" and min(over) == 0) or (resize == "pad" and max(over) == 0):
            return reduced
    return None


def _is_enormous(pixels: int) -> bool:
    return Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS


def _is_turned(raw: bytes) -> bool:
    if EXIF not in raw:
        return False
    with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
        return is_turned(image)


def _cropped(pixels: Array, size: Size) -> Array:
    top, left = (pixels.shape[0] - size[0]) // 2, (pixels.shape[1] - size[1]) // 2
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _padded(pixels: Array, size: Size) -> Array:
    height, width, channels = pixels.shape
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded = np.zeros((*size, channels), np.uint8)
    padded[top : top + height, left : left + width] = pixels
    return padded

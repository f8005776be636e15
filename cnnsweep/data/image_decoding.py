"""Decoding of one image file to pixels, of any format, mode, depth, size and orientation.

Training, `predict` and the example of an exported network all decode with it; `export` puts a copy of this file beside
the network, so it imports nothing of the package.

A JPEG that needs no resizing is decoded by libjpeg, at one of the eighths of its size that it offers, straight to an
array: the inverse transform takes the place of the filter, at about half the work and nearer to an ideal filter.
Pillow decodes all others.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from simplejpeg import decode_jpeg, decode_jpeg_header

Array = NDArray[Any]
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jfif",
)  # fmt: skip
"""Of the names that image files mostly have; any other may hold an image too."""
MODES = {"rgb": "RGB", "grey": "L"}
JPEG_SPACES = ("YCbCr", "Gray")
JPEG_COLORS = {"rgb": "RGB", "grey": "GRAY"}
ORIENTED = (b"Exif\0\0", b"tiff:Orientation")
"""One of these is in a JPEG that may be turned: Exif, and XMP."""
ORIENTATION = 0x0112
PNG, PNG_DEPTH, PNG_COLOURED = b"\x89PNG\r\n\x1a\n", 24, 25
"""The signature of a PNG; the bytes with the bits of a channel, and with 0 for grey."""
DEEP_STARTS = (b"II", b"MM", b"P2", b"P5", b"P6", b"P3", b"Pf")
"""Of TIFF and PPM files, which may have more than 8 bits."""
START = 26
"""Bytes of a file that say whether it may have more than 8 bits."""
BITS_PER_SAMPLE = 258
USUAL_DEPTHS = (1, 8, 12, 16, 32)
"""Of one image alone, whose own values say little."""
MOST_MEGAPIXELS = 180.0
"""Of an image file for a network that was not trained on files; about Pillow's own limit."""
Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True)
class Decoding:
    """Settings of the decoding."""

    dtype: ClassVar[type] = np.uint8
    size: Size
    """(height, width)"""
    color: str
    """ "rgb" or "grey" """
    resize: str
    """"crop" keeps the proportions and cuts the longer side, "pad" fills with black, "stretch" distorts."""
    max_megapixels: float
    """An image file of more is refused."""
    values: tuple[float, float] | None = None
    """The values of grey images of more than 8 bits that become 0 and 255; None: by each image's own depth."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, channels)"""
        return (*self.size, 3 if self.color == "rgb" else 1)

    @classmethod
    def plain(cls, shape: Sequence[int | None]) -> Decoding | None:
        """The settings for images of a shape that were no files; None for shapes that are not those of images."""
        match [*shape]:
            case [int(height), int(width), (1 | 3) as channels]:
                return cls((height, width), "rgb" if channels == 3 else "grey", "crop", MOST_MEGAPIXELS)
        return None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Decoding:
        """Settings that were stored as JSON."""
        values = stored["values"]
        return cls(**{**stored, "size": tuple(stored["size"]), "values": None if values is None else tuple(values)})


class BadImageError(ValueError):
    """The file is no image or is broken; the text says which, without the file's name."""


def read(path: str | os.PathLike[str], decoding: Decoding) -> Array:
    """Decode a file, on one thread; see `decode`. Raises BadImageError, and OSError where the file cannot be read."""
    with any_size():
        return decode(Path(path).read_bytes(), decoding)


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Lift Pillow's own limit of an image's size, for `max_megapixels` to take its place."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def decode(raw: bytes, decoding: Decoding) -> Array:
    """Return uint8 (height, width, 3 for "rgb" or 1 for "grey").

    Transparent pixels become white; of an animation the first frame is taken; a camera's orientation is applied.
    Raises BadImageError.
    """
    if not raw:
        raise BadImageError("is empty")
    try:
        pixels = _decode_jpeg(raw, decoding)
        if pixels is None:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                _check_size(image.size, decoding.max_megapixels)
                pixels = np.asarray(fit(_upright(image, decoding), decoding.size, decoding.resize))
    except UnidentifiedImageError:
        raise BadImageError(f"is no image ({', '.join(FORMATS[:-1])} or {FORMATS[-1]})") from None
    except BadImageError:
        raise
    except Exception as error:  # decoders of broken files raise errors of many types
        raise BadImageError(f"cannot be decoded ({error})") from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as images do."""
    try:
        with any_size(), Image.open(path, formats=FORMATS):
            return True
    except Exception:  # of many types
        return False


def _check_size(size: tuple[int, int], most: float) -> None:
    megapixels = size[0] * size[1] / 1e6
    if megapixels > most:
        pixels = f"{megapixels:,.1f} megapixels ({size[0]:,}×{size[1]:,})"
        raise BadImageError(f"has {pixels}, more than data.max_megapixels={most:g}")


def _upright(image: Image.Image, decoding: Decoding) -> Image.Image:
    mode = MODES[decoding.color]
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, for as much less time.
    image.draft(mode, (max(decoding.size), max(decoding.size)))
    image.load()
    # Asked first, because exif_transpose copies an image that is upright as well.
    turned = ImageOps.exif_transpose(image) if _is_turned(image) else image
    if _is_deep(turned):
        turned = _eight_bits(turned, decoding.values)
    if turned.has_transparency_data:
        colours = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return turned if turned.mode == mode else turned.convert(mode)


def _is_turned(image: Image.Image) -> bool:
    """Whether a camera says that the image does not lie as it is stored; not, where what it says is broken."""
    try:
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    except Exception:  # of many types
        return False


def _is_deep(image: Image.Image) -> bool:
    """Whether a pixel is one number of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _eight_bits(image: Image.Image, values: tuple[float, float] | None) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    found = _extremes(pixels)
    low, high = values or value_range(*found, USUAL_DEPTHS)
    return Image.fromarray(np.clip(np.rint((pixels - low) * (255 / (high - low))), 0, 255).astype(np.uint8))


def _extremes(pixels: Array) -> tuple[float, float]:
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(high - low):
        raise BadImageError("holds values that are no numbers")
    return low, high


def value_range(low: float, high: float, depths: Iterable[int] = range(1, 33)) -> tuple[float, float]:
    """The values that become black and white, in images whose values go from `low` to `high`.

    Without negative values these are 0 and the largest number of so many bits: a camera of 12 bits has 4,095.

    >>> value_range(3, 700), value_range(0, 700, depths=(8, 12, 16)), value_range(0, 0.7), value_range(-1024, 3071)
    ((0.0, 1023.0), (0.0, 4095.0), (0.0, 1.0), (-1024.0, 3071.0))
    """
    if low < 0:
        return float(low), float(max(high, low + 1))
    return 0.0, next((2.0**depth - 1 for depth in depths if high <= 2**depth - 1), float(high))


def may_be_deep(start: bytes) -> bool:
    """Whether an image file, of which these are the first `START` bytes, may have more than 8 bits a channel."""
    return start[PNG_DEPTH : PNG_DEPTH + 1] == b"\x10" if start.startswith(PNG) else start.startswith(DEEP_STARTS)


def deep_values(raw: bytes, max_megapixels: float) -> tuple[float, float] | str | None:
    """The lowest and highest value of a grey image of more than 8 bits; "rgb" for one with colours; None for others."""
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            _check_size(image.size, max_megapixels)
            if _is_deep(image):
                return _extremes(np.asarray(image))
            bits = image.getexif().get(BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)
            coloured = raw.startswith(PNG) and raw[PNG_DEPTH] == 16
            return "rgb" if coloured or max(bits if isinstance(bits, tuple) else (bits,)) > 8 else None
    except Exception:  # broken or too large, which decoding it says
        return None


def fit(image: Image.Image, size: Size, resize: str) -> Image.Image:
    """Resize an image to (height, width)."""
    wanted, method = (size[1], size[0]), Image.Resampling.BILINEAR
    if image.size == wanted:
        return image
    if resize == "crop":
        return ImageOps.fit(image, wanted, method)
    return ImageOps.pad(image, wanted, method) if resize == "pad" else image.resize(wanted, method)


def _decode_jpeg(raw: bytes, decoding: Decoding) -> Array | None:
    """Decode by libjpeg, or return None where Pillow has to decode: files that fit at no number of eighths, turned
    ones, other formats and colour spaces, and broken or enormous ones, for which the error comes from there.
    """
    size, resize = decoding.size, decoding.resize
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = decode_jpeg_header(raw)
        reduced = _reduced_size((height, width), size, resize)
        enormous = height * width > decoding.max_megapixels * 1e6
        if reduced is None or space not in JPEG_SPACES or enormous or _is_jpeg_turned(raw):
            return None
        pixels = decode_jpeg(raw, JPEG_COLORS[decoding.color], min_height=reduced[0], min_width=reduced[1])
    except ValueError:
        return None
    return _pad(pixels, size) if resize == "pad" else _crop(pixels, size)


def _reduced_size(shape: Size, size: Size, resize: str) -> Size | None:
    """Return the number of eighths of `shape` that fits `size` without resizing, if there is one.

    >>> _reduced_size((256, 341), (224, 224), "crop"), _reduced_size((300, 400), (224, 224), "crop")
    ((224, 299), None)
    >>> _reduced_size((256, 341), (299, 299), "pad"), _reduced_size((256, 384), (224, 336), "stretch")
    ((224, 299), (224, 336))
    """
    for eighths in range(1, 9):
        reduced = -(-shape[0] * eighths // 8), -(-shape[1] * eighths // 8)
        over = reduced[0] - size[0], reduced[1] - size[1]
        if over == (0, 0) or (resize == "crop" and min(over) == 0) or (resize == "pad" and max(over) == 0):
            return reduced
    return None


def _is_jpeg_turned(raw: bytes) -> bool:
    if not any(mark in raw for mark in ORIENTED):
        return False
    with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
        return _is_turned(image)


def _crop(pixels: Array, size: Size) -> Array:
    top, left = (pixels.shape[0] - size[0]) // 2, (pixels.shape[1] - size[1]) // 2
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _pad(pixels: Array, size: Size) -> Array:
    height, width = pixels.shape[:2]
    above, before = (size[0] - height) // 2, (size[1] - width) // 2
    return np.pad(pixels, ((above, size[0] - height - above), (before, size[1] - width - before), (0, 0)))

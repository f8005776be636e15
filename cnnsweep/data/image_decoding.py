"""Decoding of one image file to pixels, of any format, mode, size and orientation.

A JPEG that needs no resizing is decoded by libjpeg, at one of the eighths of its size that it offers, straight to an
array: the inverse transform takes the place of the filter, at about half the work and nearer to an ideal filter.
Pillow decodes all others.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from simplejpeg import decode_jpeg, decode_jpeg_header

from cnnsweep.data.arrays import Array

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
MODES = {"rgb": "RGB", "grey": "L"}
JPEG_SPACES = ("YCbCr", "Gray")
JPEG_COLORS = {"rgb": "RGB", "grey": "GRAY"}
EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
Size = tuple[int, int]
"""(height, width)"""


class BadImageError(ValueError):
    """The file is no image or is broken; the text says which, without the file's name."""


def decode(raw: bytes, size: Size, color: str, resize: str) -> Array:
    """Return uint8 (height, width, 3 for "rgb" or 1 for "grey").

    Transparent pixels become white; of a GIF the first frame is taken; a camera's orientation is applied.
    `resize`: "crop" keeps the proportions and cuts the longer side, "pad" fills with black, "stretch" distorts.
    Raises BadImageError.
    """
    if not raw:
        raise BadImageError("is empty")
    try:
        pixels = _decode_jpeg(raw, size, color, resize)
        if pixels is None:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                pixels = np.asarray(_fit(_upright(image, size, MODES[color]), size, resize))
    except UnidentifiedImageError:
        raise BadImageError(f"is no image ({', '.join(FORMATS[:-1])} or {FORMATS[-1]})") from None
    except Exception as error:  # decoders of broken files raise errors of many types
        raise BadImageError(f"cannot be decoded ({error})") from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _upright(image: Image.Image, size: Size, mode: str) -> Image.Image:
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, for as much less time.
    image.draft(mode, (max(size), max(size)))
    # Asked first, because exif_transpose copies an image that is upright as well.
    turned = ImageOps.exif_transpose(image) if _is_turned(image) else image
    if turned.mode.startswith("I"):  # 16 bits a pixel
        turned = Image.fromarray((np.asarray(turned).astype(np.uint32) >> 8).astype(np.uint8))
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        colours = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return turned if turned.mode == mode else turned.convert(mode)


def _is_turned(image: Image.Image) -> bool:
    """Whether a camera says that the image does not lie as it is stored."""
    return "exif" in image.info and image.getexif().get(ORIENTATION, 1) != 1


def _fit(image: Image.Image, size: Size, resize: str) -> Image.Image:
    wanted, method = (size[1], size[0]), Image.Resampling.BILINEAR
    if image.size == wanted:
        return image
    if resize == "crop":
        return ImageOps.fit(image, wanted, method)
    return ImageOps.pad(image, wanted, method) if resize == "pad" else image.resize(wanted, method)


def _decode_jpeg(raw: bytes, size: Size, color: str, resize: str) -> Array | None:
    """Decode by libjpeg, or return None where Pillow has to decode: files that fit at no number of eighths, turned
    ones, other formats and colour spaces, and broken or enormous ones, for which Pillow has the error.
    """
    if not raw.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = decode_jpeg_header(raw)
        reduced = _reduced_size((height, width), size, resize)
        enormous = Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS
        if reduced is None or space not in JPEG_SPACES or enormous or _is_jpeg_turned(raw):
            return None
        pixels = decode_jpeg(raw, JPEG_COLORS[color], min_height=reduced[0], min_width=reduced[1])
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
    if EXIF not in raw:
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

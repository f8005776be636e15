"""One image file's bytes to pixels: whatever its format, mode, size and orientation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cnnsweep.data.arrays import Array
from cnnsweep.data.jpeg import is_turned, read_jpeg

FORMATS = ("JPEG", "PNG", "BMP", "GIF")
MODES = {"rgb": "RGB", "grey": "L"}


class BadImageError(ValueError):
    """The file is no image or is broken; the text says which, without the file's name."""


def decode(raw: bytes, size: tuple[int, int], color: str, resize: str) -> Array:
    """Return uint8 (height, width, 3 for "rgb" or 1 for "grey"); `size` is (height, width).

    What is transparent becomes white; of a GIF the first frame is taken; a camera's orientation is applied.
    `resize`: "crop" keeps the proportions and cuts what sticks out, "pad" fills with black, "stretch" distorts.
    Raises BadImageError.
    """
    if not raw:
        raise BadImageError("is empty")
    try:
        pixels = read_jpeg(raw, size, color, resize)
        if pixels is None:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                pixels = np.asarray(_fitted(_upright(image, size, MODES[color]), size, resize))
    except UnidentifiedImageError:
        raise BadImageError(f"is no image ({', '.join(FORMATS[:-1])} or {FORMATS[-1]})") from None
    except Exception as error:  # decoders of broken files raise whatever they come across
        raise BadImageError(f"cannot be decoded ({error})") from error
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _upright(image: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, for as much less time.
    image.draft(mode, (max(size), max(size)))
    # Asked first, because exif_transpose copies an image that is upright as well.
    turned = ImageOps.exif_transpose(image) if is_turned(image) else image
    if turned.mode.startswith("I"):  # 16 bits a pixel
        turned = Image.fromarray((np.asarray(turned).astype(np.uint32) >> 8).astype(np.uint8))
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        colours = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return turned if turned.mode == mode else turned.convert(mode)


def _fitted(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    wanted, method = (size[1], size[0]), Image.Resampling.BILINEAR
    if image.size == wanted:
        return image
    if resize == "crop":
        return ImageOps.fit(image, wanted, method)
    return ImageOps.pad(image, wanted, method) if resize == "pad" else image.resize(wanted, method)

"""Classifying image files with an exported network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.errors import UserError, nearest
from cnnsweep.sweep.session import framework_noise_to
from cnnsweep.training import keras_settings

if TYPE_CHECKING:
    import keras

TOP = 3


@dataclass(frozen=True)
class Labels:
    """The content of a model's labels.json."""

    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    scale: float
    """Multiplying pixels of the training data by this gives 0 to 1."""


def classify(where: Path, paths: Sequence[Path]) -> list[list[tuple[str, float]]]:
    """Return the most probable classes of each image file, with their probabilities.

    `where` is an exported folder or a .keras file. Raises UserError for a model or an image that cannot be used.
    """
    labels = read_labels(where)
    # Before the seconds that loading the model takes, where the size is known.
    images = None if labels is None else [read_image(path, labels.input_shape, labels.scale) for path in paths]
    with framework_noise_to(Path(os.devnull)):
        model = load(where)
        if images is None:
            images = [read_image(path, model.input_shape[1:], 1 / 255) for path in paths]
        probabilities = np.asarray(model.predict(np.stack(images), verbose=0))
    names = labels.classes if labels else [str(i) for i in range(probabilities.shape[1])]
    return [[(names[i], float(row[i])) for i in np.argsort(-row)[:TOP]] for row in probabilities]


def load(where: Path) -> keras.Model:
    """Load the network of an exported folder or a .keras file, without running code from the file (Keras' safe mode).

    Raises UserError where there is none or it cannot be loaded.
    """
    path = model_file(where)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    keras_settings.use_defaults()
    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"'{path}' cannot be loaded as a Keras model: {first[:300]}") from error


def model_file(where: Path) -> Path:
    """The .keras file of a folder, or the file itself."""
    if where.is_dir():
        for path in (where / "model.keras", where / "data" / "model.keras"):
            if path.is_file():
                return path
        raise UserError(f"'{where}' holds no model.keras; name a folder that export wrote, or a .keras file")
    if not where.is_file():
        raise UserError(f"there is no model at '{where}'{_nearest_file(where)}")
    if where.suffix != ".keras":
        raise UserError(f"'{where}' is no .keras file; name a folder that export wrote, or a .keras file")
    return where


def read_labels(where: Path) -> Labels | None:
    """The labels.json beside the model; None where there is no such file."""
    from cnnsweep.training.evaluate import LABELS

    path = model_file(where).parent / LABELS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Labels(tuple(content["classes"]), tuple(content["input_shape"]), float(content["scale"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error


def read_image(path: Path, shape: Sequence[int], scale: float) -> np.ndarray:
    """Read an image file as the model takes it: float32 (height, width, channels), in the range of the training data.

    Grey and colour are converted as needed. Raises UserError where it is no image or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    if len(shape) != 3:
        raise UserError(f"the model takes inputs of the shape {tuple(shape)}, not images")
    height, width, channels = shape
    try:
        with Image.open(path) as image:
            size = image.size
            flat = image.convert("RGBA") if size == (width, height) else None
    except UnidentifiedImageError:
        raise UserError(f"'{path}' is no image that can be read (PNG, JPEG, BMP, GIF, TIFF, WebP)") from None
    except FileNotFoundError:
        raise UserError(f"there is no image '{path}'{_nearest_file(path)}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as an image: {error}") from error
    if flat is None:
        raise UserError(
            f"'{path}' has {size[0]}×{size[1]} pixels (width×height); the model takes {width}×{height}: "
            "crop or resize it as the training images were"
        )
    black = Image.new("RGBA", flat.size, (0, 0, 0, 255))
    pixels = Image.alpha_composite(black, flat).convert("L" if channels == 1 else "RGB")
    array = np.asarray(pixels, "float32")
    return (array if channels == 3 else array[..., None]) / (255 * scale)


def _nearest_file(path: Path) -> str:
    return nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])

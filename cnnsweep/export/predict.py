"""Classifying image files with an exported network."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.errors import UserError, nearest
from cnnsweep.sweep.session import framework_noise_to

TOP = 3


def command(arguments: Sequence[str]) -> int:
    """Predict: `predict MODEL IMAGE ...`; MODEL is an exported folder or a .keras file."""
    parser = argparse.ArgumentParser(prog="cnnsweep predict", description="Print the classes of images.")
    parser.add_argument("model", type=Path, help="a folder that export wrote, or a .keras file")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, BMP ... of the model's size")
    options = parser.parse_args(list(arguments))
    labels = read_labels(options.model)
    shape = None if labels is None else tuple(labels["input_shape"])
    # Before the seconds that loading the model takes, where the size is known.
    early = None if labels is None else [read_image(path, shape, labels["scale"]) for path in options.images]
    with framework_noise_to(Path(os.devnull)):
        model = load(options.model)
        shape = tuple(model.input_shape[1:])
        scale = 1 / 255 if labels is None else labels["scale"]
        images = early or [read_image(path, shape, scale) for path in options.images]
        probabilities = np.asarray(model.predict(np.stack(images), verbose=0))
    names = labels["classes"] if labels else [str(i) for i in range(probabilities.shape[1])]
    for path, row in zip(options.images, probabilities, strict=True):
        best = np.argsort(-row)[:TOP]
        print(f"{path}: " + "  ".join(f"{names[i]} {row[i]:.4f}" for i in best))
    return 0


def load(where: Path) -> Any:
    """Load the network of an exported folder or a .keras file, without running code from the file (Keras' safe mode).

    Raises UserError where there is none or it cannot be loaded.
    """
    path = model_file(where)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

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
        beside = [p.name for p in where.parent.iterdir()] if where.parent.is_dir() else []
        raise UserError(f"there is no model at '{where}'{nearest(where.name, beside)}")
    if where.suffix != ".keras":
        raise UserError(f"'{where}' is no .keras file; name a folder that export wrote, or a .keras file")
    return where


def read_labels(where: Path) -> Mapping[str, Any] | None:
    """What stands in labels.json beside the model: classes, input_shape, scale; None where there is no such file."""
    from cnnsweep.training.evaluate import LABELS

    path = model_file(where).parent / LABELS
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        return {
            "classes": list(labels["classes"]),
            "input_shape": list(labels["input_shape"]),
            "scale": float(labels["scale"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error


def read_image(path: Path, shape: Sequence[int] | None, scale: float) -> np.ndarray:
    """Read an image file as the model takes it: float32 (height, width, channels), in the range of the training data.

    Grey or colour becomes what the model takes. Raises UserError where it is no image or of another size.
    """
    from PIL import Image, UnidentifiedImageError

    if shape is None or len(shape) != 3:
        raise UserError(f"the model takes inputs of the shape {shape}, not images")
    height, width, channels = shape
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                found, wanted = f"{image.width}×{image.height}", f"{width}×{height}"
                raise UserError(
                    f"'{path}' has {found} pixels (width×height); the model takes {wanted}: "
                    "crop or resize it as the training images were"
                )
            flat = image.convert("RGBA")
            ground = Image.new("RGBA", flat.size, (0, 0, 0, 255))
            pixels = Image.alpha_composite(ground, flat).convert("L" if channels == 1 else "RGB")
            array = np.asarray(pixels, "float32")
    except UnidentifiedImageError:
        raise UserError(f"'{path}' is no image that can be read (PNG, JPEG, BMP, GIF, TIFF, WebP)") from None
    except FileNotFoundError:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"there is no image '{path}'{nearest(path.name, beside)}") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"'{path}' cannot be read as an image: {error}") from error
    return (array if channels == 3 else array[..., None]) / (255 * scale)

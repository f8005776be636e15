"""The feature detector of a network of keras.applications: cut, with its weights and its own preprocessing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnsweep.config.schema import BACKBONES
from cnnsweep.errors import UserError, nearest, unknown

if TYPE_CHECKING:
    import keras

RANDOM_SEED = 0
"""Of a backbone with `weights: none`: one for all trials, since they share its features."""


def build_backbone(model: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    """Build what a `model` config's backbone, weights and cut name, for RGB images of `size` (height, width).

    Values 0..255 go in after `preprocessing`; the output of the layer `cut` comes out. Raises UserError for an unknown
    layer, images that are too small, and weights that are missing or do not fit.
    """
    import keras

    whole = _application(model, size)
    cut = model["cut"]
    names = [layer.name for layer in whole.layers]
    if cut is not None and cut not in names:
        raise UserError(f"model.cut: {model['backbone']} has no layer '{cut}'{nearest(cut, names)} "
                        f"(its last layers: {', '.join(names[-6:])})")  # fmt: skip
    output = whole.output if cut is None else whole.get_layer(cut).output
    if len(output.shape) != 4:
        raise UserError(f"model.cut: '{cut}' of {model['backbone']} gives no feature maps but {output.shape[1:]}")
    return keras.Model(whole.input, output, name="backbone")


def preprocessing(name: str) -> list[keras.layers.Layer]:
    """The layers that do what the application's own `preprocess_input` does to RGB values 0..255.

    Made of Keras' own layers, so that a saved model needs nothing of ours; what they do is found by trying it.
    """
    from keras import layers, ops

    function = sys.modules[_function(name).__module__].preprocess_input
    offset = _apply(function, np.zeros(3))
    matrix = np.stack([_apply(function, 255 * unit) - offset for unit in np.eye(3)]) / 255
    made: list[Any] = []
    if np.array_equal(matrix != 0, np.fliplr(np.eye(3)) != 0):
        made.append(lambda images: ops.flip(images, axis=-1))
        matrix = np.fliplr(matrix)
    elif not np.array_equal(matrix != 0, np.eye(3) != 0):
        raise UserError(f"model.backbone: the preprocessing of {name} mixes channels, which a layer here cannot do")
    if not np.allclose(matrix, np.eye(3), atol=1e-6) or offset.any():
        scale, shift = (np.asarray(v, float).round(12).tolist() for v in (matrix.diagonal(), offset))
        made.append(layers.Rescaling(scale, shift, name="preprocessing"))
    return made


def _apply(function: Any, pixel: np.ndarray) -> np.ndarray:
    # A copy each time: some of these functions work in place.
    return np.asarray(function(pixel.astype("float64").reshape(1, 1, 1, 3).copy()))[0, 0, 0]


def _function(name: str) -> Any:
    import keras

    if name not in BACKBONES:
        raise unknown("model.backbone", name, BACKBONES)
    return getattr(keras.applications, name)


def _application(model: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    import keras

    name, weights = model["backbone"], model["weights"]
    make, shape = _function(name), (*size, 3)
    if weights == "imagenet":
        return _with_imagenet(make, name, shape)
    if weights == "none":
        keras.utils.set_random_seed(RANDOM_SEED)
    built = _built(lambda: make(include_top=False, weights=None, input_shape=shape), name, size)
    if weights != "none":
        _load(built, name, weights)
    return built


def _built(make: Any, name: str, size: tuple[int, int]) -> keras.Model:
    try:
        return make()
    except ValueError as error:
        raise UserError(f"model.input_size: {name} cannot take {size[0]}×{size[1]} images: {error}") from error


def _with_imagenet(make: Any, name: str, shape: tuple[int, int, int]) -> keras.Model:
    from cnnsweep.data.download import cache_folders, stall_limit

    try:
        with stall_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the weights were made for 224×224
            return _built(lambda: make(include_top=False, weights="imagenet", input_shape=shape), name, shape[:2])
    except UserError:
        raise
    except Exception as error:  # Keras raises a bare Exception for a failed download
        address = next((w.rstrip(":") for w in str(error).split() if w.startswith("http")), "")
        place = cache_folders()[0].parent / "models" / (address.rpartition("/")[2] or "…")
        raise UserError(
            f"model.weights=imagenet: {name}'s weights are not in Keras' cache and cannot be downloaded "
            f"({str(error).rpartition('-- ')[2]}). Download {address or 'them'} elsewhere and place the file at "
            f"{place}, or name a file with model.weights=FILE; model.weights=none starts from random weights"
        ) from error


def _load(built: keras.Model, name: str, weights: str) -> None:
    path = Path(weights).expanduser()
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
        raise UserError(
            f"model.weights: '{weights}' is neither imagenet nor none nor a file{nearest(path.name, beside)}"
        )
    try:
        built.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever they come across
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.weights: '{weights}' does not fit {name} without its classifier (include_top=False): {first}"
        ) from error

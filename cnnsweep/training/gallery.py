"""Pictures of the best trials' networks: a job that restores one and shows what it does on validation images."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.models.fine_tuning import blocks
from cnnsweep.training import checkpoint
from cnnsweep.training.train import EVAL_BATCH, build_model

MISTAKES, CLASSES, BLOCKS = 18, 10, 5


@dataclass(frozen=True)
class GallerySpec:
    """Whose pictures to draw; they go to artifacts/gallery in its folder."""

    number: int
    config: Mapping[str, Any]
    seed: int
    folder: Path
    data: Path


def draw_gallery(spec: GallerySpec) -> Generator[None, bool, str]:
    """Write the confusion matrix, mistakes, filters and feature maps as PNGs; returns the folder. A job.

    Images that are no pictures (features computed beforehand, say) leave only the confusion matrix.
    """
    from cnnsweep.report import plots
    from cnnsweep.training import pictures

    data = open_saved(spec.data)
    model = build_model(spec.config, data, spec.seed)
    checkpoint.load(spec.folder / checkpoint.BEST, model, with_optimizer=False)
    folder = spec.folder / "artifacts" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    said = model.predict(data.x_val, batch_size=EVAL_BATCH, verbose=0)
    plots.save(plots.confusion_matrix(_confusion(data, said), data.class_names), folder / "1_confusion_matrix.png")
    if data.x_val.ndim == 4 and data.x_val.shape[-1] in (1, 3):
        wrong = _most_confident_mistakes(data, said)
        if len(wrong):
            names = np.array(data.class_names)
            told = said[wrong].argmax(axis=1)
            figure = pictures.mistakes(
                _shown(data, wrong), names[data.y_val[wrong]], names[told], said[wrong].max(axis=1)
            )
            plots.save(figure, folder / "2_most_confident_mistakes.png")
        kernel = next((w for layer in _layers(model) if (w := _kernel(layer)) is not None), None)
        if kernel is not None:
            plots.save(pictures.filters(kernel), folder / "3_first_layer_filters.png")
        examples = _one_a_class(data, said)
        for block, maps in _feature_maps(model, data.x_val[examples]).items():
            labels = [data.class_names[data.y_val[i]] for i in examples]
            plots.save(
                pictures.feature_maps(_shown(data, examples), maps, labels), folder / f"4_feature_maps_{block}.png"
            )
    return str(folder)
    yield


def _confusion(data: Dataset, said: np.ndarray) -> np.ndarray:
    matrix = np.zeros((data.classes, data.classes), int)
    np.add.at(matrix, (data.y_val, said.argmax(axis=1)), 1)
    return matrix


def _most_confident_mistakes(data: Dataset, said: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(said.argmax(axis=1) != data.y_val)
    return wrong[np.argsort(-said[wrong].max(axis=1), kind="stable")][:MISTAKES]


def _one_a_class(data: Dataset, said: np.ndarray) -> np.ndarray:
    """The validation image of each class that the network is surest of."""
    labels = np.unique(data.y_val)[:CLASSES]
    return np.array([np.argmax(np.where(data.y_val == label, said[:, label], -1.0)) for label in labels])


def _shown(data: Dataset, chosen: np.ndarray) -> np.ndarray:
    return np.asarray(data.x_val[chosen], "float32") * data.scale


def _kernel(layer: Any) -> np.ndarray | None:
    kernel = getattr(layer, "kernel", None)
    return np.asarray(kernel) if kernel is not None and len(kernel.shape) == 4 else None


def _layers(model: Any) -> Iterator[Any]:
    """All layers in order, a nested model's in its place."""
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else (layer,)


def _feature_maps(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """What comes out of each block, before its pooling; of a backbone's many blocks some, from first to last."""
    import keras

    if "backbone" in [layer.name for layer in model.layers]:
        operations = model.operations
        into = next(i for i, operation in enumerate(operations) if operation.name == "backbone") - 1
        images = keras.Model(model.inputs, operations[into].output).predict(images, verbose=0)
        model = model.get_layer("backbone")
        ends = [model.layers[start - 1] for start in blocks(model.layers)[1:]] + model.layers[-1:]
        digits = len(str(len(ends)))  # so that they sort
        outputs = _spread({f"block_{n:0{digits}}": layer.output for n, layer in enumerate(ends, start=1)})
    else:
        ends = [layer for layer in model.layers if re.fullmatch(r"block\d+_activation", layer.name)]
        outputs = {layer.name.partition("_")[0].replace("block", "block_"): layer.output for layer in ends}
    if not outputs:
        return {}
    values = keras.Model(model.inputs, list(outputs.values())).predict(images, verbose=0)
    values = values if isinstance(values, list) else [values]
    return dict(zip(outputs, (np.asarray(v) for v in values), strict=True))


def _spread(found: dict[str, Any]) -> dict[str, Any]:
    """At most `BLOCKS` of them, the first and the last among them."""
    names = list(found)
    kept = {names[round(i)] for i in np.linspace(0, len(names) - 1, min(BLOCKS, len(names)))} if names else set()
    return {name: found[name] for name in names if name in kept}

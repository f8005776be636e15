"""Final evaluation: a network is measured on the test set, once, saved, and shown in pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import re
import shutil
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.data.storage import concatenate, open_saved
from cnnsweep.models.fine_tuning import blocks
from cnnsweep.training import checkpoint, pictures, text_pictures
from cnnsweep.training.building import build_model
from cnnsweep.training.train import EVAL_BATCH, batched
from cnnsweep.trial import TrialSpec

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

LABELS = "labels.json"
"""Beside model.keras: the kind of input, the classes' names, the shape of an input, the factor by which its values
become 0..1, and how files or texts are decoded.
"""
MISTAKES, CLASSES, BLOCKS = 18, 10, 5
"""At most so many are shown."""


@dataclass(frozen=True)
class FinalSpec:
    """A trial to evaluate or to draw."""

    trial: TrialSpec
    output: Path | None = None
    """The folder for its model; None: it is not saved."""


class Final(TypedDict):
    """The final evaluation: test_accuracy and test_loss, measured on so many images."""

    metrics: dict[str, float]
    images: int


class Gallery(TypedDict):
    """The pictures of a network: their folder, and why some are not there, by their names."""

    folder: str
    missing: dict[str, str]


class Refit(TypedDict):
    """The evaluation of a network trained on all data; `right` and `images` are counts for each class."""

    test_accuracy: float
    test_loss: float
    parameters: int
    right: list[int]
    images: list[int]


def evaluate_best(spec: FinalSpec) -> Generator[None, bool, Final]:
    """A job: restore the best epoch's weights, measure on the test set and save the model."""
    model, data = _restore(spec.trial, checkpoint.BEST)
    measured = model.evaluate(**batched(data.x_test, data.y_test, EVAL_BATCH), verbose=0, return_dict=True)
    if spec.output is not None:
        write_model(spec.output, model, data)
    metrics = {"test_accuracy": float(measured["accuracy"]), "test_loss": float(measured["loss"])}
    return {"metrics": metrics, "images": len(data.x_test)}
    yield


def _restore(trial: TrialSpec, name: str) -> tuple[keras.Model, Dataset]:
    data = open_saved(trial.data)
    model = build_model(trial.config, data, trial.seed, for_training=False)
    checkpoint.load(trial.folder / name, model, with_optimizer=False)
    return model, data


def _predict(model: keras.Model, x: Array, y: Array) -> Array:
    """The probabilities of the classes, for images that need not fit into memory."""
    batches = batched(x, y, EVAL_BATCH)
    return np.asarray(model.predict(batches["x"], batch_size=batches.get("batch_size"), verbose=0))


def with_validation(data: Dataset, folder: Path) -> Dataset:
    """Add the validation images to the training images; validation metrics then mean nothing.

    They are written to a file in `folder` piece by piece: together they may not fit into memory.
    """
    return dataclasses.replace(
        data,
        x_train=concatenate([data.x_train, data.x_val], folder / "x_train.npy"),
        y_train=np.concatenate([data.y_train, data.y_val]),
        digest=f"{data.digest[:11]}+val",
    )


def evaluate_last(spec: FinalSpec) -> Generator[None, bool, Refit]:
    """A job: restore the last epoch's weights, measure on the test set, class by class, and save the model."""
    model, data = _restore(spec.trial, checkpoint.LAST)
    measured = model.evaluate(**batched(data.x_test, data.y_test, EVAL_BATCH), verbose=0, return_dict=True)
    predicted = _predict(model, data.x_test, data.y_test).argmax(axis=1)
    right = np.bincount(data.y_test[predicted == data.y_test], minlength=data.classes)
    if spec.output is not None:
        write_model(spec.output, model, data)
    return {
        "test_accuracy": float((predicted == data.y_test).mean()),
        "test_loss": float(measured["loss"]),
        "parameters": int(model.count_params()),
        "right": right.tolist(),
        "images": np.bincount(data.y_test, minlength=data.classes).tolist(),
    }
    yield


def write_model(folder: Path, model: keras.Model, data: Dataset) -> None:
    """Write model.keras and mlflow_model/, a folder that mlflow.keras.load_model takes, with a signature."""
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    decoding = data.decoding or (Decoding.plain(data.input_shape) if data.kind == "image" else None)
    labels = {
        "kind": data.kind,
        "classes": list(data.class_names),
        "input_shape": list(data.input_shape),
        "scale": data.scale,
        "decoding": decoding and dataclasses.asdict(decoding),
    }
    (folder / LABELS).write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    shutil.rmtree(folder / "mlflow_model", ignore_errors=True)
    (folder / "mlflow_model").mkdir()
    single, sizes = np.dtype("float32"), data.x_val.shape[1:]
    taken = np.dtype("int32") if data.kind == "text" else single
    mlflow.keras.save_model(
        model,
        str(folder / "mlflow_model"),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(taken, (-1, *sizes), name=None)]),
            outputs=Schema([TensorSpec(single, (-1, data.classes), name=None)]),
        ),
        input_example=np.asarray(data.x_val[:2], dtype=taken),
        # Without the list MLflow starts a process that loads the model to guess it: 12 s instead of 0.3 s.
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("keras", "numpy", "tensorflow")],
    )


def draw_gallery(spec: FinalSpec) -> Generator[None, bool, Gallery]:
    """A job: write the confusion matrix, mistakes, filters and feature maps as PNGs, each apart from the others.

    Data that are no pictures (cached features, say) have the confusion matrix only.
    """
    model, data = _restore(spec.trial, checkpoint.BEST)
    folder = gallery_folder(spec.trial)
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for name, draw in _figures(data, model, missing):
        with _noted(missing, name):
            figure = draw()
            figure.savefig(folder / f"{name}.png", format="png", pil_kwargs={"compress_level": 3})
    return {"folder": str(folder), "missing": missing}
    yield


def gallery_folder(trial: TrialSpec) -> Path:
    return trial.folder / "artifacts" / "gallery"


@contextlib.contextmanager
def _noted(missing: dict[str, str], name: str) -> Iterator[None]:
    """Note why a picture could not be drawn; the others are drawn all the same."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        missing[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _figures(data: Dataset, model: keras.Model, missing: dict[str, str]) -> Iterator[tuple[str, Callable[[], Figure]]]:
    predicted, names = _predict(model, data.x_val, data.y_val), data.class_names
    yield "1_confusion_matrix", lambda: pictures.confusion_matrix(_counts(data, predicted), names)
    if data.kind == "text":
        yield from text_pictures.figures(data, model, predicted)
    if data.kind != "image" or data.x_val.shape[-1] not in (1, 3):
        return
    wrong = np.flatnonzero(predicted.argmax(axis=1) != data.y_val)
    wrong = wrong[np.argsort(-predicted[wrong].max(axis=1), kind="stable")][:MISTAKES]
    if len(wrong):
        short = [pictures.shortened(name) for name in names]
        guesses = [f"said {short[predicted[i].argmax()]} ({predicted[i].max():.0%})" for i in wrong]
        texts = [f"{short[data.y_val[i]]}\n{guess}" for i, guess in zip(wrong, guesses, strict=True)]
        yield "2_most_confident_mistakes", lambda: pictures.mistakes(_images(data, wrong), texts)
    kernel = first_kernel(model)
    if kernel is not None:
        yield "3_first_layer_filters", lambda: pictures.filters(kernel)
    # Of each class the image that the network is most confident of.
    classes = np.unique(data.y_val)[:CLASSES]
    examples = np.array([np.argmax(np.where(data.y_val == label, predicted[:, label], -1.0)) for label in classes])
    labels = [pictures.shortened(names[data.y_val[i]]) for i in examples]
    found: dict[str, Array] = {}
    with _noted(missing, "4_feature_maps"):
        found = block_outputs(model, data.x_val[examples])
    for block, maps in found.items():
        draw = functools.partial(pictures.feature_maps, _images(data, examples), maps, labels)
        yield f"4_feature_maps_{block}", draw


def _counts(data: Dataset, predicted: Array) -> Array:
    """How often each class (row) was taken for each (column)."""
    matrix = np.zeros((data.classes, data.classes), int)
    np.add.at(matrix, (data.y_val, predicted.argmax(axis=1)), 1)
    return matrix


def _images(data: Dataset, chosen: Array) -> Array:
    return np.asarray(data.x_val[chosen], "float32") * data.scale


def first_kernel(model: keras.Model) -> Array | None:
    """The weights of the first convolution, (height, width, channels, filters)."""
    for layer in _all_layers(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            return np.asarray(kernel)
    return None


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers in order, a nested model's in its place."""
    for layer in model.layers:
        yield from _all_layers(layer) if hasattr(layer, "layers") else (layer,)


def block_outputs(model: keras.Model, images: Array) -> dict[str, Array]:
    """The feature maps of each block, before its pooling; of a backbone's many blocks some, from first to last."""
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
    return dict(zip(outputs, map(np.asarray, values), strict=True))


def _spread(found: Mapping[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """At most `BLOCKS` of them, the first and the last included."""
    names = list(found)
    places = np.linspace(0, len(names) - 1, min(BLOCKS, len(names)))
    return {names[round(i)]: found[names[round(i)]] for i in places}

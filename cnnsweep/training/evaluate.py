"""Final evaluation: a network is measured on the test set, once, saved, and shown in pictures."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from cnnsweep.config.schema import Training
from cnnsweep.data import text_decoding
from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.decoding import copy_modules
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.data.inputs import Shapes, unpacked
from cnnsweep.data.storage import concatenate, open_saved
from cnnsweep.data.text_decoding import TextDecoding
from cnnsweep.training import checkpoint, text_model
from cnnsweep.training.breakdown import Breakdown, break_down
from cnnsweep.training.building import build_model, compile_plain
from cnnsweep.training.targets import targets_of
from cnnsweep.training.train import EVAL_BATCH, batched
from cnnsweep.trial import TrialSpec

if TYPE_CHECKING:
    import keras

LABELS = "labels.json"
"""Beside model.keras: the kind of input, the classes' names, the shape of an input, the factor by which its values
become 0..1, and how files or texts are decoded.
"""
PREDICTED = 4096
"""Images whose outputs are kept at a time."""


@dataclass(frozen=True)
class FinalSpec:
    """A trial to evaluate or to draw."""

    trial: TrialSpec
    output: Path | None = None
    """The folder for its model; None: it is not saved."""


class Final(TypedDict):
    """The final evaluation: the metrics with `test_` before their names, measured on so many images."""

    metrics: dict[str, float]
    images: int


class Refit(TypedDict):
    """The evaluation of a network trained on all data, on so many test images."""

    metrics: dict[str, float]
    parameters: int
    images: int
    breakdown: Breakdown


def evaluate_best(spec: FinalSpec) -> Generator[None, bool, Final]:
    """A job: restore the best epoch's weights, measure on the test set and save the model."""
    model, data = restore(spec.trial, checkpoint.BEST)
    metrics = _measure(model, spec.trial.config.training, data)
    if spec.output is not None:
        write_model(spec.output, model, data, spec.trial.config.training)
    return {"metrics": metrics, "images": len(data.x_test)}
    yield


def restore(trial: TrialSpec, name: str) -> tuple[keras.Model, Dataset]:
    data = open_saved(trial.data).fold(trial.fold or 0)
    model = build_model(trial.config, data, trial.seed, for_training=False)
    checkpoint.load(trial.folder / name, model, with_optimizer=False)
    return model, data


def _measure(model: keras.Model, training: Training, data: Dataset) -> dict[str, float]:
    """The metrics of the test set, `test_` before their names."""
    batches = batched(data.x_test, data.y_test, EVAL_BATCH, None, targets_of(training, data, weighted=False))
    measured = model.evaluate(**batches, verbose=0, return_dict=True)
    names = [*(name for name in measured if name != "loss"), "loss"]
    return {f"test_{name}": float(measured[name]) for name in names}


def predict(model: keras.Model, x: Array, y: Array) -> Array:
    """The probabilities of the classes, for images that need not fit into memory."""
    batches = batched(x, y, EVAL_BATCH)
    return np.asarray(model.predict(batches["x"], batch_size=batches.get("batch_size"), verbose=0))


def pairs(model: keras.Model, x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    """Labels and outputs, some images at a time."""
    for start in range(0, len(x), PREDICTED):
        some = slice(start, start + PREDICTED)
        yield np.asarray(y[some]), predict(model, np.asarray(x[some]), y[some])


def with_validation(data: Dataset, folder: Path) -> Dataset:
    """Add the validation images to the training images; validation metrics then mean nothing.

    They are written to a file in `folder` piece by piece: together they may not fit into memory.
    """
    if data.folds is not None:  # then the training images are all of them
        return dataclasses.replace(data, folds=None, digest=f"{data.digest[:11]}+val")
    return dataclasses.replace(
        data,
        x_train=concatenate([data.x_train, data.x_val], folder / "x_train.npy"),
        y_train=np.concatenate([data.y_train, data.y_val]),
        digest=f"{data.digest[:11]}+val",
    )


def evaluate_last(spec: FinalSpec) -> Generator[None, bool, Refit]:
    """A job: restore the last epoch's weights, measure on the test set, class by class, and save the model."""
    model, data = restore(spec.trial, checkpoint.LAST)
    measured = _measure(model, spec.trial.config.training, data)
    if spec.output is not None:
        write_model(spec.output, model, data, spec.trial.config.training)
    return {
        "metrics": measured,
        "parameters": int(model.count_params()),
        "images": len(data.x_test),
        "breakdown": break_down(data.task, pairs(model, data.x_test, data.y_test), data.class_names),
    }
    yield


def write_model(folder: Path, model: keras.Model, data: Dataset, training: Training) -> None:
    """Write model.keras and mlflow_model/, a folder that mlflow.keras.load_model takes, with a signature.

    Keras loads it without this package: of the metrics it has those of Keras.
    """
    import keras
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    packages = ("keras", "numpy", keras.backend.backend())
    folder.mkdir(parents=True, exist_ok=True)
    compile_plain(model, training, data)
    model.save(folder / "model.keras")
    _write_labels(folder, data)
    shutil.rmtree(folder / "mlflow_model", ignore_errors=True)
    (folder / "mlflow_model").mkdir()
    example = unpacked(np.asarray(data.x_train[:2]))
    if not isinstance(example, dict):
        example = example.astype("int32" if data.kind == "text" else "float32")
    named = example if isinstance(example, dict) else {None: example}
    shape = getattr(model, "output_shape", None) or model(example).shape  # a subclassed one does not know it
    mlflow.keras.save_model(
        model,
        str(folder / "mlflow_model"),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(x.dtype, (-1, *x.shape[1:]), name=name) for name, x in named.items()]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape[1:]), name=None)]),
        ),
        input_example=_shown(data, example),
        # Without the list MLflow starts a process that loads the model to guess it: 12 s instead of 0.3 s.
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in packages],
    )
    if data.kind == "text":
        _take_texts(folder)


def _write_labels(folder: Path, data: Dataset) -> None:
    decoding = data.decoding or (Decoding.plain(data.input_shape) if data.kind == "image" else None)
    labels = {
        "kind": data.kind,
        "task": data.task,
        "classes": list(data.class_names),
        "input_shape": dict(shape.by_name) if isinstance(shape := data.input_shape, Shapes) else list(shape),
        "scale": data.scale,
        "decoding": decoding and dataclasses.asdict(decoding),
    }
    (folder / LABELS).write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")


def _shown(data: Dataset, example: Array | dict[str, Array]) -> Array | dict[str, Array] | list[str]:
    """Inputs as a user gives them: of texts their words, joined."""
    if not isinstance(data.decoding, TextDecoding) or isinstance(example, dict):
        return example
    return [" ".join(data.decoding.read(row)) for row in example]


def _take_texts(folder: Path) -> None:
    """Let MLflow give the texts themselves to the network's function, which makes numbers of their words."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    made = folder / "mlflow_model"
    shutil.copy(folder / LABELS, made / "data")
    copy_modules([Path(str(module.__file__)) for module in (text_model, text_decoding)], made / "code")
    stored = Model.load(str(made))
    stored.signature = ModelSignature(Schema([ColSpec(DataType.string)]), stored.signature.outputs)
    stored.flavors["python_function"] |= {"loader_module": "text_model", "data": "data", "code": "code"}
    stored.save(str(made / "MLmodel"))

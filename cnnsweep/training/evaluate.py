"""The one look at the test set: a job that evaluates the best trial's network and writes it as people load it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.training import checkpoint
from cnnsweep.training.train import EVAL_BATCH, batched, build_model

LABELS = "labels.json"
"""Beside model.keras: the classes' names, the shape of an image, and what its values are multiplied with for 0..1."""


@dataclass(frozen=True)
class FinalSpec:
    """Which trial to evaluate, and where to write its model."""

    number: int
    config: Mapping[str, Any]
    seed: int
    folder: Path
    data: Path
    output: Path


def evaluate_best(spec: FinalSpec) -> Generator[None, bool, dict[str, Any]]:
    """Restore the best epoch's weights, measure on the test set and save the model; returns the metrics."""
    data = open_saved(spec.data)
    model = build_model(spec.config, data, spec.seed)
    checkpoint.load(spec.folder / checkpoint.BEST, model, with_optimizer=False)
    measured = model.evaluate(**batched(data.x_test, data.y_test, EVAL_BATCH), verbose=0, return_dict=True)
    write_model(spec.output, model, data)
    metrics = {"test_accuracy": float(measured["accuracy"]), "test_loss": float(measured["loss"])}
    return {"metrics": metrics, "images": len(data.x_test)}
    yield


def write_model(folder: Path, model: Any, data: Dataset) -> None:
    """Write model.keras and mlflow_model/, a folder that mlflow.keras.load_model takes, with a signature."""
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    labels = {"classes": list(data.class_names), "input_shape": list(data.input_shape), "scale": data.scale}
    (folder / LABELS).write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    shutil.rmtree(folder / "mlflow_model", ignore_errors=True)
    (folder / "mlflow_model").mkdir()
    single = np.dtype("float32")
    signature = ModelSignature(
        inputs=Schema([TensorSpec(single, (-1, *data.input_shape), name=None)]),
        outputs=Schema([TensorSpec(single, (-1, data.classes), name=None)]),
    )
    # Without the list MLflow starts a process that loads the model to guess it: 12 s instead of 0.3 s.
    packages = ["keras", "numpy", "tensorflow"]
    requirements = [f"{name}=={importlib.metadata.version(name)}" for name in packages]
    mlflow.keras.save_model(
        model,
        str(folder / "mlflow_model"),
        signature=signature,
        input_example=np.asarray(data.x_val[:2], dtype="float32"),
        pip_requirements=requirements,
    )

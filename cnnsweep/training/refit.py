"""Training a chosen configuration for good: a job that trains on training plus validation data and tests once."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.training import checkpoint
from cnnsweep.training.evaluate import write_model
from cnnsweep.training.train import EVAL_BATCH, build_model, train
from cnnsweep.trial import EpochReport, TrialSpec


@dataclass(frozen=True)
class RefitSpec:
    """A trial to train to its end, and where to write its model; None to only measure it."""

    trial: TrialSpec
    output: Path | None


def whole(data: Dataset) -> Dataset:
    """Put the validation images among the training images, too; what is measured on them means nothing then."""
    return dataclasses.replace(
        data,
        x_train=np.concatenate([data.x_train, data.x_val]),
        y_train=np.concatenate([data.y_train, data.y_val]),
        digest=f"{data.digest[:11]}+val",
    )


def refit(spec: RefitSpec) -> Generator[EpochReport, bool, dict[str, Any]]:
    """Train, then look at the test set; returns test_accuracy, test_loss, right and images by class. A job."""
    result = yield from train(spec.trial)
    if result.status == "failed":
        raise RuntimeError(result.reason)
    data = open_saved(spec.trial.data)
    model = build_model(spec.trial.config, data, spec.trial.seed)
    checkpoint.load(spec.trial.folder / checkpoint.LAST, model, with_optimizer=False)
    measured = model.evaluate(data.x_test, data.y_test, batch_size=EVAL_BATCH, verbose=0, return_dict=True)
    said = model.predict(data.x_test, batch_size=EVAL_BATCH, verbose=0).argmax(axis=1)
    right = np.bincount(data.y_test[said == data.y_test], minlength=data.classes)
    if spec.output is not None:
        write_model(spec.output, model, data)
    return {
        "test_accuracy": float((said == data.y_test).mean()),
        "test_loss": float(measured["loss"]),
        "parameters": int(model.count_params()),
        "right": right.tolist(),
        "images": np.bincount(data.y_test, minlength=data.classes).tolist(),
    }

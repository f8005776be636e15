"""Small trials of a transferred network, and the running of their jobs."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnsweep.config.compose import compose
from cnnsweep.training import feature_cache
from cnnsweep.trial import Step, TrialSpec

SMALL = ["model=transfer", "space=none", "model.backbone=MobileNet", "model.cut=conv_pw_3_relu", "model.weights=none"]
SMALL += ["model.input_size=32", "model.dense_units=8", "training.epochs=2", "training.batch_size=16"]
SMALL += ["training.precision=float32"]


def run(job: Generator[Any, bool, Any]) -> tuple[list[Any], Any]:
    """All reports of a job, each answered with yes, and its result."""
    reports = []
    try:
        report = next(job)
        while True:
            reports.append(report)
            report = job.send(True)
    except StopIteration as end:
        return reports, end.value


def spec(data: Path, tmp_path: Path, *overrides: str, **changes: Any) -> TrialSpec:
    """A trial of two epochs on saved digits."""
    config = compose([*SMALL, "data=digits", f"model.cache={tmp_path / 'cache'}", *overrides])
    return replace(TrialSpec(1, {}, config, 5, tmp_path / "trial", data, 2), **changes)


def prepared(trial: TrialSpec) -> TrialSpec:
    """The trial on its features, which are computed."""
    step = feature_cache.prepare(trial)
    assert isinstance(step, Step)
    run(step.job(step.argument))
    ready = feature_cache.prepare(trial)
    assert isinstance(ready, TrialSpec)
    return ready


def straight_and_resumed(trial: TrialSpec, job: Callable[[TrialSpec], Generator[Any, bool, Any]]) -> list[list[Any]]:
    """The metrics of a trial's last epoch and all that it keeps: run through, and killed after its first epoch."""
    copy = trial.folder.with_name(f"{trial.folder.name}-killed")
    running = job(trial)
    reports = [next(running)]
    shutil.copytree(trial.folder, copy)
    with contextlib.suppress(StopIteration):
        while True:
            reports.append(running.send(True))
    again, _ = run(job(replace(trial, folder=copy, initial_epoch=1)))
    assert (again[0].epoch, again[0].note) == (2, None)
    found = []
    for folder, last in ((trial.folder, reports[-1]), (copy, again[-1])):
        with np.load(folder / "last.npz") as file:
            kept = [file[name] for name in file if name.startswith(("model/", "seeds/", "optimizer/"))]
        found.append([{**last.metrics, "epoch_seconds": 0}, *(array.tobytes() for array in kept)])
    return found


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    """The model as anyone loads it from its file, which says nothing of this package."""
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras") as file:
        assert b"cnnsweep" not in file.read("config.json")
    return keras.models.load_model(folder / "model.keras", safe_mode=True)

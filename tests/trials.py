"""Small trials of a transferred network, and the running of their jobs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

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

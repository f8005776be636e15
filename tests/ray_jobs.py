"""Trials for clusters of the tests: most are arithmetic, some train; each leaves a note of where it ran."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

REAL = 3
"""The trial that trains."""


def mixed(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    spec.folder.mkdir(parents=True, exist_ok=True)
    with (spec.folder / "visits.txt").open("a") as file:
        file.write(f"{os.environ['RAY_RAYLET_PID']} {spec.initial_epoch} {spec.folder}\n")
    (spec.folder / "pid").write_text(str(os.getpid()))
    if spec.number == REAL:
        return (yield from train(spec))
    status, epoch = "completed", spec.initial_epoch
    for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
        if not (yield EpochReport(spec.number, epoch, {"val_accuracy": 0.001 * epoch, "loss": 1.0})):
            status = "pruned"
            break
    return TrialResult(spec.number, status, None, epoch, {"parameters": 1.0})


def visits(folder: Path) -> list[tuple[int, int, str]]:
    """Which raylet a trial ran under, from which epoch, and in which folder, for each time that it began."""
    lines = (folder / "visits.txt").read_text().splitlines()
    return [(int(pid), int(epoch), place) for pid, epoch, place in (line.split(" ", 2) for line in lines)]

"""Trials of the tests, for worker processes to import: some fail, one way each, some say where they ran."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

Steps = Generator[EpochReport, bool, TrialResult]
REAL = 3
"""The trial of `mixed` that trains."""


def diverge(spec: TrialSpec) -> Steps:
    training = spec.config.training.replace(learning_rate=1e30, optimizer="sgd")
    return train(replace(spec, config=spec.config.replace(training=training)))


def run_out_of_memory(_: TrialSpec) -> Steps:
    import tensorflow as tf

    message = "Graph execution error:\n\nOOM when allocating tensor with shape[4096,64,28,28] and type float\n"
    raise tf.errors.ResourceExhaustedError(None, None, message)
    yield


def take_all_memory(_: TrialSpec) -> Steps:
    import numpy as np

    np.ones((1 << 50,), "uint8")
    yield  # type: ignore[misc]


def be_killed(_: TrialSpec) -> Steps:
    signal.raise_signal(signal.SIGKILL)
    yield  # type: ignore[misc]


def crash(_: TrialSpec) -> Steps:
    signal.raise_signal(signal.SIGSEGV)
    yield  # type: ignore[misc]


def hang(spec: TrialSpec) -> Steps:
    yield EpochReport(spec.number, 1, {"loss": 1.0, "val_accuracy": 0.9})
    time.sleep(600)


def dawdle(spec: TrialSpec) -> Steps:
    for epoch in range(1, 100):
        time.sleep(0.5)
        yield EpochReport(spec.number, epoch, {"loss": 1.0, "val_accuracy": 0.9})
    return TrialResult(spec.number, "completed")


WAYS: dict[int, tuple[Callable[[TrialSpec], Steps], str]] = {
    1: (diverge, "loss is nan in epoch 1"),
    2: (run_out_of_memory, "ResourceExhaustedError: OOM when allocating tensor with shape[4096,64,28,28]"),
    3: (take_all_memory, "MemoryError: Unable to allocate 1.00 PiB"),
    4: (be_killed, "killed by SIGKILL (signal 9)"),
    5: (crash, "killed by SIGSEGV (signal 11): native code crashed"),
    6: (hang, "no epoch within executor.hang_minutes (0.25)"),
    7: (dawdle, "took longer than executor.trial_minutes (0.4)"),
}
"""By the trial's number: how it fails, and the reason that the sweep gives."""


def troubled(spec: TrialSpec) -> Steps:
    """The first trials go wrong, each in its way."""
    return WAYS[spec.number][0](spec) if spec.number in WAYS else train(spec)


def greedy(spec: TrialSpec) -> Steps:
    """Batches above 40 images do not fit."""
    return run_out_of_memory(spec) if spec.config.training.batch_size > 40 else train(spec)


def mixed(spec: TrialSpec) -> Steps:
    """One trial trains, the others are arithmetic; each leaves a note of where it ran on a Ray cluster."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    with (spec.folder / "visits.txt").open("a") as file:
        file.write(f"{os.environ['RAY_RAYLET_PID']} {spec.initial_epoch} {spec.folder}\n")
    (spec.folder / "pid").write_text(str(os.getpid()))
    if spec.number == REAL:
        return (yield from train(spec))
    for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
        if not (yield EpochReport(spec.number, epoch, {"val_accuracy": 0.001 * epoch, "loss": 1.0})):
            return TrialResult(spec.number, "pruned", None, epoch, {"parameters": 1.0})
    return TrialResult(spec.number, "completed", None, spec.epochs, {"parameters": 1.0})


def visits(folder: Path) -> list[tuple[int, int, str]]:
    """Which raylet a trial ran under, from which epoch, and in which folder, for each time that it began."""
    lines = (folder / "visits.txt").read_text().splitlines()
    return [(int(pid), int(epoch), place) for pid, epoch, place in (line.split(" ", 2) for line in lines)]

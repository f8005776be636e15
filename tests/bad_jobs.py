"""Trials that go wrong in every way, for worker processes of the tests to import; the others are real ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import replace

from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

Steps = Generator[EpochReport, bool, TrialResult]


def diverge(spec: TrialSpec) -> Steps:
    training = {**spec.config["training"], "learning_rate": 1e30, "optimizer": "sgd"}
    return train(replace(spec, config={**spec.config, "training": training}))


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
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    yield  # type: ignore[misc]


def crash(_: TrialSpec) -> Steps:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)
    yield  # type: ignore[misc]


def hang(spec: TrialSpec) -> Steps:
    yield EpochReport(spec.number, 1, {"loss": 1.0, "val_accuracy": 0.9})
    time.sleep(600)


def dawdle(spec: TrialSpec) -> Steps:
    for epoch in range(1, 100):
        time.sleep(0.5)
        yield EpochReport(spec.number, epoch, {"loss": 1.0, "val_accuracy": 0.9})
    return TrialResult(spec.number, "completed")


WAYS: dict[int, Callable[[TrialSpec], Steps]] = dict(
    enumerate((diverge, run_out_of_memory, take_all_memory, be_killed, crash, hang, dawdle), start=1)
)
REASONS = {
    1: "loss is nan in epoch 1",
    2: "ResourceExhaustedError: OOM when allocating tensor with shape[4096,64,28,28]",
    3: "MemoryError: Unable to allocate 1.00 PiB",
    4: "killed by SIGKILL (signal 9)",
    5: "killed by SIGSEGV (signal 11): native code crashed",
    6: "no epoch within executor.hang_minutes (0.15)",
    7: "took longer than executor.trial_minutes (0.25)",
}


def troubled(spec: TrialSpec) -> Steps:
    """The first trials go wrong, each in its way."""
    return WAYS[spec.number](spec) if spec.number in WAYS else train(spec)


def greedy(spec: TrialSpec) -> Steps:
    """Batches above 40 images do not fit."""
    return run_out_of_memory(spec) if spec.config["training"]["batch_size"] > 40 else train(spec)

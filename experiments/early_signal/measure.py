"""Rank correlations of each epoch's validation with the last one's: statistics of batch normalisation, and schedules.

    python experiments/early_signal/measure.py FILE [CONFIGURATIONS]

Configurations of the space `cnn` on the 8×8 digits, nine epochs each, with a constant learning rate and with a cosine;
validated on 647 images with Keras' moving averages (constant rate), with statistics computed again, and with averaged
weights. FILE keeps a line a configuration, and the command goes on with what is there; then it prints the table. About
8 s of one core a configuration.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import spearmanr

from cnnsweep.config.compose import compose
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.search.observations import Untried
from cnnsweep.search_space.problem import make_problem
from cnnsweep.training import batch_norm
from cnnsweep.training.building import build_model
from cnnsweep.training.train import batched

EPOCHS = 9
SETTINGS = ("data=digits", "space=cnn", "limits.mmacs=1", f"training.epochs={EPOCHS}")
RATES: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: (1 + np.cos(np.pi * t)) / 2,
    "constant": lambda _: 1,
}
"""The learning rate as a share of the configured one, by the share of the steps that are done."""
SHOWN = (1, 2, 3, 5, 7)


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before each step, and averages the weights over about half an epoch."""

    def __init__(self, model: keras.Model, peak: float, share: Callable[[float], float], steps: int) -> None:
        super().__init__()
        self.optimizer, self.weights = model.optimizer, model.trainable_variables
        self.peak, self.share, self.total = peak, share, steps
        self.step, self.momentum = 0, max(0.0, 1 - 2 * EPOCHS / steps)
        self.average = [np.array(weight) for weight in self.weights]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.optimizer.learning_rate.assign(self.peak * self.share(self.step / self.total))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        share = min(self.momentum, (1 + self.step) / (10 + self.step))
        self.average = [share * a + (1 - share) * np.array(w) for a, w in zip(self.average, self.weights, strict=True)]
        self.step += 1


def curves(model: keras.Model, data: Dataset, schedule: Schedule, size: int, seed: int) -> dict[str, list[float]]:
    """The accuracy after each epoch, by kind of validation; no moving averages where nothing is normalised."""
    found: dict[str, list[float]] = {"moving": [], "computed again": [], "averaged weights": []}
    moving = batch_norm.read(model)

    def validated() -> float:
        return float(
            model.evaluate(batched(data.x_val, data.y_val, 1024)["x"], verbose=0, return_dict=True)["accuracy"]
        )

    for epoch in range(1, EPOCHS + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(data.x_train))
        batch_norm.write(model, moving)
        before, batches = moving, batched(data.x_train, data.y_train, size, order)
        model.fit(**batches, epochs=1, shuffle=False, verbose=0, callbacks=[schedule])
        moving = batch_norm.read(model)
        found["moving"] += [validated()] * bool(moving)
        batch_norm.recompute(model, data.x_train, before, seed, size)
        found["computed again"].append(validated())
        kept = [np.array(weight) for weight in model.trainable_variables]
        _assign(model.trainable_variables, schedule.average)
        batch_norm.recompute(model, data.x_train, [(mean - 1, variance) for mean, variance in moving], seed, size)
        found["averaged weights"].append(validated())
        _assign(model.trainable_variables, kept)
    return found


def _assign(variables: Any, values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def measure(path: Path, count: int) -> list[dict[str, Any]]:
    """One row a configuration; those that the file lacks are trained."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    base = compose(list(SETTINGS))
    whole = load(base.data, 0)
    held_out = {
        "x_val": np.concatenate([whole.x_val, whole.x_test]),
        "y_val": np.concatenate([whole.y_val, whole.y_test]),
    }
    problem = make_problem(base, (8, 8, 1), 10)
    data, untried = dataclasses.replace(whole, **held_out), Untried(problem)
    for number in range(count):
        rng = np.random.default_rng([0, number])
        values = next(v for v in iter(lambda rng=rng: problem.space.draw_evenly(rng), None) if v in untried)
        untried.remove(values)
        if number < len(rows):
            continue
        keras.backend.clear_session()
        gc.collect()
        config, size = base.with_values(values), values["training.batch_size"]
        model = build_model(config, data, number)
        variables = [*model.variables, *model.optimizer.variables]
        start, row = [np.array(variable) for variable in variables], {"values": values}
        for name, share in RATES.items():
            _assign(variables, start)
            steps = -(-len(data.x_train) // size) * EPOCHS
            schedule = Schedule(model, values["training.learning_rate"], share, steps)
            row[name] = curves(model, data, schedule, size, number)
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Spearman's rank correlations with the last epoch, computed again, of the same schedule."""
    lines = [f"| networks | rate | validation | {' | '.join(f'epoch {e}' for e in SHOWN)} | mean of the last |"]
    lines.append("| --- | --- | --- " + "| ---: " * (len(SHOWN) + 1) + "|")
    for kind, normalised in (("plain", False), ("normalised", True)):
        chosen = [row for row in rows if row["values"]["model.batch_norm"] is normalised]
        for rate in (rate for rate in RATES if rate in chosen[0]):
            last = [row[rate]["computed again"][-1] for row in chosen]
            for name in ("moving", "computed again", "averaged weights"):
                if all(row[rate].get(name) for row in chosen):
                    every = np.array([row[rate][name] for row in chosen])
                    ranks = " | ".join(f"{spearmanr(every[:, e - 1], last).statistic:.2f}" for e in SHOWN)
                    head = f"{len(chosen)} {kind} | {rate} | {name}"
                    lines.append(f"| {head} | {ranks} | {every[:, -1].mean():.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(table(measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 110)))

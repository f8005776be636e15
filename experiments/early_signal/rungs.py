"""What the first and third epoch say: a schedule that fits the rung, averaged weights, and schedule-free training.

    CNNSWEEP_DATA_DIR=DIR python experiments/early_signal/rungs.py FILE [CONFIGURATIONS]

The first configurations of the table `short` (../search_quality), which were trained for nine epochs with a cosine over
all nine: here each is trained again, for as long as a search looks at it first. Printed are the rank correlations with
the last epoch of the table. FILE keeps a line a configuration, and the command goes on with what is there. About 15 s
of one core a configuration.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="2")
QUALITY = Path(__file__).parents[1] / "search_quality"
sys.path[:0] = [str(QUALITY), str(QUALITY.parents[1])]

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402
from problem import EPOCHS, problem, settings  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from cnnsweep.config.compose import compose  # noqa: E402
from cnnsweep.config.schema import Config  # noqa: E402
from cnnsweep.data import loading  # noqa: E402
from cnnsweep.training import batch_norm  # noqa: E402
from cnnsweep.training.building import build_model  # noqa: E402
from cnnsweep.training.train import fit_epoch, validate  # noqa: E402
from cnnsweep.trial import TrialSpec, trial_seed  # noqa: E402

TABLE, SHOWN = "short", (1, 3)
TRAINED: dict[str, dict[str, object]] = {
    "cosine over the nine": {"training.epochs": EPOCHS},
    "the same, averaged weights": {"training.epochs": EPOCHS, "training.ema_momentum": 0.99},
    "warm-up and cosine over the rung": {},
    "schedule-free": {"training.epochs": EPOCHS, "training.schedule": "constant"},
}
"""What differs from the configuration; the schedule ends with the rung where the epochs are not given."""
WARMUP = 0.1
"""The share of a rung in which the rate rises; schedule-free, the share of the first epoch."""


class ScheduleFree(keras.optimizers.Optimizer):
    """Schedule-free SGD and Adam (Defazio et al. 2024, algorithm 1).

    Gradients are taken at y, between the average x and the iterate z; the model's weights are y, and x by `averaged`.
    """

    BETA, SECOND, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, learning_rate: float, warmup: int, adaptive: bool) -> None:
        super().__init__(learning_rate=learning_rate, name="schedule_free")
        self.warmup, self.adaptive = warmup, adaptive

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.z = [self.add_variable_from_reference(variable, name="z") for variable in variables]
            self.second = [self.add_variable_from_reference(variable, name="second") for variable in variables]
            for z, variable in zip(self.z, variables, strict=True):
                z.assign(variable)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        index, step, warmup = self._get_variable_index(variable), ops.cast(self.iterations + 1, "float32"), self.warmup
        z, second = self.z[index], self.second[index]
        x = (variable - (1 - self.BETA) * z) / self.BETA
        rising = ops.minimum(step, warmup)
        squares = rising * (rising + 1) * (2 * rising + 1) / (6 * warmup**2) + ops.maximum(step - warmup, 0)
        share = (rising / warmup) ** 2 / squares  # of this iterate in the average
        if self.adaptive:
            second.assign(self.SECOND * second + (1 - self.SECOND) * gradient**2)
            gradient = gradient / (ops.sqrt(second / (1 - self.SECOND**step)) + self.EPSILON)
        z.assign(z - learning_rate * rising / warmup * gradient)
        variable.assign((1 - self.BETA) * z + self.BETA * ((1 - share) * x + share * z))

    def averaged(self, variable: keras.Variable) -> np.ndarray:
        z = np.array(self.z[self._get_variable_index(variable)])
        return np.asarray((np.array(variable) - (1 - self.BETA) * z) / self.BETA)


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """Validation accuracy after the first and the third epoch, by kind of training."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    found: dict[str, Any] = {"number": row["number"]}
    for name, changes in TRAINED.items():
        if name == "cosine over the nine":  # as in the table
            found[name] = [row["accuracy"][epoch - 1] for epoch in SHOWN]
        elif "training.epochs" in changes:
            found[name] = _trained(row, changes, SHOWN)
        else:
            rungs = [{**changes, "training.epochs": epoch, "training.warmup_epochs": WARMUP * epoch} for epoch in SHOWN]
            found[name] = [_trained(row, rung, (epoch,))[0] for rung, epoch in zip(rungs, SHOWN, strict=True)]
    return found


def _trained(row: dict[str, Any], changes: dict[str, object], shown: tuple[int, ...]) -> list[float]:
    base = compose([*settings(TABLE), "search=random"])
    data, config = loading.load(base.data, base.seed), problem(TABLE).config.with_values({**row["values"], **changes})
    seed = trial_seed(row["again"], row["number"])
    keras.backend.clear_session()
    model, free = build_model(config, data, seed), None
    if config.training.schedule == "constant":
        free = _schedule_free(model, config, len(data.x_train))
    spec, found = TrialSpec(1, row["values"], config, seed, Path(), Path(), config.training.epochs), []
    moving = batch_norm.read(model)
    for epoch in range(1, max(shown) + 1):
        batch_norm.write(model, moving)
        before = moving
        fit_epoch(model, data, spec, epoch)
        moving = batch_norm.read(model)
        weights = [np.array(variable) for variable in model.trainable_variables]
        if free:
            for variable in model.trainable_variables:
                variable.assign(free.averaged(variable))
        if epoch in shown:
            batch_norm.recompute(model, data.x_train, before, seed, config.training.batch_size)
            found.append(round(validate(model, data, config.training)["accuracy"], 5))
        if free:
            for variable, weight in zip(model.trainable_variables, weights, strict=True):
                variable.assign(weight)
    return found


def _schedule_free(model: keras.Model, config: Config, images: int) -> ScheduleFree:
    training = config.training
    warmup = max(1, round(WARMUP * images / training.batch_size))
    adam = training.optimizer == "adam"
    # without a momentum of 0.9 steps are a tenth as long
    free = ScheduleFree(training.learning_rate * (1 if adam else 10), warmup, adam)
    model.compile(free, model.loss, metrics=["accuracy"])
    free.build(model.trainable_variables)
    return free


def table(rows: list[dict[str, Any]], last: dict[int, float], normalised: dict[int, bool]) -> str:
    """Spearman's rank correlation with the last epoch of the table, and the mean accuracy."""
    lines = [
        "| networks | trained with | epoch 1 | epoch 3 | mean at 1 | mean at 3 |",
        "| --- | --- " + "| ---: " * 4 + "|",
    ]
    for kind, wanted in (("plain", False), ("normalised", True)):
        chosen = [row for row in rows if normalised[row["number"]] is wanted]
        ends = [last[row["number"]] for row in chosen]
        for name in TRAINED:
            every = np.array([row[name] for row in chosen])
            numbers = [f"{spearmanr(column, ends).statistic:.2f}" for column in every.T]
            numbers += [f"{mean:.3f}" for mean in every.mean(0)]
            lines.append(f"| {len(chosen)} {kind} | {name} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main() -> None:
    path, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with gzip.open(QUALITY / f"{TABLE}.jsonl.gz", "rt") as file:
        known = [row for row in map(json.loads, file) if not row["again"]][:count]
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {row["number"] for row in rows}
    cores = len(os.sched_getaffinity(0))
    with get_context("spawn").Pool(cores, maxtasksperchild=10) as pool:
        for row in pool.imap_unordered(measured, [row for row in known if row["number"] not in done]):
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    last = {row["number"]: row["accuracy"][-1] for row in known}
    print(table(rows, last, {row["number"]: row["values"]["model.batch_norm"] for row in known}))


if __name__ == "__main__":
    main()

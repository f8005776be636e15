"""Accuracy and cost of statistics of batch normalisation, against those over all training images.

    CNNSWEEP_DATA_DIR=DIR python experiments/benchmarks/batch_norm.py

DIR holds fashion-mnist/. Two normalised blocks, three epochs, learning rates 0.001 and 0.005. Compared after an epoch,
on 2,000 validation images: moving averages of momentum 0.99 (Keras' own) and 0.9, the same without the share of their
starting values, and statistics over 256 to 2,048 training images.
Prints the largest difference of accuracies in points, and seconds of the processor. About 8 minutes on one core.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

from cnnsweep.config.compose import compose
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.training import batch_norm
from cnnsweep.training.building import build_model
from cnnsweep.training.train import fit_epoch, validate
from cnnsweep.trial import TrialSpec

CASES = [(16, 5), (64, 5), (512, 5), (128, 20), (512, 20), (16, 50), (256, 50), (64, 100), (32, 300), (16, 1000)]
"""Batch size and steps an epoch."""
SIZES, MOMENTA, RATES, EPOCHS = (256, 512, 1024, 2048), (0.99, 0.9), (5e-3, 1e-3), 3


def measured(data: Dataset, batch: int, rate: float) -> Iterator[dict[str, float]]:
    """One row an epoch: the accuracy with each kind of statistics, and seconds."""
    settings = ["data=fashion_mnist", "space=none", "model.batch_norm=true", "model.blocks=2", "model.filters=16"]
    config = compose([*settings, f"training.learning_rate={rate}", f"training.batch_size={batch}"])
    spec = TrialSpec(1, {}, config, 1, __file__, __file__, EPOCHS)  # type: ignore[arg-type]
    models = {momentum: build_model(config, data, 1) for momentum in MOMENTA}
    for momentum, model in models.items():
        for layer in batch_norm.layers(model):
            layer.momentum = momentum
    moving = {momentum: batch_norm.read(model) for momentum, model in models.items()}
    for epoch in range(1, EPOCHS + 1):
        row: dict[str, float] = {}
        for momentum, model in models.items():  # the same weights: training does not use the moving averages
            batch_norm.write(model, moving[momentum])
            before, began = moving[momentum], time.process_time()
            fit_epoch(model, data, spec, epoch)
            row["epoch"] = time.process_time() - began
            moving[momentum] = batch_norm.read(model)
            row[f"moving {momentum}"] = validate(model, data, spec.config.training)["accuracy"]
            start = momentum ** (epoch * -(-len(data.x_train) // batch))
            pairs = [(m / (1 - start), np.maximum((v - start) / (1 - start), 0)) for m, v in moving[momentum]]
            batch_norm.write(model, pairs)
            row[f"corrected {momentum}"] = validate(model, data, spec.config.training)["accuracy"]
        for size in (*SIZES, len(data.x_train)):
            began, batch_norm.IMAGES = time.process_time(), size
            batch_norm.recompute(model, data.x_train, before, 1, batch)
            row[f"seconds {size}"] = time.process_time() - began
            row["exact" if size == len(data.x_train) else str(size)] = validate(model, data, spec.config.training)[
                "accuracy"
            ]
        yield row


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    whole = load(compose(["data=fashion_mnist"]).data, 0)
    kinds = [f"{kind} {momentum}" for momentum in MOMENTA for kind in ("moving", "corrected")]
    kinds += [str(size) for size in SIZES]
    print(f"| batch | steps | {' | '.join(kinds)} | s an epoch | s for 512 |")
    print("| ---: " * (len(kinds) + 4) + "|")
    for batch, steps in CASES:
        images = slice(batch * steps)
        part = {"x_train": whole.x_train[images], "y_train": whole.y_train[images]}
        data = dataclasses.replace(whole, **part, x_val=whole.x_val[:2000], y_val=whole.y_val[:2000])
        rows = [row for rate in RATES for row in measured(data, batch, rate)]
        off = [max(abs(row[kind] - row["exact"]) for row in rows) for kind in kinds]
        spent = [np.median([row[name] for row in rows]) for name in ("epoch", "seconds 512")]
        points = " | ".join(f"{100 * each:.1f}" for each in off)
        print(f"| {batch} | {steps} | {points} | {spent[0]:.2f} | {spent[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Validation with the weights and with their moving average, epoch by epoch, with a cosine and without.

    CNNSWEEP_DATA_DIR=DIR python experiments/early_signal/averaging.py FILE NUMBER [NUMBER ...]

Networks 0 to 2 are those that +sweep=fashion begins with, further numbers are drawn from its space, at most 4 million
multiply-adds each. Each is trained on 20,000 images of Fashion-MNIST, 36 epochs of 5,000, with a cosine and with a
constant learning rate, and validated after each epoch on 10,000 images with the weights and with
`training.ema_momentum=0.99`. FILE keeps a line a training, and the command goes on with what is there; then it prints
the table of all. Some minutes of one core a network.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from cnnsweep.config.compose import compose
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.loading import load
from cnnsweep.search.observations import Untried
from cnnsweep.search_space.problem import make_problem
from cnnsweep.training import averaging, batch_norm
from cnnsweep.training.building import build_model
from cnnsweep.training.train import fit_epoch, validate
from cnnsweep.trial import TrialSpec

EPOCHS = 36
SETTINGS = (
    "+sweep=fashion", "data.limit=30000", "data.validation=0.33334", "limits.mmacs=4", "training.epoch_size=5000",
    f"training.epochs={EPOCHS}", "training.ema_momentum=0.99",
)  # fmt: skip
RATES = ("cosine", "constant")
SHOWN, LEVELS = (1, 3, 6, 9, 12, 18, 24, 36), (0.88, 0.89, 0.90)


def networks(count: int) -> list[dict[str, Any]]:
    """The values of the first networks: the preset's, then draws."""
    config = compose([*SETTINGS, "search=random"])
    found = [{key: value for key, value in given.items() if key != "optional"} for given in config.search.start_with]
    problem, rng = make_problem(config, (28, 28, 1), 10), np.random.default_rng(5)
    untried = Untried(problem)
    while len(found) < count:
        values = next(v for v in iter(lambda: problem.space.draw_evenly(rng), None) if v in untried)
        untried.remove(values)
        found.append(values)
    return found


def curves(rate: str, values: dict[str, Any], data: Dataset) -> dict[str, list[float]]:
    """The accuracy after each epoch: with the weights, and with their average."""
    found: dict[str, list[float]] = {"weights": [], "average": []}
    config = compose([*SETTINGS, f"training.schedule={rate}"]).with_values(values)
    spec = TrialSpec(1, {}, config, 1, __file__, __file__, EPOCHS)  # type: ignore[arg-type]
    keras.backend.clear_session()
    model = build_model(config, data, 1)

    def validated() -> float:
        other = [(mean - 1, variance) for mean, variance in batch_norm.read(model)]  # so that they are computed again
        batch_norm.recompute(model, data.x_train, other, 1, config.training.batch_size)
        return validate(model, data, config.training)["accuracy"]

    for epoch in range(1, EPOCHS + 1):
        fit_epoch(model, data, spec, epoch)
        found["average"].append(validated())
        with averaging.training_weights(model):
            found["weights"].append(validated())
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The mean of the accuracies after some epochs, and the median number of epochs to some."""
    heads = [*(f"epoch {epoch}" for epoch in SHOWN), *(f"epochs to {level:.2f}" for level in LEVELS)]
    lines = [f"| rate | validated with | {' | '.join(heads)} |", "| --- | --- " + "| --: " * len(heads) + "|"]
    for rate in RATES:
        for kind in ("weights", "average"):
            chosen = [row[kind] for row in rows if row["rate"] == rate]
            if not chosen:
                continue
            means = [f"{statistics.mean(curve[epoch - 1] for curve in chosen):.4f}" for epoch in SHOWN]
            first = [[next((e for e, v in enumerate(c, 1) if v >= at), EPOCHS + 1) for c in chosen] for at in LEVELS]
            medians = [statistics.median_low(epochs) for epochs in first]
            shown = [str(epochs) if epochs <= EPOCHS else "later" for epochs in medians]
            lines.append(f"| {rate} ({len(chosen)}) | {kind} | {' | '.join([*means, *shown])} |")
    return "\n".join(lines)


def main(path: Path, numbers: list[int]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = compose(list(SETTINGS))
    data = load(config.data, config.seed)
    done = {(row["number"], row["rate"]) for row in _rows(path)}
    for number in numbers:
        for rate in RATES:
            if (number, rate) not in done:
                values = networks(number + 1)[number]
                row = {"number": number, "rate": rate, "values": values, **curves(rate, values, data)}
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(_rows(path)))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])

"""Make a table of learning curves: configurations drawn from a space, each trained to its end.

    CNNSWEEP_DATA_DIR=DIR taskset -c 1 python experiments/search_quality/make_table.py short FOLDER [--rows 440]

DIR holds fashion-mnist/ and, for the table `mnist`, mnist/; `sentences` reads CNNSWEEP_TEXT_DIR. FOLDER keeps the rows,
one JSON object a line; the command goes on with what is there, and writes TABLE.jsonl.gz beside this file. One process
on one core, as a sweep's worker; its seconds are those of the processor, so that other work hardly counts. `short`
takes about 13 s of one core a configuration, `long` 55 s, `mnist` and `sentences` 8 s. Every tenth configuration is
trained with two seeds. `fashion` is for a GPU (KERAS_BACKEND=jax); its seconds are estimated.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.update(OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="2", TF_ENABLE_ONEDNN_OPTS="1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import numpy as np  # noqa: E402
from problem import TABLES, problem, settings  # noqa: E402

from cnnsweep.config.compose import compose  # noqa: E402
from cnnsweep.data import loading  # noqa: E402
from cnnsweep.data.arrays import Dataset  # noqa: E402
from cnnsweep.search.observations import Untried  # noqa: E402
from cnnsweep.search.prior import expected_error  # noqa: E402
from cnnsweep.search_space.space import Values  # noqa: E402
from cnnsweep.training.cost_model import Forecaster, amounts_of  # noqa: E402
from cnnsweep.trial import TrialSpec, trial_seed  # noqa: E402

AGAIN = 10
"""One configuration in so many is trained again with another seed."""
FRESH = 60
"""Rows after which the process begins anew: TensorFlow keeps what it has traced."""


def drawn(table: str, count: int) -> list[Values]:
    """The first configurations of a table, the same in every run."""
    posed, untried, found = problem(table), Untried(problem(table)), []
    for number in range(count):
        rng = np.random.default_rng([TABLES[table].seed, number])
        draws = (v for v in iter(lambda rng=rng: posed.space.draw_evenly(rng), None) if v in untried)
        several = itertools.islice(draws, TABLES[table].likeliest if number % 2 else 1)
        values = min(several, key=lambda values: expected_error(posed, values))
        untried.remove(values)
        found.append(values)
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(table: str, count: int, path: Path) -> list[tuple[int, int, Values]]:
    """Number, repetition and values of what is not trained yet; each repetition follows ten new configurations."""
    done = {(row["number"], row["again"]) for row in rows(path)}
    order, new = [], drawn(table, count)
    for number, values in enumerate(new):
        order.append((number, 0, values))
        if number % AGAIN == AGAIN - 1:
            twice = number - AGAIN // 2 + 1
            order.append((twice, 1, new[twice]))
    return [one for one in order if one[:2] not in done]


def curve(values: Values, seed: int, table: str, data: Dataset) -> dict[str, Any]:
    """Train one configuration: validation accuracy and processor seconds of every epoch, the start's seconds too.

    `moving` is the accuracy of the same weights with Keras' moving averages, where the network is normalised.
    """
    from cnnsweep.training import batch_norm
    from cnnsweep.training.building import build_model
    from cnnsweep.training.train import fit_epoch, validate

    found: dict[str, list[float]] = {"accuracy": [], "loss": [], "train": [], "seconds": [], "moving": []}
    config = problem(table).config.with_values(values)
    began = time.process_time()
    model = build_model(config, data, seed)
    start = time.process_time() - began
    spec = TrialSpec(1, values, config, seed, Path(), Path(), epochs=TABLES[table].epochs)
    moving = batch_norm.read(model)
    for epoch in range(1, spec.epochs + 1):
        batch_norm.write(model, moving)  # Keras' averages go on as if nothing had been computed again
        before, began = moving, time.process_time()
        trained = fit_epoch(model, data, spec, epoch)
        moving, spent = batch_norm.read(model), time.process_time() - began
        if moving:
            found["moving"].append(round(validate(model, data, config.training)["accuracy"], 5))
        began = time.process_time()
        batch_norm.recompute(model, data.x_train, before, spec.seed, spec.config.training.batch_size)
        validated = validate(model, data, config.training)
        found["seconds"].append(round(spent + time.process_time() - began, 4))
        found["accuracy"].append(round(validated["accuracy"], 5))
        found["loss"].append(round(validated["loss"], 5))
        found["train"].append(round(trained["accuracy"], 5))
    return {"start": round(start, 3), **found}


def estimated(values: Values, table: str, pace: float) -> dict[str, Any]:
    """Seconds of the start and of each epoch, where they are not those of the machine that trained."""
    posed = problem(table)
    amounts = amounts_of(posed.validate(values).network, posed.config.with_values(values), *posed.images)
    first, other = Forecaster().parts(amounts)
    return {"start": round(pace * (first - other), 3), "seconds": [round(pace * other, 4)] * TABLES[table].epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=440)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{options.table}.jsonl"
    todo = missing(options.table, options.rows, path)
    with gzip.GzipFile(HERE / f"{options.table}.jsonl.gz", "wb", mtime=0) as file:
        file.write(path.read_bytes() if path.exists() else b"")
    if not todo:
        return
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    config = compose([*settings(options.table), "search=random"])
    data = loading.load(config.data, config.seed)
    print(data.describe(), f"{len(todo)} trainings to do", flush=True)
    for number, again, values in todo[:FRESH]:
        result = curve(values, trial_seed(again, number), options.table, data)
        network = problem(options.table).validate(values).network
        assert network is not None
        if (pace := TABLES[options.table].pace) is not None:
            result.update(estimated(values, options.table, pace))
        costs = {"parameters": network.parameters, "mmacs": round(network.mmacs, 4)}
        with path.open("a") as file:
            file.write(json.dumps({"number": number, "again": again, "values": values, **costs, **result}) + "\n")
        spent = result["start"] + sum(result["seconds"])
        print(f"{time.strftime('%H:%M:%S')} {number} {again} {result['accuracy'][-1]:.4f} {spent:.1f} s", flush=True)
        keras.backend.clear_session()
        gc.collect()
    os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()

"""Run one small sweep on several executors and print, as JSON, their trials' results and the files they left."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fake_sweeps
import numpy as np
import ray_cluster
import small_sources

from cnnsweep.data import loading as data
from cnnsweep.executors.base import Executor, run_all
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.ray.actor import home
from cnnsweep.executors.ray.executor import RayExecutor
from cnnsweep.sweep import loop
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

OVERRIDES = ("data.limit=200", "training.epochs=2", "budget.trials=3")
RECURRENT = ("model=cnn_rnn", "model.embedding=4", "model.blocks=1", "model.filters=2", "model.recurrent_units=3")


def run(folder: Path, executor: Executor) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    config = fake_sweeps.config(*OVERRIDES)
    data.save(data.load(config.data, config.seed), folder / "data")
    sweep = fake_sweeps.make(folder, OVERRIDES, train, executor)
    loop.search(sweep)
    recurrent = weights_on_texts(folder / "texts", executor)
    executor.close()
    entries = sorted(sweep.state.trials.values(), key=lambda e: e.number)
    trials = [[e.status, dict(e.values), [{**row, "epoch_seconds": 0} for row in e.curve]] for e in entries]
    root = folder / "trials"
    return {
        "trials": trials,
        "recurrent": recurrent,
        "files": sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()),
    }


def weights_on_texts(folder: Path, executor: Executor) -> dict[str, list[float]]:
    """The weights of a recurrent network after an epoch on texts."""
    folder.mkdir()
    config, _ = small_sources.loaded(folder, "text_csv", *RECURRENT)
    run_all(executor, [(train, TrialSpec(1, {}, config, 5, folder / "trial", folder / "data", 1))])
    with np.load(folder / "trial" / "last.npz") as file:
        return {name: file[name].ravel().tolist() for name in file if name.startswith("model/")}


def main(folder: Path) -> None:
    found = {
        "inline": run(folder / "inline", InlineExecutor()),
        "process": run(folder / "process", ProcessExecutor(device="cpu", workers=2, threads=1)),
    }
    log = folder / "ray" / "log.txt"
    log.parent.mkdir()
    with ray_cluster.served() as address:
        executor = RayExecutor(address, log=log)
        node = home(executor._pool._settings.sweep)
        assert node.exists()
        found["ray"] = {**run(folder / "ray", executor), "left": node.exists()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

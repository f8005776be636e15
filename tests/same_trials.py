"""Run one small sweep on several executors and print, as JSON, what its trials told and which files they left."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fake_sweeps
import ray_cluster

from cnnsweep.data import loading as data
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.ray.executor import RayExecutor
from cnnsweep.executors.ray.manifest import Manifest
from cnnsweep.training.train import train

OVERRIDES = ("data.limit=200", "training.epochs=2", "budget.trials=3")


def tell(folder: Path, executor: Any) -> dict[str, Any]:
    folder.mkdir()
    config = fake_sweeps.config(*OVERRIDES)
    data.save(data.load(config["data"], config["seed"]), folder / "data")
    sweep = fake_sweeps.make(folder, OVERRIDES, train, executor)
    sweep.run()
    executor.close()
    entries = sorted(sweep.ledger.entries.values(), key=lambda e: e.number)
    trials = [[e.status, dict(e.values), [{**row, "epoch_seconds": 0} for row in e.curve]] for e in entries]
    root = folder / "trials"
    return {"trials": trials, "files": sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())}


def main(folder: Path) -> None:
    told = {
        "inline": tell(folder / "inline", InlineExecutor()),
        "process": tell(folder / "process", ProcessExecutor(device="cpu", workers=2, threads=1)),
    }
    Manifest.place = ray_cluster.place_elsewhere  # type: ignore[method-assign]
    storage, log = folder / "storage", folder / "ray" / "log.txt"
    with ray_cluster.served() as address:
        executor = RayExecutor(address, storage=str(storage), log=log)
        homes = f"cnnsweep-{executor._crew._setup.sweep}*"  # type: ignore[union-attr]
        told["ray"] = tell(folder / "ray", executor)
    left = [*storage.rglob("*.npz"), *Path(tempfile.gettempdir()).glob(homes)]
    told["ray"]["left"] = [str(path) for path in left]
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

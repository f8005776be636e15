"""The value of pre-training: four small sweeps, their trials in one table and one picture.

    CNNSWEEP_DATA_DIR=DIR python experiments/transfer/run.py [--out FOLDER] [--only Fashion]

DIR holds ants-bees/, fashion-mnist/ and weights/. About 12 minutes on 2 cores; the Fashion-MNIST part, 8. With
`--only` the sweeps whose names begin so are run, and the others stay as FOLDER/results.json has them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cnnsweep.journal.events import BestTested, EpochEnded, Event, TrialEnded
from cnnsweep.journal.journal import read

HERE = Path(__file__).parent
LIMIT, MINUTES = 10_000, 3
MOBILENET = ["model.backbone=MobileNet", "model.cut=conv_pw_12_relu"]


def sweeps(data: Path) -> dict[str, list[str]]:
    """The overrides of each sweep, by what it is called in the table."""
    real = f"model.weights={next((data / 'weights').glob('mobilenet*.h5'))}"
    ants = ["+sweep=transfer", f"data.dir={data / 'ants-bees'}", *MOBILENET]
    clothes = [f"data.limit={LIMIT}", f"budget.minutes={MINUTES}"]
    return {
        "ants-bees, ImageNet's weights": [*ants, real, "name=ants-bees"],
        "ants-bees, random weights": [*ants, "model.weights=none", "name=ants-bees-random"],
        "Fashion-MNIST, ImageNet's weights": ["+sweep=fashion_transfer", *MOBILENET, real, *clothes],
        "Fashion-MNIST, CNN from scratch": ["+sweep=fashion", "search=hyperband", "search.start_with=[]", *clothes],
    }


def run(overrides: list[str], mlruns: Path) -> tuple[list[Event], float]:
    """Run one sweep; return its journal's events and the wall time of the whole command."""
    before, began = set(mlruns.glob("sweeps/*")), time.monotonic()
    command = [sys.executable, "-m", "cnnsweep", f"tracking.dir={mlruns}", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    subprocess.run(command, check=True, env=environment)
    seconds = time.monotonic() - began
    (folder,) = set(mlruns.glob("sweeps/*")) - before
    return read(folder / "journal.jsonl"), seconds


def summarise(events: list[Event], seconds: float) -> dict[str, Any]:
    """The best trial, its accuracy on the test images, and the sweep's duration."""
    best: dict[int, float] = {}
    for event in events:
        if isinstance(event, EpochEnded):
            best[event.trial] = max(best.get(event.trial, 0.0), event.metrics["val_accuracy"])
    final = next(e for e in events if isinstance(e, BestTested))
    end = next(e for e in events if isinstance(e, TrialEnded) and e.trial == final.trial)
    return {
        "values": sorted(best.values(), reverse=True),
        "best": best[final.trial],
        "test": final.metrics["test_accuracy"],
        "images": final.images,
        "parameters": int(end.summary["parameters"]),
        "trials": len(best),
        "seconds": seconds,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| sweep | trials | best on validation | its test accuracy | parameters | wall time |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, r in results.items():
        test = f"{r['test']:.4f} ({r['images']:,} images)"
        lines.append(
            f"| {name} | {r['trials']} | {r['best']:.4f} | {test} | {r['parameters']:,} | {r['seconds']:.0f} s |"
        )
    return "\n".join(lines) + "\n"


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One row a sweep, one dot a trial."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for row, r in enumerate(reversed(results.values())):
        axes.scatter(r["values"], [row] * len(r["values"]), s=36, alpha=0.5, color="tab:blue", linewidths=0)
        axes.scatter(r["best"], row, s=60, color="tab:orange", zorder=3, label="best trial" if row == 0 else None)
        axes.annotate(f"{r['best']:.3f}", (r["best"], row), (0, 8), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(results)), list(reversed(results)))
    axes.set_ylim(-0.5, len(results) - 0.3)
    axes.set_xlabel("validation accuracy, one dot a trial")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    output, data = arguments.out, Path(os.environ["CNNSWEEP_DATA_DIR"]).absolute()
    kept = output / "results.json"
    results = json.loads(kept.read_text()) if arguments.only and kept.exists() else {}
    output.mkdir(parents=True, exist_ok=True)
    for name, overrides in sweeps(data).items():
        if name.startswith(arguments.only):
            results[name] = summarise(*run(overrides, (output / "mlruns").absolute()))
    kept.write_text(json.dumps(results, indent=1) + "\n")
    (output / "results.md").write_text(table(results))
    draw(results, output / "trials.png")
    print(table(results))


if __name__ == "__main__":
    main()

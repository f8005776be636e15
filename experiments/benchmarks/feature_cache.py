"""What computing a frozen backbone's features once is worth, and how fast a folder of images is decoded.

One run, one thing after another:

    decoding   every image of the folder at 224×224, the longer side cropped, by `data=image_folder` (read, hashed,
               decoded, resized and written to its cache, which was empty) and by
               keras.utils.image_dataset_from_directory (read, decoded, resized); three times each in turn, the
               fastest counts
    heads      the same 20-trial random search of a classifier on MobileNet's features, first with the cache, building
               it included, then with model.cache=null: every image through the backbone in every epoch of every trial

    CNNSWEEP_DATA_DIR=DIR python experiments/benchmarks/feature_cache.py [--out experiments/benchmarks/feature_cache.md]

DIR holds ants-bees/ and weights/. About 10 minutes on 2 cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRIALS, EPOCHS, SIZE = 20, 8, 224
ROOT = Path(__file__).parents[2]


def decode_ours(folder: Path, scratch: Path) -> tuple[int, float]:
    """Images and seconds."""
    from cnnsweep.data import image_folder

    config = {"dir": str(folder), "image_size": SIZE, "resize": "crop", "color": "rgb", "skip_bad": False}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        found = image_folder.load({**config, "cache": cache})
        return len(found.x_train) + (0 if found.x_val is None else len(found.x_val)), time.perf_counter() - began


def decode_keras(folder: Path) -> tuple[int, float]:
    import keras

    began, count = time.perf_counter(), 0
    for split in ("train", "val"):
        settings: dict[str, Any] = {"image_size": (SIZE, SIZE), "batch_size": 32, "shuffle": False}
        settings |= {"verbose": False, "crop_to_aspect_ratio": True}
        for images, _ in keras.utils.image_dataset_from_directory(folder / split, **settings):
            count += len(images)
    return count, time.perf_counter() - began


def decoding(folder: Path, scratch: Path) -> dict[str, float]:
    """Images a second, each way."""
    decode_keras(folder)  # TensorFlow's start is not what is measured; the files are in the page cache after this
    ours, keras = zip(*((decode_ours(folder, scratch), decode_keras(folder)) for _ in range(3)), strict=True)
    assert ours[0][0] == keras[0][0]
    return {"ours": max(n / s for n, s in ours), "keras": max(n / s for n, s in keras)}


def sweep(data: Path, mlruns: Path, *overrides: str) -> dict[str, float]:
    """Run the 20 trials; seconds from the first trial's start to the last one's end, and of the whole command."""
    weights = next((data / "weights").glob("mobilenet*.h5"))
    settings = [f"data.dir={data / 'ants-bees'}", "model.backbone=MobileNet", "model.cut=conv_pw_12_relu"]
    settings += [f"model.weights={weights}", f"training.epochs={EPOCHS}", "training.patience=null"]
    settings += [f"budget.trials={TRIALS}", f"tracking.dir={mlruns}", *overrides]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cnnsweep", "+sweep=transfer", *settings],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    seconds = time.perf_counter() - began
    (journal,) = mlruns.glob("sweeps/*/journal.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    first = min(e["time"] for e in events if e["event"] == "trial")
    last = max(e["time"] for e in events if e["event"] == "end")
    best = max(e["metrics"]["val_accuracy"] for e in events if e["event"] == "epoch")
    return {"trials": last - first, "command": seconds, "best": best}


def report(rates: dict[str, float], cached: dict[str, float], whole: dict[str, float]) -> str:
    def row(key: str) -> str:
        return f"| {cached[key]:.0f} s | {whole[key]:.0f} s | {whole[key] / cached[key]:.1f} times less |"

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"""\
# The features' cache, and decoding

`python experiments/benchmarks/feature_cache.py` on {len(os.sched_getaffinity(0))} cores. The machine's load average at
the end was {load}: where it is above 2, others were at work on it, in all parts of the run.

| {TRIALS} trials of {EPOCHS} epochs | with the cache | without | |
|---|--:|--:|--:|
| first trial's start to last one's end, features included {row("trials")}
| the whole command: imports, final evaluation, logged model too {row("command")}
| best validation accuracy | {cached["best"]:.4f} | {whole["best"]:.4f} | |

| decoding at {SIZE}×{SIZE} | images a second |
|---|--:|
| `data=image_folder`, with hashing and writing the cache | {rates["ours"]:.0f} |
| `keras.utils.image_dataset_from_directory` | {rates["keras"]:.0f} |
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    out = parser.parse_args().out
    data = Path(os.environ["CNNSWEEP_DATA_DIR"]).absolute()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rates = decoding(data / "ants-bees", scratch)
        print(rates, flush=True)
        cached = sweep(data, scratch / "cached")
        print(cached, flush=True)
        whole = sweep(data, scratch / "whole", "model.cache=null")
        print(whole, flush=True)
    out.write_text(report(rates, cached, whole))
    print(out.read_text())


if __name__ == "__main__":
    main()

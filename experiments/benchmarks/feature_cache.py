"""Benchmark of the feature cache (a frozen backbone's features, computed once) and of decoding a folder of images.

One run, one thing after another:

    decoding   every image to 224×224, the longer side cropped, by `data=image_folder` (read, hashed, decoded, resized
               and written to its cache, which was empty) and by keras.utils.image_dataset_from_directory (read,
               decoded, resized); in turn, and the one that was second is first the next time; medians. Once the
               folder as it is (shorter side 256 pixels), three copies of each file; and once every third of its
               images enlarged to a shorter side of 1,536 pixels, as cameras make them
    heads      the same random search of a classifier on MobileNet's features at 160×160, first with the cache (empty
               at the start; filling it is included), then with model.cache=null: every image through the backbone in
               every epoch of every trial. Early stopping is off, so both train the same epochs

    CNNSWEEP_DATA_DIR=DIR python experiments/benchmarks/feature_cache.py [--out experiments/benchmarks/feature_cache.md]

DIR holds ants-bees/ and weights/. About 12 minutes on 2 cores that have nothing else to do, most of it without the
cache. `--trials 3` is a quick look, `--only decoding` or `--only heads` one part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRIALS, EPOCHS, SIZE = 20, 8, 160
"""Of the search of heads."""
PIXELS, PAIRS, COPIES, CAMERA = 224, 5, 3, 1536
"""Of the decoding."""
ROOT = Path(__file__).parents[2]
Rate = tuple[float, float]
"""Images a second, and milliseconds of processor time an image."""


def decode_ours(folder: Path, scratch: Path) -> int:
    from cnnsweep.config.compose import compose
    from cnnsweep.data import image_folder

    cache = tempfile.mkdtemp(dir=scratch)
    config = compose(["data=image_folder", f"data.dir={folder}", f"data.image_size={PIXELS}", f"data.cache={cache}"])
    found = image_folder.load(config.data.argument())
    return len(found.x_train) + (0 if found.x_val is None else len(found.x_val))


def decode_keras(folder: Path, _: Path) -> int:
    import keras

    count = 0
    for split in ("train", "val"):
        settings: dict[str, Any] = {"image_size": (PIXELS, PIXELS), "batch_size": 32, "shuffle": False}
        settings |= {"verbose": False, "crop_to_aspect_ratio": True}
        for images, _labels in keras.utils.image_dataset_from_directory(folder / split, **settings):
            count += len(images)
    return count


def timed(decode: Callable[[Path, Path], int], folder: Path) -> Rate:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        began, busy = time.perf_counter(), time.process_time()
        count = decode(folder, Path(scratch))
        return count / (time.perf_counter() - began), (time.process_time() - busy) / count * 1e3


def decoding(folder: Path) -> dict[str, Rate]:
    """The median of each way."""
    ways = {"ours": decode_ours, "keras": decode_keras}
    for decode in ways.values():
        timed(decode, folder)  # TensorFlow's start is not measured; the files are in the page cache after this
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    for number in range(PAIRS):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            rates[name].append(timed(ways[name], folder))
    return {name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in rates.items()}  # type: ignore[misc]


def copies(source: Path, to: Path) -> Path:
    for number in range(COPIES):
        shutil.copytree(
            source, to, dirs_exist_ok=True, copy_function=lambda a, b, n=number: shutil.copy(a, f"{b}.{n}.jpg")
        )
    return to


def enlarged(source: Path, to: Path) -> Path:
    from PIL import Image

    for path in sorted(source.rglob("*.jpg"))[::3]:
        place = to / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            factor = CAMERA / min(image.size)
            image.resize((round(image.width * factor), round(image.height * factor))).save(place, quality=90)
    return to


def sweep(data: Path, mlruns: Path, trials: int, *overrides: str) -> dict[str, float]:
    """Run the trials; seconds from the first trial's start to the last one's end, and of the whole command."""
    weights = next((data / "weights").glob("mobilenet*.h5"))
    settings = [f"data.dir={data / 'ants-bees'}", "model.backbone=MobileNet", "model.cut=conv_pw_12_relu"]
    settings += [f"model.weights={weights}", f"data.image_size={SIZE}", f"model.input_size={SIZE}"]
    settings += [f"training.epochs={EPOCHS}", "training.patience=null", "tracking.report=false"]
    settings += [f"budget.trials={trials}", f"tracking.dir={mlruns}", *overrides]
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
    ended = [e for e in events if e["event"] == "end"]
    assert len(ended) == trials
    values = [e["metrics"]["val_accuracy"] for e in events if e["event"] == "epoch"]
    return {"trials": last - first, "command": seconds, "best": max(values), "epochs": len(values)}


def decoding_table(found: dict[str, dict[str, Rate]]) -> list[str]:
    lines = [
        f"| decoding at {PIXELS}×{PIXELS}, median of {PAIRS} | `data=image_folder` | `image_dataset_from_…` | |",
        "|---|--:|--:|--:|",
    ]
    for name, rates in found.items():
        cells = [f"{rate:,.0f}/s, {busy:.2f} ms of CPU each" for rate, busy in (rates["ours"], rates["keras"])]
        lines.append(
            f"| {name} | {cells[0]} | {cells[1]} | {rates['ours'][0] / rates['keras'][0]:.2f} times the rate |"
        )
    return lines


def heads_table(cached: dict[str, float], whole: dict[str, float], trials: int) -> list[str]:
    def row(key: str) -> str:
        return f"| {cached[key]:.0f} s | {whole[key]:.0f} s | {whole[key] / cached[key]:.1f} times less |"

    return [
        f"| {trials} trials of {EPOCHS} epochs, 360 images, MobileNet at {SIZE}×{SIZE} | with the cache | without | |",
        "|---|--:|--:|--:|",
        f"| first trial's start to last one's end, features included {row('trials')}",
        f"| the whole command: imports, final evaluation, logged model too {row('command')}",
        f"| best validation accuracy | {cached['best']:.4f} | {whole['best']:.4f} | |",
        f"| epochs trained | {cached['epochs']} | {whole['epochs']} | |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--only", choices=("decoding", "heads"))
    arguments = parser.parse_args()
    data = Path(os.environ["CNNSWEEP_DATA_DIR"]).absolute()
    sys.path.insert(0, str(ROOT))
    before = os.getloadavg()[1]
    lines = ["# The features' cache, and decoding", ""]
    lines += [f"`python experiments/benchmarks/feature_cache.py`, {len(os.sched_getaffinity(0))} cores, "
              f"{platform.machine()}, Python {platform.python_version()}; load average before: {before:.1f}. "
              "The parts are described at the head of the script.", ""]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if arguments.only != "heads":
            found = {
                f"shorter side 256, {COPIES} copies": decoding(copies(data / "ants-bees", scratch / "copies")),
                f"shorter side {CAMERA:,}": decoding(enlarged(data / "ants-bees", scratch / "enlarged")),
            }
            lines += [*decoding_table(found), ""]
            print("\n".join(lines[-5:]), flush=True)
        if arguments.only != "decoding":
            cached = sweep(data, scratch / "cached", arguments.trials)
            print(cached, flush=True)
            whole = sweep(data, scratch / "whole", arguments.trials, "model.cache=null")
            lines += [*heads_table(cached, whole, arguments.trials), ""]
    arguments.out.write_text("\n".join(lines))
    print(arguments.out.read_text())


if __name__ == "__main__":
    main()

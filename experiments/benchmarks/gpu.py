"""An epoch of training on a GPU with JAX: seconds of each way to give the device its batches, and of compiling.

    KERAS_BACKEND=jax python experiments/benchmarks/gpu.py [--images 20000] [--batches 64 256]
    KERAS_BACKEND=jax python experiments/benchmarks/gpu.py --compiling
    KERAS_BACKEND=jax python experiments/benchmarks/gpu.py --precisions

Each network is trained on random images in three ways, in one process, in one precision:

    plain   Keras' `fit` on arrays, as people write it
    fit     a trial's epoch where `fit` sends batch after batch
    device  a trial's epoch as it is: the examples are on the device, and an epoch is one call

The first epoch compiles; the others are the median of five. An epoch of a trial has, besides the steps, the statistics
of batch normalisation and the validation, on a tenth of the images.

`--compiling` trains a network, another one and the first again, with averaged weights on 13,500 images. Set in the
environment, JAX_COMPILATION_CACHE_DIR=DIR and JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 keep what it compiled,
XLA_FLAGS=--xla_gpu_autotune_level=0 turns tuning off, --xla_gpu_enable_triton_gemm=false, which a sweep's workers have,
leaves matrix products to cuBLAS.

`--precisions` trains each network, and some on larger images, in float32 and in mixed_bfloat16 by turns, with the
examples on the device. An epoch has 6,000 images of 96×96 and 2,000 of 224×224.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from training_speed import COURSE, SAME, STRIDED

EPOCHS = 5
NETWORKS: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "course, plain": ((28, 28, 1), [*COURSE, "model.batch_norm=false"]),
    "course, normalised": ((28, 28, 1), [*COURSE, "model.batch_norm=true"]),
    "same 32-64-96, normalised": ((28, 28, 1), [*SAME, "model.batch_norm=true"]),
    "strided, colour, normalised": ((32, 32, 3), [*STRIDED, "model.batch_norm=true"]),
}
LARGE = [*SAME, "model.dense_units=128", "model.batch_norm=true"]
LARGE_NETWORKS: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "32-64-128 at 96×96": ((96, 96, 3), [*LARGE, "model.filters=[32,64,128]"]),
    "64-128-256 at 96×96": ((96, 96, 3), [*LARGE, "model.filters=[64,128,256]"]),
    "32-64-128-128 at 224×224": ((224, 224, 3), [*LARGE, "model.blocks=4", "model.filters=[32,64,128,128]"]),
}
IMAGES = {96: 6_000, 224: 2_000}
"""An epoch's, by their width, where it is not what is asked for."""

AVERAGED = [*SAME, "model.dense_units=128", "model.batch_norm=true", "training.schedule=cosine"]
AVERAGED += ["training.epochs=36", "training.ema_momentum=0.99"]


def epochs_of(name: str, way: str, images: int, batch: int, precision: str, folder: Path) -> Callable[[int], None]:
    """A function that trains the network for an epoch in that way."""
    import keras

    from cnnsweep.config.compose import compose
    from cnnsweep.data.arrays import Dataset
    from cnnsweep.training import on_device
    from cnnsweep.training.building import build_model
    from cnnsweep.training.train import run_epoch
    from cnnsweep.trial import TrialSpec

    shape, overrides = {**NETWORKS, **LARGE_NETWORKS}.get(name, ((28, 28, 1), [*AVERAGED, f"model.filters={name}"]))
    config = compose(["space=none", f"training.batch_size={batch}", f"training.precision={precision}", *overrides])
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (images, *shape), np.uint8), rng.integers(0, 10, images).astype(np.int32)
    few = x[: images // 10], y[: images // 10]
    data = Dataset("random", x, y, *few, *few, tuple("0123456789"), "random", "0" * 16, 1 / 255)
    model = build_model(config, data, 1, None)
    if way == "plain":
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return lambda _: model.fit(x, y, batch_size=batch, validation_data=few, verbose=0) and None
    spec = TrialSpec(1, {}, config, 1, folder, folder, EPOCHS)
    can_hold = on_device.can_hold

    def epoch(number: int) -> None:
        on_device.can_hold = can_hold if way == "device" else lambda *_: False
        run_epoch(model, data, spec, number)
        on_device.can_hold = can_hold

    return epoch


def rows(images: int, batches: list[int], precision: str, folder: Path) -> Iterator[str]:
    ways = ("plain", "fit", "device")
    yield "| network | batch | first epoch: " + " | ".join(ways) + " | other epochs: " + " | ".join(ways) + " |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in NETWORKS:
        for batch in batches:
            trained = {way: epochs_of(name, way, images, batch, precision, folder) for way in ways}
            found = by_turns(trained)
            first = " | ".join(f"{found[way][0]:.2f}" for way in ways)
            others = " | ".join(f"{np.median(found[way][1:]):.3f}" for way in ways)
            yield f"| {name} | {batch} | {first} | {others} |"


def compiling(precision: str, folder: Path) -> Iterator[str]:
    yield "| network | first epoch | other epochs |"
    yield "|---|--:|--:|"
    for filters in ("[32,64,96]", "[24,48,80]", "[32,64,96]"):
        epoch, seconds = epochs_of(filters, "device", 13_500, 64, precision, folder), []
        for number in range(1, 5):
            began = time.perf_counter()
            epoch(number)
            seconds.append(time.perf_counter() - began)
        yield f"| {filters} | {seconds[0]:.2f} | {np.median(seconds[1:]):.3f} |"


def precisions(images: int, batches: list[int], folder: Path) -> Iterator[str]:
    ways = ("float32", "mixed_bfloat16")
    yield "| network | batch | first epoch: " + " | ".join(ways) + " | other epochs: " + " | ".join(ways) + " | ratio |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, (shape, _) in {**NETWORKS, **LARGE_NETWORKS}.items():
        for batch in batches:
            count = IMAGES.get(shape[0], images)
            trained = {way: epochs_of(name, "device", count, batch, way, folder) for way in ways}
            found = by_turns(trained)
            first = " | ".join(f"{found[way][0]:.2f}" for way in ways)
            others = [float(np.median(found[way][1:])) for way in ways]
            yield f"| {name} | {batch} | {first} | {others[0]:.3f} | {others[1]:.3f} | {others[0] / others[1]:.2f} |"


def by_turns(trained: dict[str, Callable[[int], None]]) -> dict[str, list[float]]:
    """The seconds of each way's epochs."""
    found: dict[str, list[float]] = {way: [] for way in trained}
    for number in range(1, EPOCHS + 2):
        for way, epoch in trained.items():
            began = time.perf_counter()
            epoch(number)
            found[way].append(time.perf_counter() - began)
    return found


def device() -> str:
    import jax

    return f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--precision", default="mixed_bfloat16")
    parser.add_argument("--compiling", action="store_true")
    parser.add_argument("--precisions", action="store_true")
    options = parser.parse_args()
    print(f"{device()}, {'' if options.precisions else f'{options.precision}, '}seconds.\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.precisions:
            lines = precisions(options.images, options.batches, folder)
        elif options.compiling:
            lines = compiling(options.precision, folder)
        else:
            lines = rows(options.images, options.batches, options.precision, folder)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""The speed of a training step, and what a trial takes outside of its steps.

Six networks, each in three ways, everything in one run, rounds interleaved, one thread pinned to one core:

    plain   Keras' `fit` on arrays, as people write it
    before  a trial made of Keras' own operations, with TensorFlow's own choice of oneDNN
    after   a trial as it is

A second table has the parts of short trials outside their steps; a third, with `--accuracy`, the final validation
accuracy of 20 configurations of +sweep=fashion, three seeds each, before and after.

    python experiments/benchmarks/training_speed.py [--accuracy] [--out experiments/benchmarks/training_speed.md]
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, STEPS, BATCH, CORE = 3, 8, 64, 0
COURSE = ["model.blocks=2", "model.filters=64", "model.padding=valid", "model.dense_units=128", "model.dropout=0.0"]
STRIDED = ["model.blocks=2", "model.filters=32", "model.stride=2", "model.padding=same", "model.pooling=none"]
SAME = ["model.blocks=3", "model.filters=[32,64,96]", "model.padding=same", "model.dense_units=0"]
MOBILE = ["model=transfer", "model.backbone=MobileNet", "model.weights=none"]
HALF = [*MOBILE, "model.cut=conv_pw_6_relu", "model.dense_units=128", "model.pooling=average"]
FINE = [*MOBILE, "model.input_size=32", 'training.unfreeze="4 blocks"']
NETWORKS: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "course, plain": ((28, 28, 1), [*COURSE, "model.batch_norm=false"]),
    "course, normalised": ((28, 28, 1), [*COURSE, "model.batch_norm=true"]),
    "same 32-64-96, normalised": ((28, 28, 1), [*SAME, "model.batch_norm=true"]),
    "strided, colour, normalised": ((32, 32, 3), [*STRIDED, "model.batch_norm=true"]),
    "transfer head": ((4, 4, 512), HALF),
    "fine-tuned backbone (MobileNet, 4 blocks)": ((32, 32, 3), FINE),
}
HEAD = "cnnsweep.models.transfer.build_head"
CASES = ("plain", "before", "after")


def model_of(name: str, case: str, precision: str) -> tuple[Any, Any, float]:
    """A compiled model, its data, and the floating-point operations of a training step; 0 where not known."""
    import keras

    from cnnsweep.config.compose import compose
    from cnnsweep.data.arrays import Dataset
    from cnnsweep.models.fine_tuning import unfreeze
    from cnnsweep.search_space.problem import make_problem
    from cnnsweep.training.building import build_model, compile_model

    shape, overrides = NETWORKS[name]
    is_head = name == "transfer head"
    settings = [f"training.batch_size={BATCH}", f"training.precision={precision}", *overrides]
    config = compose(["space=none", f"training.deterministic={str(case != 'plain').lower()}", *settings])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (STEPS * BATCH, *shape), np.uint8)
    x = x / np.float32(255) if is_head else x
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    few = x[:BATCH], y[:BATCH]
    data = Dataset("random", x, y, *few, *few, tuple("0123456789"), "random", "0" * 16, 1.0 if is_head else 1 / 255)
    model = build_model(config, data, 1, HEAD if is_head else None, for_training=case == "after")
    if config.training.unfreeze != "none":
        unfreeze(model, config.training.unfreeze)
        compile_model(model, config.training, data, for_training=case == "after")
    if case == "plain":
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    network = None if "model=transfer" in overrides else make_problem(config, shape, 10).validate({}).network
    return model, data, 6e6 * network.mmacs * BATCH if network else 0.0


def child(case: str, precision: str) -> None:
    """Build the networks, then time an epoch of each that is asked for on stdin: seconds of the clock on stdout."""
    import keras  # noqa: F401
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    built: dict[str, Any] = {}
    for line in sys.stdin:
        name = line.strip()
        if name == "peak":
            print(json.dumps([peak("float32"), peak("bfloat16")]), flush=True)
            continue
        if name not in built:
            built[name] = model_of(name, case, precision)
            epoch(*built[name][:2], case)
        print(json.dumps([epoch(*built[name][:2], case), built[name][2]]), flush=True)


def epoch(model: Any, data: Any, case: str) -> float:
    from cnnsweep.training.train import batched

    given: dict[str, Any] = {"x": data.x_train, "y": data.y_train, "batch_size": BATCH}
    if case != "plain":
        order = np.random.default_rng(1).permutation(len(data.x_train))
        given = dict(batched(data.x_train, data.y_train, BATCH, order))
    began = time.perf_counter()
    model.fit(**given, shuffle=False, verbose=0)
    return time.perf_counter() - began


def peak(dtype: str, size: int = 1536) -> float:
    """GFLOP/s of a matrix product on the thread."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.uniform((size, size)), dtype)
    best = np.inf
    for _ in range(4):
        began = time.perf_counter()
        tf.reduce_max(tf.matmul(matrix, matrix)).numpy()
        best = min(best, time.perf_counter() - began)
    return float(2 * size**3 / best / 1e9)


def start_child(case: str, precision: str) -> subprocess.Popen[str]:
    from cnnsweep.training.keras_settings import environment

    settings = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    settings |= environment("tensorflow") if case == "after" else {}
    command = ["taskset", "-c", str(CORE), sys.executable, __file__, "--child", case, "--precision", precision]
    return subprocess.Popen(command, env=settings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)  # fmt: skip


def ask(process: subprocess.Popen[str], question: str) -> list[float]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return list(json.loads(process.stdout.readline()))


def steps(precision: str) -> Iterator[str]:
    """The table of training steps: milliseconds, and ratios of the same rounds."""
    children = {case: start_child(case, precision if case == "after" else "float32") for case in CASES}
    found: dict[tuple[str, str], list[float]] = {}
    work: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name in NETWORKS:
            for case, process in children.items():
                seconds, work[name] = ask(process, name)
                found.setdefault((name, case), []).append(1000 * seconds / STEPS)
    single, half = ask(children["after"], "peak")
    for process in children.values():
        process.kill()
    yield f"One core's peak: {single:.0f} GFLOP/s in float32, {half:.0f} in bfloat16 (a product of large matrices).\n"
    yield "| network | plain, ms | before, ms | after, ms | images/s | GFLOP/s | after / plain | after / before |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name in NETWORKS:
        plain, before, after = (np.array(found[name, case]) for case in CASES)
        rate = f"{work[name] / np.median(after) / 1e6:.0f}" if work[name] else ""
        times = " | ".join(f"{np.median(t):.1f}" for t in (plain, before, after))
        ratios = " | ".join(f"{np.median(after / other):.2f}" for other in (plain, before))
        yield f"| {name} | {times} | {BATCH * 1000 / np.median(after):.0f} | {rate} | {ratios} |"


def parts(folder: Path) -> Iterator[str]:
    """The table of a trial's parts: a worker's second to sixth trial of two epochs; and how its first one begins."""
    from cnnsweep.config.compose import compose
    from cnnsweep.data import loading
    from cnnsweep.executors.base import run_all
    from cnnsweep.executors.process import ProcessExecutor
    from cnnsweep.trial import TrialSpec

    head = ["build", "tracing", "checkpoints", "pictures and the rest", "together, ms", "first epoch after launch, s"]
    yield f"| short trials | {' | '.join(head)} |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    small = ["data=digits", "space=none", "training.batch_size=256", "model.pool_size=2", "model.kernel_size=3"]
    for name in ("course, plain", "course, normalised", "same 32-64-96, normalised"):
        config = compose([*small, *NETWORKS[name][1], "model.padding=same"])
        loading.save(loading.load(config.data, 0), data := folder / name)
        spec = TrialSpec(1, {}, config, 1, folder / f"{name} trial", data, 2)
        launched = time.time()
        executor = ProcessExecutor("cpu", workers=1, log=folder / "log.txt")
        try:
            ends = run_all(executor, [(jobs().timed, replace(spec, number=i)) for i in range(6)])
        finally:
            executor.close()
        first, *others = (end.value for end in ends)
        rows = 1000 * np.array([row[:-1] for row in others])
        cells = [*np.median(rows, axis=0), np.median(rows.sum(axis=1))]
        yield f"| {name} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {first[-1] - launched:.1f} |"


def jobs() -> Any:
    """This file as a module that worker processes can import."""
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, here)
    return importlib.import_module("training_speed")


def timed(spec: Any) -> Iterator[Any]:
    """A job: a trial of two epochs, the seconds of its parts, and when its first epoch ended."""
    from cnnsweep.training import checkpoint, train

    spent: dict[str, list[float]] = {"build_model": [], "run_epoch": [], "save": []}
    functions = [(train, "build_model"), (train, "run_epoch"), (checkpoint, "save")]
    kept = [(module, name, getattr(module, name)) for module, name in functions]
    ended: list[float] = []

    def watched(function: Any, times: list[float]) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **named)
            times.append(time.perf_counter() - began)
            ended.append(time.time())
            return result

        return call

    began = time.perf_counter()
    for module, name, function in kept:
        setattr(module, name, watched(function, spent[name]))
    try:
        yield from train.train(spec)
    finally:
        for module, name, function in kept:
            setattr(module, name, function)
    whole, (first, second) = time.perf_counter() - began, spent["run_epoch"]
    build, save = sum(spent["build_model"]), sum(spent["save"])
    return [build, first - second, save, whole - build - save - first - second, ended[1]]


def accuracies(folder: Path) -> Iterator[str]:
    """The final validation accuracy of configurations of +sweep=fashion before and after, on the same seeds."""
    from cnnsweep.config.compose import compose
    from cnnsweep.data import loading
    from cnnsweep.executors.base import run_all
    from cnnsweep.executors.process import ProcessExecutor
    from cnnsweep.search_space.problem import make_problem
    from cnnsweep.trial import TrialSpec

    config = compose(["+sweep=fashion", "data.limit=5000", "training.epochs=3"])
    dataset, data = loading.load(config.data, 0), folder / "fashion"
    loading.save(dataset, data)
    problem, rng = make_problem(config, dataset.input_shape, dataset.classes), np.random.default_rng(5)
    drawn = (problem.space.draw_evenly(rng) for _ in range(10_000))
    chosen = list(itertools.islice((v for v in drawn if problem.validate(v).fault is None), 20))
    specs = [
        TrialSpec(i, v, config.with_values(v), 100 * seed + i, folder / f"{seed}-{i}", data, 3)
        for i, v in enumerate(chosen)
        for seed in range(3)
    ]
    found = []
    for job, onednn in ((jobs().before_trial, "0"), (jobs().after_trial, "1")):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = onednn
        executor = ProcessExecutor("cpu", log=folder / "log.txt")
        found.append(100 * np.array([end.value for end in run_all(executor, [(job, spec) for spec in specs])]))
        executor.close()
    before, after = found
    spread = np.sqrt(np.mean(before.reshape(20, 3).var(axis=1, ddof=1)))
    error = 1.96 * (after - before).std(ddof=1) / np.sqrt(len(before))
    yield "Final validation accuracy of 20 configurations of +sweep=fashion, 3 seeds each, 3 epochs on 4,500 images:"
    yield f"after - before = {(after - before).mean():+.2f} ± {error:.2f} points (95%); the standard deviation of a"
    yield f"configuration over its seeds is {spread:.2f} points."


def before_trial(spec: Any) -> Iterator[Any]:
    from cnnsweep.training import train

    train.build_model = functools.partial(train.build_model, for_training=False)
    return (yield from after_trial(spec))


def after_trial(spec: Any) -> Iterator[Any]:
    """A job: a trial, and its last validation accuracy."""
    from cnnsweep.training.train import train

    last, steps = 0.0, train(spec)
    try:
        report = next(steps)
        while True:
            last = report.metrics["val_accuracy"]
            report = steps.send((yield report))
    except StopIteration:
        return last


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--precision", default="float32", help="of the trials after")
    parser.add_argument("--child", choices=CASES)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.precision)
        return
    command = "python experiments/benchmarks/training_speed.py" + " --accuracy" * arguments.accuracy
    lines = [
        "# The speed of a training step",
        "",
        f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}; `{command}`; "
        f"{time.strftime('%Y-%m-%d')}. Batches of {BATCH}, one thread on one core, {arguments.precision}; medians of "
        f"{ROUNDS} rounds of {STEPS} steps, ratios within the rounds.",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = [steps(arguments.precision), parts(folder), accuracies(folder) if arguments.accuracy else iter(())]
        for table in tables:
            for line in table:
                print(line, file=sys.stderr, flush=True)
                lines.append(line)
            lines.append("")
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The cost of a sweep beside the training itself: a plain Keras loop, cnnsweep, and KerasTuner with MLflow autolog.

The same ten configurations, everything in one run, one after another:

    a  a plain Keras loop, nothing logged
    b  cnnsweep on one worker with all the machine's threads, everything logged
    c  cnnsweep on all workers
    d  KerasTuner's grid search with mlflow.tensorflow.autolog, as people write it (needs `pip install tensorboard`)

once with trials of 5 s or more (two rounds, without d), once with trials of about 1.5 s, and once with normalised
networks (two rounds, without d), each in a process of its own; medians of the rounds are compared. The time that is
compared runs from the start of the first trial to the end of the last; that of the whole process, with its imports
and, for b and c, the final evaluation, the gallery, the report and the logged model, stands beside it. Last, 500
trials whose training does nothing: what the driver and the tracking cost, and what the journal takes for an epoch.

    python experiments/benchmarks/overhead.py [--out experiments/benchmarks/overhead.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FILTERS, RATES = [8, 16, 24, 32, 40], [0.001, 0.003]
EPOCHS, BATCH = 3, 64
IMAGES = {"long": 10500, "short": 900, "normalised": 4500}
ROUNDS = {"long": ("abc",) * 2, "short": ("abcd",), "normalised": ("abc",) * 2}


Times = dict[tuple[str, str], list[tuple[float, float]]]
"""By size and case: the seconds of its trials and of its whole process, round by round."""


def make_data(folder: Path, size: str) -> Path:
    """Random images of ten noisy patterns, 28×28."""
    images, rng = IMAGES[size], np.random.default_rng(0)
    patterns = rng.integers(0, 200, (10, 28, 28))
    arrays = {}
    for name, count in (("train", images * 10 // 9), ("test", 500)):
        labels = rng.permutation(np.arange(count) % 10)
        arrays[f"x_{name}"] = (patterns[labels] + rng.integers(0, 56, (count, 28, 28))).astype("uint8")
        arrays[f"y_{name}"] = labels.astype("int32")
    path = folder / f"{size}.npz"
    np.savez(path, **arrays)
    return path


def load(path: Path) -> tuple[np.ndarray, ...]:
    with np.load(path) as file:
        x, y = file["x_train"][..., None], file["y_train"]
    held_out = len(x) // 10
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]


def network(filters: int, rate: float, normalised: bool) -> Any:
    import keras
    from keras import layers

    blocks: list[Any] = []
    for _ in range(2):
        blocks.append(layers.Conv2D(filters, 3, padding="same", use_bias=not normalised))
        blocks += [layers.BatchNormalization()] * normalised
        blocks += [layers.Activation("relu"), layers.MaxPooling2D(2)]
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            *blocks,
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def plain_loop(path: Path, folder: Path) -> float:  # noqa: ARG001
    x, y, xv, yv = load(path)
    import keras  # noqa: F401

    began = time.perf_counter()
    for filters in FILTERS:
        for rate in RATES:
            model = network(filters, rate, "normalised" in path.name)
            model.fit(x, y, validation_data=(xv, yv), epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return time.perf_counter() - began


def with_autolog(path: Path, folder: Path) -> float:
    import keras_tuner
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("autolog")
    mlflow.tensorflow.autolog(log_datasets=False)
    x, y, xv, yv = load(path)

    def build(hp: Any) -> Any:
        return network(hp.Choice("filters", FILTERS), hp.Choice("learning_rate", RATES), normalised=False)

    tuner = keras_tuner.GridSearch(build, objective="val_accuracy", max_trials=10, directory=folder, project_name="kt")
    began = time.perf_counter()
    tuner.search(x, y, validation_data=(xv, yv), epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return time.perf_counter() - began


def with_cnnsweep(path: Path, folder: Path, workers: int) -> float:
    from cnnsweep.config.compose import compose
    from cnnsweep.journal import journal
    from cnnsweep.journal.events import TrialEnded, TrialStarted
    from cnnsweep.sweep import session

    overrides = [
        "data=npz", f"data.file={path}", "search=grid", "space=none", f"tracking.dir={folder / 'mlruns'}",
        f"space.model.filters.values={FILTERS}", f"space.training.learning_rate.values={RATES}",
        "executor=cpu", f"executor.workers={workers}", f"training.epochs={EPOCHS}", f"training.batch_size={BATCH}",
        "budget.trials=10", "model.blocks=2", f"model.batch_norm={str('normalised' in path.name).lower()}",
    ]  # fmt: skip
    outcome = session.start(compose(overrides), session.Watcher())
    events = journal.read(outcome.folder / "journal.jsonl")
    ends = [e for e in events if isinstance(e, TrialEnded)]
    assert [e.status for e in ends] == ["completed"] * 10
    return max(e.time for e in ends) - min(e.time for e in events if isinstance(e, TrialStarted))


def no_training(spec: Any) -> Any:
    """A trial that takes no time: one report, one result."""
    from cnnsweep.trial import EpochReport, TrialResult

    value = (spec.seed % 1000) / 1000
    metrics = {"loss": 1.0, "accuracy": value, "val_loss": 1.0, "val_accuracy": value}
    yield EpochReport(spec.number, 1, {**metrics, "epoch_seconds": 0.0, "learning_rate": 0.001})
    return TrialResult(spec.number, "completed", None, 1, {"trial_seconds": 0.0})


def driver_only(path: Path, folder: Path, trials: int = 500) -> list[float]:
    """Milliseconds a trial: of the loop, from the first trial's start to the last one's end; and with the wait for all
    of it to be in the store. Then milliseconds that the journal takes for an epoch."""
    from cnnsweep.config.compose import compose
    from cnnsweep.journal.events import EpochEnded, Event, SweepStopped, TrialEnded, TrialStarted
    from cnnsweep.journal.journal import Journal, read
    from cnnsweep.sweep import session

    overrides = [
        "data=npz", f"data.file={path}", "executor=inline", f"budget.trials={trials}",
        f"tracking.dir={folder / 'mlruns'}", "tracking.report=false", "tracking.gallery=0",
    ]  # fmt: skip
    outcome = session.start(compose(overrides), session.Watcher(), job=no_training)
    done = time.time()
    at: dict[type[Event], list[float]] = {}
    events = read(outcome.folder / "journal.jsonl")
    for event in events:
        at.setdefault(type(event), []).append(event.time)
    loop = at[TrialEnded][-1] - at[TrialStarted][0]
    written, epoch = Journal(folder / "journal.jsonl"), next(e for e in events if isinstance(e, EpochEnded))
    began = time.perf_counter()
    for _ in range(2000):
        written.append(epoch)
    journal = (time.perf_counter() - began) / 2000
    return [1000 * loop / trials, 1000 * (loop + done - at[SweepStopped][-1]) / trials, 1000 * journal]


CASES = {
    "a": plain_loop,
    "b": lambda path, folder: with_cnnsweep(path, folder, 1),
    "c": lambda path, folder: with_cnnsweep(path, folder, len(os.sched_getaffinity(0))),
    "d": with_autolog,
    "driver": driver_only,
}


def measure(case: str, path: Path) -> tuple[Any, float]:
    """Run a case in a process of its own; return its seconds and those of the whole process."""
    began = time.perf_counter()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, __file__, "--case", case, "--data", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"case {case} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - began


def report(rounds: Times, driver: list[float]) -> str:
    times = {key: np.median(found, axis=0) for key, found in rounds.items()}

    def ratio(size: str, over: str, under: str) -> str:
        each = sorted(o[0] / u[0] for o, u in zip(rounds[size, over], rounds[size, under], strict=True))
        between = ", ".join(f"{r:.2f}" for r in each)
        return f"{times[size, over][0] / times[size, under][0]:.2f} ({between} in the single rounds)"

    lines = [
        "# The cost of a sweep beside the training itself",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"`python experiments/benchmarks/overhead.py`; {time.strftime('%Y-%m-%d')}.",
        "",
        "| ten trials | what | long: trials, s | whole process, s | short: trials, s | whole process, s "
        "| normalised: trials, s | whole process, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = {
        "a": "plain Keras loop",
        "b": "cnnsweep, one worker",
        "c": "cnnsweep, all workers",
        "d": "KerasTuner, autolog",
    }
    for case, name in names.items():
        cells = [f"{value:.1f}" for size in IMAGES for value in times.get((size, case), (np.nan, np.nan))]
        lines.append(f"| {case} | {name} | {' | '.join(cells).replace('nan', '')} |")
    lines += [
        "",
        f"- a long trial takes {times['long', 'a'][0] / 10:.1f} s in the plain loop, "
        f"a short one {times['short', 'a'][0] / 10:.1f} s",
        f"- b / a, long: {ratio('long', 'b', 'a')} (bar: at most 1.10)",
        f"- c / a, long: {ratio('long', 'c', 'a')} (bar: at most 0.75 on 2 cores)",
        f"- d / b, short: {ratio('short', 'd', 'b')} (bar: at least 5)",
        f"- b / a, short: {ratio('short', 'b', 'a')}; c / a, short: {ratio('short', 'c', 'a')}",
        f"- b / a, normalised: {ratio('normalised', 'b', 'a')}; c / a, normalised: {ratio('normalised', 'c', 'a')}",
        f"- driver, 500 trials without training: {driver[0]:.1f} ms a trial (bar: at most 25); {driver[1]:.1f} ms with "
        "the wait for MLflow to have everything",
        f"- journal: {driver[2]:.3f} ms an epoch (bar: at most 2)",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.case:
            print(json.dumps(CASES[arguments.case](arguments.data, Path(folder))))
            return
        times: Times = {}
        for size in ROUNDS:
            path = make_data(Path(folder), size)
            for case in "".join(ROUNDS[size]):
                times.setdefault((size, case), []).append(measure(case, path))
                print(size, case, *(f"{t:.1f}" for t in times[size, case][-1]), file=sys.stderr)
        text = report(times, measure("driver", path)[0])
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

"""Seconds from a cold start to a validation accuracy: this project and its peers, on the same data, space and cores.

20,000 images of Fashion-MNIST for training and 10,000 for validation, the space of +sweep=fashion, 9 passes at most, a
worker of one thread for each core. The peers are used as their users use them, with plain Keras (float32, a constant
learning rate), the others as the preset trains:

    cnnsweep      +sweep=fashion, with the networks that it begins with
    KerasTuner    Hyperband, a chief and workers
    Optuna        TPE with the Hyperband pruner, processes that share a journal
    Ray Tune      ASHA

The space's limits and geometry serve all: a network that cannot be built, or is beyond the limits, costs a peer
milliseconds. The clock starts with the command and so counts imports. What is compared is the best validation accuracy
of any epoch so far. Each run is killed at its end. Runs are kept in FOLDER, and the command goes on with what is there.

    CNNSWEEP_DATA_DIR=DIR python experiments/benchmarks/time_to_accuracy.py FOLDER [CONTENDER ...] [--seeds 5]

needs `pip install 'cnnsweep[ray]' fsspec tensorboard`. It prints the table; with all contenders, the default, it also
writes time_to_accuracy.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "search_quality")]

EPOCHS = 9
LEVELS = (0.88, 0.89, 0.895)
MOMENTS = (90, 180, 300)
SETTINGS = ("+sweep=fashion", "data.limit=30000", "data.validation=0.33334")
OURS = ("training.epoch_size=5000", f"training.epochs={4 * EPOCHS}")
"""As in the preset: four epochs in each pass over the images."""
THEIRS = ("training.epoch_size=null", f"training.epochs={EPOCHS}", "search.start_with=[]")
CORES = len(os.sched_getaffinity(0))
PORT = 8471


class Training:
    """The data and the space, and one network of it trained with plain Keras."""

    def __init__(self, folder: Path, seed: int) -> None:
        import tensorflow as tf

        from cnnsweep.config.compose import compose
        from cnnsweep.data import loading
        from cnnsweep.search_space.problem import make_problem

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        config = compose([*SETTINGS, *THEIRS, f"seed={seed}", "training.deterministic=false", "search=random"])
        self.data = loading.load(config.data, config.seed)
        self.problem = make_problem(config, self.data.input_shape, self.data.classes)
        self.seed, self._log = seed, folder / "epochs.jsonl"

    def valid(self, values: Mapping[str, Any]) -> bool:
        return self.problem.validate(values).fault is None

    def network(self, values: Mapping[str, Any]) -> Any:
        """A compiled network of Keras' own layers, with Keras' optimizer."""
        from cnnsweep.training.building import build_model

        config = self.problem.config.with_values(values)
        return build_model(config, self.data, self.seed, for_training=False)

    def fit(self, values: Mapping[str, Any], report: Callable[[int, float], None]) -> None:
        import keras

        keras.backend.clear_session()
        each = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: report(epoch + 1, self.noted(logs)))
        batch = self.problem.config.with_values(values).training.batch_size
        self.network(values).fit(**self.arrays(), epochs=EPOCHS, batch_size=batch, callbacks=[each], verbose=0)

    def arrays(self) -> dict[str, Any]:
        data = self.data
        return {"x": data.x_train, "y": data.y_train, "validation_data": (data.x_val, data.y_val)}

    def noted(self, logs: Mapping[str, float]) -> float:
        value = float(logs["val_accuracy"])
        with self._log.open("a") as file:
            file.write(json.dumps([time.time(), value]) + "\n")
        return value


def cnnsweep(folder: Path, seed: int, seconds: float) -> None:
    from cnnsweep.__main__ import main as command

    tracking = f"tracking.dir={folder / 'mlruns'}"
    sys.argv = ["cnnsweep", *SETTINGS, *OURS, f"seed={seed}", f"budget.minutes={seconds / 60}", tracking]
    command()


def keras_tuner(folder: Path, seed: int, seconds: float) -> None:
    """A chief, which holds the oracle, and a worker for each core."""
    workers = [_child("keras_tuner_worker", folder, seed, seconds, tuner=f"tuner{i}") for i in range(CORES)]
    _child("keras_tuner_worker", folder, seed, seconds, tuner="chief").wait()
    for worker in workers:
        worker.wait()


def keras_tuner_worker(folder: Path, seed: int, seconds: float) -> None:  # noqa: ARG001
    import keras
    import keras_tuner as kt
    from contenders import declare

    training = Training(folder, seed)

    class Networks(kt.HyperModel):
        def values(self, hp: Any) -> dict[str, Any]:
            active = training.problem.space.active(hp.values)
            found = {p: hp.values[p.name] for p in active}  # among its choices KerasTuner makes 0 of False
            return {p.name: v if p.grid is None else p.grid[p.grid.index(v)] for p, v in found.items()}

        def build(self, hp: Any) -> Any:
            if not training.valid(values := self.values(hp)):
                raise kt.errors.FailedTrialError("it cannot be built, or is beyond the limits")
            return training.network(values)

        def fit(self, hp: Any, model: Any, *args: Any, **settings: Any) -> Any:
            noting = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: training.noted(logs))
            settings["callbacks"] = [*settings.get("callbacks", []), noting]
            batch = training.problem.config.with_values(self.values(hp)).training.batch_size
            return model.fit(*args, batch_size=batch, **settings)

    tuner = kt.Hyperband(
        Networks(), objective="val_accuracy", max_epochs=EPOCHS, factor=3, hyperband_iterations=100, seed=seed + 1,
        hyperparameters=declare(training.problem.space), tune_new_entries=False, directory=folder,
        project_name="keras_tuner", max_consecutive_failed_trials=10**6,
    )  # fmt: skip
    tuner.search(**training.arrays(), verbose=0)


def optuna(folder: Path, seed: int, seconds: float) -> None:
    for worker in [_child("optuna_worker", folder, seed, seconds, worker=str(i)) for i in range(CORES)]:
        worker.wait()


def optuna_worker(folder: Path, seed: int, seconds: float) -> None:
    import optuna as library
    from contenders import suggest
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    training, number = Training(folder, seed), int(os.environ["WORKER"])
    study = library.create_study(
        study_name=f"seed {seed}", direction="maximize", load_if_exists=True,
        storage=JournalStorage(JournalFileBackend(str(folder / "optuna.log"))),
        sampler=library.samplers.TPESampler(seed=seed * CORES + number),
        pruner=library.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3),
    )  # fmt: skip

    def objective(trial: Any) -> float:
        values: dict[str, Any] = {}
        for p in training.problem.space.parameters:
            if all(values.get(name) in allowed for name, allowed in p.when):
                values[p.name] = suggest(trial, p)
        if not training.valid(values):
            raise library.TrialPruned
        best = [0.0]

        def report(epoch: int, value: float) -> None:
            best[0] = max(best[0], value)
            trial.report(value, epoch)
            if epoch < EPOCHS and trial.should_prune():
                raise library.TrialPruned

        training.fit(values, report)
        return best[0]

    study.optimize(objective, timeout=seconds)


def ray_tune(folder: Path, seed: int, seconds: float) -> None:
    import numpy as np
    import ray
    from ray import tune

    from cnnsweep.search.observations import Untried

    training, rng = Training(folder, seed), np.random.default_rng(seed)
    untried = Untried(training.problem)

    def train(config: dict[str, Any]) -> None:
        mine = Training(folder, seed)
        mine.fit(config["values"], lambda _, value: tune.report({"val_accuracy": value}))

    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    scheduler = tune.schedulers.ASHAScheduler(max_t=EPOCHS, grace_period=1)
    limits = {"num_samples": -1, "time_budget_s": seconds}
    chosen = tune.TuneConfig(metric="val_accuracy", mode="max", scheduler=scheduler, **limits)
    space = {"values": tune.sample_from(lambda _: untried.draw(rng))}
    tune.Tuner(train, param_space=space, tune_config=chosen, run_config=tune.RunConfig(storage_path=str(folder))).fit()


RUNS: dict[str, Callable[[Path, int, float], None]] = {
    "cnnsweep": cnnsweep,
    "KerasTuner": keras_tuner,
    "Optuna": optuna,
    "Ray Tune": ray_tune,
}
WORKERS = {"keras_tuner_worker": keras_tuner_worker, "optuna_worker": optuna_worker}


def _child(
    name: str, folder: Path, seed: int, seconds: float, tuner: str = "", worker: str = ""
) -> subprocess.Popen[bytes]:
    """A worker of a contender's, in its process group."""
    environment = {**os.environ, "WORKER": worker}
    if tuner:
        address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(PORT)}
        environment |= {"KERASTUNER_TUNER_ID": tuner, **address}
    return subprocess.Popen(_command(name, folder, seed, seconds), env=environment)


def _command(name: str, folder: Path, seed: int, seconds: float) -> list[str]:
    given = ["--run", name, "--seeds", str(seed), "--seconds", str(seconds)]
    return [sys.executable, __file__, str(folder), *given]


def measure(name: str, seed: int, seconds: float, folder: Path) -> list[tuple[float, float]]:
    """Run one contender; return the best accuracy so far as steps of (seconds, accuracy)."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {} if name == "cnnsweep" else {"OMP_NUM_THREADS": "1"}
    began = time.time()
    with (folder / "output.txt").open("w") as output:
        command = _command(name, seed=seed, seconds=seconds, folder=folder)
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            if process.wait(seconds):
                raise SystemExit(f"{name} failed: {folder / 'output.txt'}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT if name == "Ray Tune" else signal.SIGTERM)
            time.sleep(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    noted = [json.loads(line) for line in _lines(folder / "epochs.jsonl")]
    for journal in folder.glob("mlruns/sweeps/*/journal.jsonl"):
        events = [json.loads(line) for line in _lines(journal)]
        noted += [[e["time"], e["metrics"]["val_accuracy"]] for e in events if e["event"] == "epoch"]
    steps: list[tuple[float, float]] = []
    for moment, value in sorted(noted):
        if moment - began <= seconds and value > max((v for _, v in steps), default=0.0):
            steps.append((round(moment - began, 1), round(value, 4)))
    return steps


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def best_at(steps: list[tuple[float, float]], moment: float) -> float:
    return max((value for seconds, value in steps if seconds <= moment), default=0.0)


def first_at(steps: list[tuple[float, float]], level: float) -> float | None:
    return next((seconds for seconds, value in steps if value >= level), None)


def report(runs: Mapping[str, Mapping[str, list[tuple[float, float]]]], seconds: float) -> str:
    lines = [
        f"{CORES} cores ({platform.processor() or platform.machine()}), Python {platform.python_version()},",
        f"{max(map(len, runs.values()))} seeds, {seconds:.0f} s each: `experiments/benchmarks/time_to_accuracy.py`.",
        "Medians; in brackets least and most. A level that was not reached in a run counts as later than its end.",
        "",
        "| | "
        + " | ".join(f"s to {level}" for level in LEVELS)
        + " | "
        + " | ".join(f"best at {m} s" for m in MOMENTS)
        + " |",
        "| --- " * (1 + len(LEVELS) + len(MOMENTS)) + "|",
    ]
    for name, seeds in runs.items():
        cells = [_seconds([first_at(steps, level) for steps in seeds.values()]) for level in LEVELS]
        for moment in MOMENTS:
            found = [best_at(steps, moment) for steps in seeds.values()]
            cells.append(f"{statistics.median(found):.4f} [{min(found):.4f}, {max(found):.4f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    peers = {name: seeds for name, seeds in runs.items() if name != "cnnsweep"}
    if peers:
        level = max(statistics.median(best_at(s, seconds) for s in seeds.values()) for seeds in peers.values())
        lines += ["", f"The best peer's median at {seconds:.0f} s is {level:.4f}. Seconds to it:"]
        lines += [f"- {name}: {_seconds([first_at(s, level) for s in seeds.values()])}" for name, seeds in runs.items()]
    return "\n".join(lines) + "\n"


def _seconds(found: list[float | None]) -> str:
    values = sorted(float("inf") if value is None else value for value in found)

    def shown(value: float) -> str:
        return "never" if value == float("inf") else f"{value:.0f}"

    return f"{shown(values[len(values) // 2])} [{shown(values[0])}, {shown(values[-1])}]"


def plot(runs: Mapping[str, Mapping[str, list[tuple[float, float]]]], seconds: float, path: Path) -> None:
    """The median over the seeds of the best accuracy so far."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    axes, moments = figure.subplots(), np.arange(0, seconds + 1)
    for name, seeds in runs.items():
        middle = [statistics.median(best_at(steps, moment) for steps in seeds.values()) for moment in moments]
        axes.step(moments, np.where(np.array(middle) > 0, middle, np.nan), where="post", label=name)
    axes.set_ylim(0.84, None)
    axes.set_xlabel("seconds from the command")
    axes.set_title("best validation accuracy so far, Fashion-MNIST (20,000 images), median of the seeds", loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("contenders", nargs="*", help=f"of {', '.join(RUNS)}; all without any")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    if unknown := {*options.contenders} - {*RUNS}:
        parser.error(f"{', '.join(sorted(unknown))}: a contender is one of {', '.join(RUNS)}")
    if options.run:
        {**RUNS, **WORKERS}[options.run](options.folder, options.seeds, options.seconds)
        return
    kept = options.folder / "runs.json"
    runs = json.loads(kept.read_text()) if kept.exists() else {}
    for seed in range(options.seeds):
        for name in options.contenders or RUNS:
            if str(seed) in runs.setdefault(name, {}):
                continue
            print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}", flush=True)
            folder = options.folder.absolute() / name.replace(" ", "-") / str(seed)
            runs[name][str(seed)] = measure(name, seed, options.seconds, folder)
            kept.write_text(json.dumps(runs))
            print(runs[name][str(seed)][-1:], flush=True)
    print(report(runs, options.seconds))
    if not options.contenders:
        plot(runs, options.seconds, HERE / "time_to_accuracy.png")


if __name__ == "__main__":
    main()

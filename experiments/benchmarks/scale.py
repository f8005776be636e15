"""What a trial costs the driver where there are many: 100, 1,000 and 10,000 trials whose training does nothing.

Each size runs in a process of its own, through the real loop: random search over the whole `cnn` space, the journal,
the MLflow store (SQLite, tracking as it is by default). A trial reports five epochs and ends. Measured are trials a
second, the driver's processor time a trial and what of it goes where, memory, and bytes on disk. The bar: a trial at
10,000 costs at most 1.2 times what it costs at 1,000. After the largest inline sweep it is listed, reported on and
resumed with one trial more. `pretended` is a sweep on 1,000 workers that no machine has, whose trials do nothing for
a minute each. Ray Tune runs the same no-op trials beside it, with as many at once as there are cores, alone and with
its own callback for MLflow (params and metrics, no files).

    python experiments/benchmarks/scale.py [--sizes 100 1000 10000] [--only CASE] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import heapq
import importlib
import itertools
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 5
PICTURE = 16_000
"""Bytes of the learning curves that a worker draws."""
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
FOLLOWERS = ("checkpoints",)
BAR = 1.2
Figures = dict[str, Any]


def no_training(spec: Any) -> Any:
    """A trial that takes no time: five reports, one result, and the picture that a worker leaves for MLflow."""
    from cnnsweep.trial import EpochReport, TrialResult

    for epoch in range(1, EPOCHS + 1):
        value = (spec.seed % 1000) / 2000 + epoch / 20
        yield EpochReport(spec.number, epoch, {**dict.fromkeys(METRICS, value), "epoch_seconds": 0.001})
    artifacts = spec.folder / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "curves.png").write_bytes(bytes(PICTURE))
    (artifacts / "model.txt").write_text("no network\n")
    return TrialResult(spec.number, "completed", None, EPOCHS, {"trial_seconds": 0.005})


class Pretended:
    """An executor of many workers that no machine has: each report and end comes when its time is up."""

    def __init__(self, workers: int, seconds: float, **_: Any) -> None:
        self.workers = tuple(f"gpu{number}" for number in range(workers))
        self.lateness: list[float] = []
        """Seconds by which an event had to wait for the driver."""
        self._seconds, self._rng = seconds, np.random.default_rng(0)
        self._due: list[tuple[float, int, str, Any, float]] = []
        self._count = itertools.count()

    def submit(self, worker: str, job: Any, argument: Any) -> None:
        self._push(time.monotonic(), worker, job(argument), self._seconds * self._rng.uniform(0.5, 1.5) / EPOCHS)

    def wait(self, timeout: float | None = None) -> Any:
        from cnnsweep.executors.base import Event

        now = time.monotonic()
        if not self._due or self._due[0][0] > now + (timeout or 0):
            time.sleep(timeout or 0)
            return None
        due, _, worker, steps, epoch = heapq.heappop(self._due)
        time.sleep(max(0.0, due - now))
        self.lateness.append(time.monotonic() - due)
        try:
            report = next(steps)
        except StopIteration as end:
            return Event(worker, "result", end.value)
        except Exception as error:  # the final evaluation finds no checkpoint
            return Event(worker, "lost", str(error))
        return Event(worker, "report", report, lambda _: self._push(due, worker, steps, epoch))

    def kill(self, worker: str, reason: str) -> None:
        """Nothing hangs here."""

    def close(self) -> None:
        """Nothing is open."""

    def _push(self, since: float, worker: str, steps: Any, epoch: float) -> None:
        heapq.heappush(self._due, (since + epoch, next(self._count), worker, steps, epoch))


def meter(trials: int) -> Any:
    """A watcher that reads the clocks at the first trial's start, at the last one's end, and when MLflow has all."""
    from cnnsweep.journal.events import Event, TrialEnded, TrialStarted
    from cnnsweep.journal.journal import Journal
    from cnnsweep.search.oracle import Oracle
    from cnnsweep.sweep.finish import Cleanup
    from cnnsweep.sweep.session import Watcher

    spent: dict[str, float] = {}
    for what, owner, names in (
        ("journal", Journal, ("append",)),
        ("search", Oracle, ("ask", "report", "end")),
        ("checkpoints", Cleanup, ("log",)),
    ):
        for name in names:
            setattr(owner, name, _timed(getattr(owner, name), what, spent))

    class Meter(Watcher):
        def __init__(self) -> None:
            self.marks: list[dict[str, float]] = []
            self.tenths: list[float] = []
            self.waiting = 0
            self._ended = 0

        def watch(self, sweep: Any, trouble: Any) -> contextlib.AbstractContextManager[Any]:  # noqa: ARG002
            self._tracker = sweep.listeners[0]
            self.executor = sweep.executor._executor
            return contextlib.nullcontext()

        def log(self, event: Event) -> None:
            if isinstance(event, TrialStarted) and not self.marks:
                self._mark()
                self.tenths.append(time.thread_time())
            if isinstance(event, TrialEnded):
                self._ended += 1
                if self._ended % max(1, trials // 10) == 0:
                    self.tenths.append(time.thread_time())
                if self._ended == trials:
                    self._mark()
                    self.waiting = self._tracker.flush(24 * 3600)
                    self._mark()

        def _mark(self) -> None:
            mlflow = next(t for t in threading.enumerate() if t.name == "mlflow")
            clock = time.pthread_getcpuclockid(mlflow.ident)  # type: ignore[arg-type]
            self.marks.append(
                {
                    "wall": time.perf_counter(),
                    "process": time.process_time(),
                    "loop": time.thread_time(),
                    "MLflow": time.clock_gettime(clock),
                    "rss": _rss(),
                    **{what: spent.get(what, 0.0) for what in ("journal", "search", *FOLLOWERS)},
                }
            )

    return Meter()


def _timed(function: Callable[..., Any], what: str, spent: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[what] = spent.get(what, 0.0) + time.thread_time() - began

    return timed


def cnnsweep(trials: int, folder: Path, *overrides: str) -> Figures:
    from cnnsweep.config.compose import compose
    from cnnsweep.sweep import session

    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 255, (100, 28, 28)).astype("uint8") for part in ("train", "test")}
    data = folder / "images.npz"
    np.savez(data, **arrays, y_train=np.arange(100) % 10, y_test=np.arange(100) % 10)
    config = compose(
        [
            "data=npz", f"data.file={data}", "search=random", f"budget.trials={trials}", f"training.epochs={EPOCHS}",
            f"tracking.dir={folder / 'mlruns'}", "tracking.report=false", "tracking.gallery=0", *overrides,
        ]
    )  # fmt: skip
    watcher = meter(trials)
    outcome = session.start(config, watcher, job=_job())
    first, end, sent = watcher.marks
    each = {key: 1000 * (sent[key] - first[key]) / trials for key in sent if key not in ("wall", "rss")}
    assert len(outcome.state.with_status("completed")) == trials, outcome.state.stop
    assert watcher.waiting == 0, f"{watcher.waiting} events did not reach MLflow"
    followers = sum(each[name] for name in FOLLOWERS)
    tenths = 10_000 * np.diff(watcher.tenths) / trials
    artifacts = [path.stat().st_size for path in (folder / "mlruns" / "artifacts").rglob("*") if path.is_file()]
    return {
        "trials": trials,
        "loop": (end["wall"] - first["wall"]) / trials,
        "whole": (sent["wall"] - first["wall"]) / trials,
        "cpu": each["process"],
        "process busy": (sent["process"] - first["process"]) / (sent["wall"] - first["wall"]),
        "behind": sent["wall"] - end["wall"],
        "parts": {
            "loop": each["loop"] - each["journal"] - each["search"] - followers,
            "journal": each["journal"],
            "search": each["search"],
            "followers": followers,
            "MLflow": each["MLflow"],
            "other threads": each["process"] - each["loop"] - each["MLflow"],
        },
        "tenths": [tenths[0], tenths[-1]] if trials >= 10 else [],
        "lateness": np.quantile(getattr(watcher.executor, "lateness", None) or [0.0], [0.5, 0.99]).tolist(),
        "rss": [first["rss"], _peak()],
        "journal": (outcome.folder / "journal.jsonl").stat().st_size / trials,
        "store": (folder / "mlruns" / "mlflow.db").stat().st_size / trials,
        "artifacts": sum(artifacts) / trials,
    }


def _rss() -> float:
    """Megabytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def with_tune(trials: int, folder: Path, tracked: bool = False) -> Figures:
    """Ray Tune's random search over no-op trials, as many at once as there are cores, its actors used again.

    `tracked` logs their params and metrics to MLflow by Tune's own callback, no files.
    """
    import logging

    import ray
    from ray import tune

    marks: list[dict[str, float]] = []

    class Clock(tune.Callback):
        def on_trial_start(self, **_: Any) -> None:
            if not marks:
                marks.append({"wall": time.perf_counter(), "process": time.process_time(), "rss": _rss()})

    def trainable(config: dict[str, Any]) -> None:
        for epoch in range(1, EPOCHS + 1):
            tune.report({**dict.fromkeys(METRICS, config["learning_rate"] + epoch), "epoch_seconds": 0.001})

    callbacks: list[Any] = [Clock()]
    if tracked:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks.append(MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="tune"))
    space = {"learning_rate": tune.loguniform(1e-4, 1e-2), "filters": tune.choice([16, 32, 64, 96])}
    settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=CORES, object_store_memory=100 * 2**20, **settings)
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=CORES, reuse_actors=True),
        run_config=tune.RunConfig("scale", str(folder), verbose=0, callbacks=callbacks),
    )
    found = tuner.fit()
    wall, spent = time.perf_counter() - marks[0]["wall"], time.process_time() - marks[0]["process"]
    assert not found.errors
    assert len(found) == trials
    ray.shutdown()
    files = [path.stat().st_size for path in (folder / "scale").rglob("*") if path.is_file()]
    return {
        "trials": trials,
        "loop": wall / trials,
        "whole": wall / trials,
        "cpu": 1000 * spent / trials,
        "rss": [marks[0]["rss"], _peak()],
        "files": sum(files) / trials,
    }


def afterwards(trials: int, folder: Path) -> Figures:
    """Seconds until the sweep that lies in `folder` is listed, reported on, and resumed to its next trial."""
    found: Figures = {}
    for command in ("list", "report"):
        began = time.perf_counter()
        parts = [sys.executable, "-m", "cnnsweep", command, f"tracking.dir={folder / 'mlruns'}"]
        subprocess.run(parts, check=True, capture_output=True)
        found[command] = time.perf_counter() - began
    from cnnsweep.journal.events import Event, SweepResumed, TrialStarted
    from cnnsweep.sweep import resume, session

    class Clock(session.Watcher):
        def log(self, event: Event) -> None:
            if isinstance(event, (SweepResumed, TrialStarted)):
                found.setdefault(event.name, time.perf_counter() - began)

    began = time.perf_counter()
    overrides = [f"tracking.dir={folder / 'mlruns'}", f"budget.trials={trials + 1}"]
    session.conduct = functools.partial(session.conduct, job=_job())
    outcome = resume.resume([], overrides, Clock())
    assert outcome is not None
    assert len(outcome.state.trials) == trials + 1
    return {**found, "rss": _peak()}


def _job() -> Any:
    """`no_training` as workers can import it."""
    return importlib.import_module(Path(__file__).stem).no_training


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


CORES = len(os.sched_getaffinity(0))
SLOTS_PER_CORE = 8
RAY = ("executor=ray", f"executor.num_cpus={1 / SLOTS_PER_CORE}")
SLOTS, SECONDS = 1000, 60.0
PRETENDED = ("executor=inline", "executor._target_=scale.Pretended", f"++executor.workers={SLOTS}",
             f"++executor.seconds={SECONDS}")  # fmt: skip
CASES: dict[str, Callable[[int, Path], Figures]] = {
    "inline": lambda trials, folder: cnnsweep(trials, folder, "executor=inline"),
    "ray": lambda trials, folder: cnnsweep(trials, folder, *RAY),
    "pretended": lambda trials, folder: cnnsweep(trials, folder, *PRETENDED),
    "tune": with_tune,
    "tune-mlflow": functools.partial(with_tune, tracked=True),
    "afterwards": afterwards,
}


def measure(case: str, trials: int, folder: Path) -> Figures:
    """Run a case in a process of its own and return what it measured."""
    paths = os.pathsep.join((os.getcwd(), str(Path(__file__).parent)))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, __file__, "--case", case, "--sizes", str(trials), "--folder", str(folder)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} with {trials} trials failed:\n{done.stderr[-3000:]}")
    figures = json.loads(done.stdout.splitlines()[-1])
    words = ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, float))
    print(f"{case} {trials}: {words} ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    return figures


def run(wanted: Sequence[str], sizes: Sequence[int], so_far: Callable[[Mapping[str, Any]], object]) -> dict[str, Any]:
    """Measure case after case, size after size; what the largest inline sweep leaves is looked at too."""
    found: dict[str, Any] = {case: [] for case in wanted}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        for case in wanted:
            some = {"pretended": [3 * SLOTS], "tune-mlflow": [size for size in sizes if size <= 1000]}
            for trials in some.get(case, sizes):
                folder = Path(root, f"{case}-{trials}")
                folder.mkdir()
                found[case].append(measure(case, trials, folder))
                if case == "inline" and trials == max(sizes):
                    found["afterwards"] = measure("afterwards", trials, folder)
                so_far(found)
                shutil.rmtree(folder, ignore_errors=True)
    return found


def table(found: Mapping[str, Any]) -> str:
    lines = [
        "| where | trials | trials a second | with the wait for MLflow | driver, ms a trial | loop | journal | "
        "search | checkpoints | MLflow | other threads | MB at first, at most | kB a trial: journal | "
        "store | artifacts |",
        "| --- |" + " ---: |" * 14,
    ]
    for case in NAMES:
        for each in found.get(case, ()):
            parts = [f"{value:.2f}" for value in each.get("parts", {}).values()] or [""] * 6
            sizes = [f"{each[k] / 1000:.1f}" if k in each else "" for k in ("journal", "store", "artifacts")]
            if "files" in each:
                sizes = ["", "", f"{each['files'] / 1000:.1f}"]
            cells = [f"{1 / each['loop']:.1f}", f"{1 / each['whole']:.1f}", f"{each['cpu']:.1f}", *parts]
            memory = "{:.0f}, {:.0f}".format(*each["rss"])
            lines.append(f"| {NAMES[case]} | {each['trials']:,} | {' | '.join([*cells, memory, *sizes])} |")
    return "\n".join(lines)


NAMES = {
    "inline": "inline",
    "ray": f"Ray, {SLOTS_PER_CORE * CORES} workers",
    "pretended": f"{SLOTS:,} pretended workers",
    "tune": "Ray Tune itself",
    "tune-mlflow": "Ray Tune with its MLflow callback",
}


def growth(found: Mapping[str, Any]) -> list[str]:
    """How much more a trial costs at the largest size than at 1,000, or the smallest."""
    lines = []
    for case in ("inline", "ray", "tune"):
        each = {figures["trials"]: figures for figures in found.get(case, ())}
        if len(each) > 1:
            less, more = each.get(1000, each[min(each)]), each[max(each)]
            line = f"- {NAMES[case]}, {more['trials']:,} against {less['trials']:,} trials: driver "
            line += f"**{more['cpu'] / less['cpu']:.2f}** times the time a trial"
            if case != "tune":
                words = ", ".join(f"{name} {more['parts'][name] / value:.2f}" for name, value in less["parts"].items()
                                 if name != "other threads")  # fmt: skip
                line += (
                    f" (bar: at most {BAR}); {words}. Within the largest sweep the loop's thread took "
                    f"{more['tenths'][0]:.2f} ms a trial in its first tenth and {more['tenths'][1]:.2f} ms in its last"
                )
            lines.append(line)
    for each in found.get("pretended", ()):
        busy = each["process busy"]
        lateness = " and ".join(f"{1000 * seconds:.0f}" for seconds in each["lateness"])
        lines.append(
            f"- {SLOTS:,} pretended workers, trials of {SECONDS:.0f} s on average: the driver was busy for "
            f"{100 * busy:.0f}% of a core; an event waited for it {lateness} ms (median, 99th percentile); at the "
            f"end of the last trial MLflow was {each['behind']:.1f} s behind"
        )
    if after := found.get("afterwards"):
        lines.append(
            "- then, the largest sweep inline: `list` {list:.1f} s, `report` {report:.1f} s, `resume` {resume:.1f} "
            "s until its line in the journal (and {trial:.1f} s until the next trial), {rss:.0f} MB at most".format(
                **after
            )
        )
    return lines


def report(found: Mapping[str, Any]) -> str:
    head = (
        f"{CORES} cores, {platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[1]:.1f} at "
        f"the end; `python {' '.join(sys.argv)}`; {time.strftime('%Y-%m-%d')}."
    )
    return "\n".join(
        ["# What a trial costs the driver where there are many", "", head, "", table(found), "", *growth(found)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(CASES[arguments.case](arguments.sizes[0], arguments.folder)))
        return
    wanted = (arguments.only,) if arguments.only else tuple(NAMES)

    def write(found: Mapping[str, Any]) -> None:
        if arguments.out:
            arguments.out.write_text(report(found) + "\n")

    print(report(run(wanted, arguments.sizes, write)))


if __name__ == "__main__":
    main()

"""A few seconds of real training on every worker at once, from which the prices of a forecast are fitted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.executors.base import Executor
from cnnsweep.search_space.problem import Problem, trial_seed
from cnnsweep.search_space.space import Values, apply
from cnnsweep.training.cost_model import Forecaster, amounts_of
from cnnsweep.training.train import build_model, run_epoch
from cnnsweep.trial import TrialSpec

COUNT = 8
SECONDS = 0.5
"""How long a measured epoch should take: long enough to tell, short enough to wait for."""


@dataclass(frozen=True)
class Sample:
    """A configuration to measure, and on how many images."""

    spec: TrialSpec
    images: tuple[int, int]


def job(sample: Sample) -> Generator[Any, bool, dict[str, Any]]:
    """Train two short epochs; an executor's job. Returns their seconds, by the clock and of the CPU, and bytes held."""
    data = _part(open_saved(sample.spec.data), *sample.images)
    model = build_model(sample.spec.config, data, sample.spec.seed, sample.spec.builder)
    seconds, busy = [], []
    for epoch in (1, 2):
        before = time.process_time()
        seconds.append(run_epoch(model, data, sample.spec, epoch)["epoch_seconds"])
        busy.append(time.process_time() - before)
    return {"epochs": seconds, "cpu": busy, "memory": _memory()}
    yield  # a job is a generator; this one has nothing to report on the way


@dataclass
class Calibration:
    """What was measured."""

    forecaster: Forecaster
    ready: float = 0.0
    """Seconds until the workers took their first job."""
    memory: float = 0.0
    """Bytes that the largest worker held."""
    seconds: float = 0.0
    configurations: int = 0


def calibrate(
    problem: Problem, executor: Executor, data: Path, count: int = COUNT, builder: str | None = None
) -> Calibration:
    """Measure `count` configurations spread over the space's costs, all workers busy, on the data saved in `data`.

    `builder` is that of a `TrialSpec`.
    """
    began = time.monotonic()
    result = Calibration(Forecaster())
    for worker in executor.workers:
        executor.submit(worker, _nothing, None)
    for _ in executor.workers:
        executor.wait()
    result.ready = time.monotonic() - began
    chosen = spread(problem, count)
    while 0 < len(chosen) < len(executor.workers):
        chosen *= 2
    waiting = [_sample(problem, values, open_saved(data), data, result.forecaster, builder) for values in chosen]
    measured = _measure(executor, waiting)
    on_cpu = executor.workers[0].startswith(("cpu", "inline"))
    clock = [w / c for _, told, _ in measured for w, c in zip(told["epochs"], told["cpu"], strict=True) if c > 0.05]
    for sample, told, wall in measured:
        # A busy machine disturbs the clock more than the CPU's own count, which is then put to the clock's pace.
        pace = float(np.median(clock)) if on_cpu and clock else None
        seconds = [c * pace for c in told["cpu"]] if pace else told["epochs"]
        _learn(result.forecaster, problem, sample, seconds, wall - sum(told["epochs"]))
        result.memory = max(result.memory, told["memory"])
    result.configurations, result.seconds = len(measured), time.monotonic() - began
    return result


def _measure(executor: Executor, waiting: list[Sample]) -> list[tuple[Sample, dict[str, Any], float]]:
    """Run the samples on all workers; those that fail are left out."""
    running: dict[str, tuple[Sample, float]] = {}
    measured: list[tuple[Sample, dict[str, Any], float]] = []
    while waiting or running:
        for worker in executor.workers:
            if waiting and worker not in running:
                running[worker] = waiting.pop(), time.monotonic()
                executor.submit(worker, job, running[worker][0])
        event = executor.wait()
        if event is None:
            break
        sample, began = running.pop(event.worker)
        if event.kind == "result":
            measured.append((sample, event.value, time.monotonic() - began))
    return measured


def spread(problem: Problem, count: int) -> list[Values]:
    """Valid configurations from the cheapest to the dearest of a hundred, the dearest first."""
    rng = np.random.default_rng([problem.config["seed"], 77])
    prior = Forecaster()
    found: dict[Any, tuple[float, Values]] = {}
    for _ in range(3_000):
        values = problem.space.draw(rng)
        verdict = problem.judge(values)
        if verdict.fault is None:
            amounts = amounts_of(verdict.network, apply(problem.config, values), 1_000, 0)
            found[verdict.signature] = prior.epoch(amounts), values
        if len(found) >= 100:
            break
    ranked = sorted(found.values(), key=lambda f: -f[0])
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[place][1] for place in places][::-1]


def _sample(
    problem: Problem, values: Values, dataset: Dataset, data: Path, prior: Forecaster, builder: str | None
) -> Sample:
    config = apply(problem.config, values)
    network, size = problem.judge(values).network, config["training"]["batch_size"]
    one = prior.epoch(amounts_of(network, config, 1_000, 0)) / 1_000
    # Of a network without geometry nothing is known beforehand, so it gets few images.
    most = int(SECONDS / one) // size * size if network or builder else 0
    images = min(len(dataset.x_train), max(2 * size, most))
    validation = min(len(dataset.x_val), max(1, images // 8))
    spec = TrialSpec(0, values, config, trial_seed(config["seed"], 0), data.parent, data, 3, builder=builder)
    return Sample(spec, (images, validation))


def _learn(forecaster: Forecaster, problem: Problem, sample: Sample, seconds: Sequence[float], start: float) -> None:
    network = problem.judge(sample.spec.values).network
    for number, taken in enumerate(seconds):
        amounts = amounts_of(network, sample.spec.config, *sample.images, first=number == 0)
        forecaster.learn(amounts, taken)
    forecaster.starts.append(max(0.0, start))


def _nothing(_: None) -> Generator[Any, bool, None]:
    return None
    yield


def _part(data: Dataset, images: int, validation: int) -> Dataset:
    train: Mapping[str, Any] = {"x_train": data.x_train[:images], "y_train": data.y_train[:images]}
    held: Mapping[str, Any] = {"x_val": data.x_val[:validation], "y_val": data.y_val[:validation]}
    return dataclasses.replace(data, **train, **held)


def _memory() -> float:
    """Bytes of this process; pages shared with other workers count in part where the platform tells."""
    import psutil

    full = psutil.Process().memory_full_info()
    return float(getattr(full, "pss", full.rss))

"""Calibration: a few seconds of real training on every worker at once, to which the cost model is fitted."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnsweep.config.components import locate
from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.executors.base import Event, Executor, run_all
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Values
from cnnsweep.training.building import build_model
from cnnsweep.training.cost_model import Forecaster, amounts_of
from cnnsweep.training.train import run_epoch
from cnnsweep.trial import TrialSpec, trial_seed

COUNT = 8
"""Configurations to measure."""
SECONDS = 0.5
"""Of a measured epoch: long enough to measure, short enough to wait for."""
PATIENCE = 60.0
"""Seconds after which nothing more of a function of the user's own is measured."""


@dataclass(frozen=True)
class Sample:
    """A configuration to measure, and on how many training and validation images."""

    spec: TrialSpec
    images: tuple[int, int]


@dataclass(frozen=True)
class Timing:
    """The measurements of a sample."""

    epochs: list[float]
    """Seconds of each epoch, by the clock."""
    cpu: list[float]
    """Seconds of CPU time in each epoch."""
    start: float
    """Seconds before the first epoch."""
    memory: float
    """Bytes that the worker holds."""


@dataclass
class Calibration:
    """A cost model fitted to this machine; by default to a typical one."""

    forecaster: Forecaster = dataclasses.field(default_factory=Forecaster)
    workers: Sequence[str] = ("cpu0",)
    ready: float = 0.0
    """Seconds until the first trial can start."""
    final: float = 0.0
    """Seconds at the end in addition to the test of the best network."""
    memory: float = 0.0
    """Bytes that the largest worker held."""
    seconds: float = 0.0
    configurations: int = 0
    missing: str | None = None
    """How many configurations could not be measured, and why the first of them."""


def measure_sample(sample: Sample) -> Generator[object, bool, Timing]:
    """Train two short epochs; an executor's job."""
    began = time.monotonic()
    data = _part(open_saved(sample.spec.data), *sample.images)
    model = build_model(sample.spec.config, data, sample.spec.seed, sample.spec.builder)
    start, seconds, busy = time.monotonic() - began, [], []
    for epoch in (1, 2):
        before = time.process_time()
        seconds.append(run_epoch(model, data, sample.spec, epoch)["epoch_seconds"])
        busy.append(time.process_time() - before)
    return Timing(seconds, busy, start, _memory())
    yield  # a job is a generator; this one has nothing to report on the way


def measure_own(sample: Sample) -> Generator[object, bool, Timing]:
    """Run a job of the user's own for two epochs; an executor's job."""
    spec, began, seconds = sample.spec, time.monotonic(), []
    steps = locate("job._target_", spec.config.job.target)(spec)
    with contextlib.suppress(StopIteration):
        report = next(steps)
        for go_on in (True, False):
            seconds.append(report.metrics["epoch_seconds"])
            report = steps.send(go_on)
    return Timing(seconds, seconds, time.monotonic() - began - sum(seconds), _memory())
    yield


def calibrate(problem: Problem, executor: Executor, data: Path, builder: str | None = None) -> Calibration:
    """Measure configurations spread over the space's costs, all workers busy, on the data saved in `data`.

    `builder` is that of a `TrialSpec`.
    """
    began = time.monotonic()
    run_all(executor, [(_nothing, None)] * len(executor.workers))
    result = Calibration(workers=list(executor.workers), ready=time.monotonic() - began)
    own = not problem.config.trains_networks
    chosen = choose(problem, len(executor.workers) if own else COUNT)
    while 0 < len(chosen) < len(executor.workers):
        chosen *= 2
    if own:
        samples = [_own_sample(problem, values, data, n) for n, values in enumerate(chosen)]
    else:
        dataset = open_saved(data)
        samples = [_sample(problem, values, dataset, data, builder) for values in chosen]
    tasks = [(measure_own if own else measure_sample, sample) for sample in samples]
    ends = run_all(executor, tasks, wait=_until(executor, began + PATIENCE) if own else None)
    measured: list[tuple[Sample, Timing]] = [
        (s, e.value) for s, e in zip(samples, ends, strict=True) if e.kind == "result"
    ]
    if lost := [end.value for end in ends if end.kind == "lost"]:
        result.missing = f"{len(lost)} of {len(ends)} configurations could not be measured: {lost[0]}"
    on_cpu = executor.workers[0].startswith(("cpu", "inline"))
    paces = [wall / cpu for _, t in measured for wall, cpu in zip(t.epochs, t.cpu, strict=True) if cpu > 0.05]
    for sample, timing in measured:
        # A busy machine disturbs the clock more than the CPU's own count, which is then put to the clock's pace.
        pace = float(np.median(paces)) if on_cpu and paces else None
        network = problem.validate(sample.spec.values).network
        for number, taken in enumerate([cpu * pace for cpu in timing.cpu] if pace else timing.epochs):
            amounts = amounts_of(network, sample.spec.config, *sample.images, first=number == 0)
            result.forecaster.learn(amounts, taken)
        result.forecaster.starts.append(timing.start)
        result.memory = max(result.memory, timing.memory)
    result.configurations, result.seconds = len(measured), time.monotonic() - began
    return result


def choose(problem: Problem, count: int) -> list[Values]:
    """Valid configurations from the cheapest to the most expensive of a hundred, the most expensive first."""
    rng = np.random.default_rng([problem.config.seed, 77])
    typical = Forecaster()
    found: dict[Hashable, tuple[float, Values]] = {}
    for _ in range(3_000 if problem.sizes is None else 2 * count):
        values = problem.space.draw(rng)
        validity = problem.validate(values)
        if validity.fault is None:
            amounts = amounts_of(validity.network, problem.config.with_values(values), 1_000, 0)
            found[validity.signature] = typical.epoch(amounts), values
        if len(found) >= 100:
            break
    ranked = sorted(found.values(), key=lambda f: -f[0])
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[place][1] for place in places]


def _sample(problem: Problem, values: Values, dataset: Dataset, data: Path, builder: str | None) -> Sample:
    config, network = problem.config.with_values(values), problem.validate(values).network
    size = config.training.batch_size
    seconds = Forecaster().epoch(amounts_of(network, config, 1_000, 0)) / 1_000
    # Of a network without geometry nothing is known beforehand, so it gets few images.
    at_most = int(SECONDS / seconds) // size * size if network or builder else 0
    images = min(len(dataset.x_train), max(2 * size, at_most))
    validation = min(len(dataset.x_val), max(1, images // 8))
    spec = TrialSpec(0, values, config, trial_seed(config.seed, 0), data.parent, data, 3, builder=builder)
    return Sample(spec, (images, validation))


def _own_sample(problem: Problem, values: Values, data: Path, number: int) -> Sample:
    """One of a job of the user's own, which writes files of its own."""
    config, folder = problem.config.with_values(values), data.with_name(f"sample-{number}")
    epochs = config.training.epochs
    return Sample(TrialSpec(0, values, config, trial_seed(config.seed, 0), folder, data, epochs), (0, 0))


def _until(executor: Executor, deadline: float) -> Callable[[], Event | None]:
    """A wait for the executor that ends what still runs after a time."""

    def wait() -> Event | None:
        if time.monotonic() > deadline:
            for worker in executor.workers:
                executor.kill(worker, f"no two epochs within {PATIENCE:.0f} s")
        return executor.wait(1.0)

    return wait


def _nothing(_: None) -> Generator[object, bool, None]:
    return None
    yield


def _part(data: Dataset, images: int, validation: int) -> Dataset:
    return dataclasses.replace(
        data,
        x_train=data.x_train[:images],
        y_train=data.y_train[:images],
        x_val=data.x_val[:validation],
        y_val=data.y_val[:validation],
    )


def _memory() -> float:
    """Bytes of this process; pages shared with other workers count in part where the platform tells."""
    import psutil

    full = psutil.Process().memory_full_info()
    return float(getattr(full, "pss", full.rss))

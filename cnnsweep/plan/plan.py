"""The plan of a sweep: its space, its search on a virtual clock, and a forecast from a few seconds of measuring."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.data import loading as datasets
from cnnsweep.data.loading import Dataset
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor
from cnnsweep.formatting import counted
from cnnsweep.models import transfer
from cnnsweep.plan import feature_forecast
from cnnsweep.plan.calibration import Calibration, calibrate
from cnnsweep.plan.description import SearchDescription, SpaceDescription, describe_search, describe_space
from cnnsweep.plan.simulation import Simulation
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import Problem, make_problem
from cnnsweep.sweep import session
from cnnsweep.sweep.discovery import discover
from cnnsweep.sweep.precision import settle
from cnnsweep.training.cost_model import FILE, amounts_of, machine
from cnnsweep.training.effects import check_effects
from cnnsweep.training.feature_cache import PREPARE


@dataclass(frozen=True)
class Features:
    """The frozen features that a transfer sweep will compute."""

    lines: list[str]
    """One for each backbone, in words."""
    mb: float
    seconds: float | None = None
    """Before the first trial; None where nothing was measured."""


@dataclass(frozen=True)
class Forecast:
    """The time, memory and disk that a sweep will take on this machine."""

    workers: int
    seconds: float
    """From the first trial's start to the end of the evaluation."""
    search_seconds: float
    trial_seconds: dict[str, float]
    memory_mb: float
    disk_mb: float
    measured: dict[str, float]
    """The number of `configurations` from which it is made, and the `seconds` that they took."""
    at: str


@dataclass(frozen=True)
class Plan(SpaceDescription):
    """All that is known of a sweep before it is run."""

    name: str
    input_shape: tuple[int, ...]
    search: SearchDescription
    features: Features | None = None
    forecast: Forecast | None = None


def plan(config: Config, watcher: session.Watcher, forecast: bool = True) -> Plan:
    """Return all that is known of a sweep before it is run; with `forecast` after a few seconds of measuring.

    Raises `UserError` like the sweep itself. Keeps the measurements in `tracking.dir` for the sweeps to come.
    """
    check_effects(config)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cnnsweep-plan-")))
        executor, data = None, datasets.load(config.data, config.seed, config.task)
        if forecast or config.model.plain().get("discover"):
            executor = session.make_executor(config, scratch / "log.txt")
            stack.callback(executor.close)
            with session.framework_noise_to(scratch / "log.txt"):
                config = discover(config, data, executor, watcher.say)
            config = settle(config, executor, watcher.say)
            session.check_code(config, data, executor)
        if len(data.x_train):
            watcher.say(data.describe())
        with session.framework_noise_to(scratch / "log.txt"):
            problem = make_problem(config, data.input_shape, data.classes, data.kind, data.images_an_epoch)
            space = vars(describe_space(problem))
            search = build(config, problem, Objective.of(config.objective))
            frozen = feature_forecast.forecast(config, data) if config.model.prepare == PREPARE else None
        features = Features(frozen.describe(), frozen.bytes / 1e6) if frozen else None
        measured = Calibration()
        if forecast and executor is not None:
            workers = executor.workers
            watcher.say(f"measuring a few configurations on {counted(len(workers), 'worker')}: {', '.join(workers)}")
            measured, seconds = _measure(problem, data, frozen, executor, scratch, watcher.say)
            features = features and replace(features, seconds=seconds)
        simulation = Simulation(problem, search, measured.workers, measured.forecaster, data.images_an_epoch)
        simulated = simulation.run(measured.ready)
        spent, expected = describe_search(simulated, problem, data), None
        if not forecast:
            spent = replace(spent, assumed="one core of a typical machine")
        else:
            spent = replace(spent, disk_mb=spent.disk_mb + (features.mb if features else 0.0))
            expected = _forecast(problem, data, simulated, measured, spent)
        return Plan(**space, name=config.name, input_shape=data.input_shape, search=spent, features=features,
                    forecast=expected)  # fmt: skip


def _measure(
    problem: Problem, data: Dataset, frozen: feature_forecast.Forecast | None, executor: Executor, scratch: Path,
    say: Callable[[str], None],
) -> tuple[Calibration, float]:  # fmt: skip
    """A calibration, and the seconds for frozen features before the first trial."""
    datasets.save(data, scratch / "data")
    seconds = final = 0.0
    if frozen and frozen.all_cached:
        seconds, final = feature_forecast.measure(frozen, data, executor, scratch)
        head = transfer.settings(problem.config).head_builder
        measured = calibrate(problem, executor, scratch / "features", builder=head)
    else:
        measured = calibrate(problem, executor, scratch / "data")
    if measured.missing:
        say(measured.missing)
    if not frozen:
        root = Path(problem.config.tracking.dir).absolute()
        with contextlib.suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            measured.forecaster.save(root / FILE, machine(problem.config, len(executor.workers)))
    return replace(measured, ready=measured.ready + seconds, final=final), seconds


def write(made: Plan, path: Path) -> None:
    """Write a plan as JSON. Raises `UserError` where the file cannot be written."""
    text = json.dumps(_present(asdict(made)), indent=1, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json: '{path}' cannot be written ({error.strerror})") from error


def _present(tree: Any) -> Any:
    """Without the keys of nested mappings that are None."""
    if not isinstance(tree, dict):
        return tree
    return {name: _present(value) for name, value in tree.items() if value is not None}


def _forecast(
    problem: Problem, data: Dataset, simulated: Simulation, measured: Calibration, spent: SearchDescription
) -> Forecast:
    import psutil

    values = simulated.runs[-1].values if simulated.runs else {}
    network = problem.validate(values).network if simulated.runs else None
    test = amounts_of(network, problem.config.with_values(values), 0, len(data.x_test))
    workers = len(measured.workers)
    return Forecast(
        workers=workers,
        seconds=simulated.seconds + simulated.replicate_seconds + measured.forecaster.trial(test, 1) + measured.final,
        search_seconds=simulated.seconds,
        trial_seconds=spent.trial_seconds,
        memory_mb=(psutil.Process().memory_info().rss + workers * measured.memory) / 1e6,
        disk_mb=spent.disk_mb,
        measured={"configurations": measured.configurations, "seconds": round(measured.seconds, 1)},
        at=time.strftime("%Y-%m-%d %H:%M"),
    )

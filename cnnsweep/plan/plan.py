"""Making a plan: the data, the space, the search played through, and a calibration of a few seconds."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsweep.config.objective import Objective
from cnnsweep.data import loading as datasets
from cnnsweep.data.loading import Dataset
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor
from cnnsweep.plan import feature_forecast as feature_plan
from cnnsweep.plan.calibration import Calibration, calibrate
from cnnsweep.plan.description import describe_search, describe_space
from cnnsweep.plan.simulation import Simulated, Simulation
from cnnsweep.search import search as searches
from cnnsweep.search_space import problem
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import apply
from cnnsweep.sweep import session
from cnnsweep.training.cost_model import Forecaster, amounts_of
from cnnsweep.training.feature_cache import HEAD, FeatureSpec
from cnnsweep.training.pricing import FILE, machine


def plan(config: Mapping[str, Any], watcher: session.Watcher, forecast: bool = True) -> dict[str, Any]:
    """Return all that is known of a sweep before it is run; with `forecast` after a few seconds of measuring.

    Raises `UserError` like the sweep itself. Keeps the measurements in `tracking.dir` for the sweeps to come.
    """
    root = Path(config["tracking"]["dir"]).absolute()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cnnsweep-plan-")))
        executor = None
        if forecast:
            executor = session.make_executor(config, scratch / "log.txt", scratch)
            stack.callback(executor.close)
        data = datasets.load(config["data"], config["seed"])
        watcher.say(data.describe())
        posed = problem.pose(config, data.input_shape, data.classes)
        report = {"name": config["name"], "input_shape": list(data.input_shape), **describe_space(posed)}
        with session.framework_noise_to(scratch / "log.txt"):
            search = searches.build(config, posed, Objective.of(config["objective"]))
            frozen = feature_plan.forecast(config, data) if "backbone" in config["model"] else None
        if frozen:
            report["features"] = {"lines": frozen.describe(), "mb": frozen.bytes / 1e6}
        if executor is None:
            spent, _ = _schedule(posed, data, search, Calibration(Forecaster()), ("cpu0",))
            return report | {"search": spent | {"assumed": "one core of a typical machine"}}
        watcher.say(f"measuring a few configurations on {len(executor.workers)} workers: {', '.join(executor.workers)}")
        datasets.save(data, scratch / "data")
        if frozen and frozen.all_cached:
            shared, final = _features(frozen, data, executor, scratch)
            measured = calibrate(posed, executor, scratch / "features", builder=HEAD)
        else:
            shared = final = 0.0
            measured = calibrate(posed, executor, scratch / "data")
        if not frozen:
            _keep(measured.forecaster, root, machine(config, len(executor.workers)))
        measured.ready += shared
        spent, simulated = _schedule(posed, data, search, measured, executor.workers)
        spent["disk_mb"] += frozen.bytes / 1e6 if frozen else 0.0
        told = _forecast(posed, data, simulated, measured, executor, spent)
        told["seconds"] += final
        if frozen:
            report["features"]["seconds"] = shared
        report |= {"search": spent, "forecast": told}
        return report


def _features(frozen: feature_plan.Forecast, data: Dataset, executor: Executor, scratch: Path) -> tuple[float, float]:
    """Seconds that the features and the last look at the test images will take; makes features up for measuring."""
    shared = slowest = 0.0
    for kind in frozen.kinds:
        executor.submit(executor.workers[0], feature_plan.rehearse, FeatureSpec(kind.config, scratch / "data", {}))
        while (event := executor.wait()) is None:
            pass
        if event.kind != "result":
            raise UserError(f"{kind.name} cannot be tried: {event.value}")
        seconds = event.value["seconds"]
        shared += seconds * (len(data.x_train) + len(data.x_val)) if kind.missing else 0.0
        if seconds > slowest:
            slowest = seconds
            shutil.rmtree(scratch / "features", ignore_errors=True)
            feature_plan.make_up(data, event.value["shape"], scratch / "features")
    return shared, slowest * len(data.x_test)


def write(report: Mapping[str, Any], path: Path) -> None:
    """Write a plan as JSON. Raises `UserError` where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json: '{path}' cannot be written ({error.strerror})") from error


def _schedule(
    posed: Problem, data: Dataset, search: searches.Search, measured: Calibration, workers: Any
) -> tuple[dict[str, Any], Simulated]:
    images = len(data.x_train), len(data.x_val)
    simulated = Simulation(posed, search, workers, measured.forecaster, images).run(measured.ready)
    return describe_search(simulated, posed, data), simulated


def _forecast(
    posed: Problem,
    data: Dataset,
    simulated: Simulated,
    measured: Calibration,
    executor: Executor,
    spent: Mapping[str, Any],
) -> dict[str, Any]:
    """Wall time from the first trial's start to the evaluation's end, memory, disk."""
    import psutil

    network = posed.judge(simulated.runs[-1].values).network if simulated.runs else None
    config = apply(posed.config, simulated.runs[-1].values) if simulated.runs else posed.config
    final = measured.forecaster.trial(amounts_of(network, config, 0, len(data.x_test)), 1)
    return {
        "workers": len(executor.workers),
        "seconds": simulated.seconds + final,
        "search_seconds": simulated.seconds,
        "trial_seconds": spent["trial_seconds"],
        "memory_mb": (psutil.Process().memory_info().rss + len(executor.workers) * measured.memory) / 1e6,
        "disk_mb": spent["disk_mb"],
        "measured": {"configurations": measured.configurations, "seconds": round(measured.seconds, 1)},
        "at": time.strftime("%Y-%m-%d %H:%M"),
    }


def _keep(forecaster: Forecaster, root: Path, machine: str) -> None:
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        forecaster.save(root / FILE, machine)

"""Training one configuration as a run of its own: a sweep's trial again, or any config, without a search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cnnsweep.config.compose import flat
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.config.trust import Trusted
from cnnsweep.data import loading, storage
from cnnsweep.executors.base import run_all
from cnnsweep.formatting import score
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search_space.problem import make_problem
from cnnsweep.sweep.catalog import new_id
from cnnsweep.sweep.discovery import discover_application
from cnnsweep.sweep.precision import settle
from cnnsweep.sweep.session import check_code, job_of, log_to, make_executor
from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.run_updates import MLFLOW_STATUS, text
from cnnsweep.tracking.run_writer import SingleRun, now
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.stored_trials import DATA, find_trial
from cnnsweep.training.effects import check_effects
from cnnsweep.training.targets import check_labels
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec, trial_seed

LEFT_OUT = ("epoch_seconds", "learning_rate")
"""Metrics that are not shown."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """The result of one training."""

    run: str
    """Its id in MLflow."""
    folder: Path
    result: TrialResult


def train_again(run_id: str, config: Config, overrides: Sequence[str], say: Say, trusted: Trusted) -> Trained:
    """Train a trial of a sweep again, by its MLflow run id: with the same seed, on the CPU to the last digit.

    `config` is the one of the overrides: it says where the store is, and what is to be changed; `trusted` is the code
    that the trial's own may name.
    """
    trial = find_trial(run_id, config, overrides, trusted)
    say(f"training {trial.name} of {trial.sweep} again")
    tags = {"cnnsweep.from": run_id, "cnnsweep.of_sweep": trial.sweep}
    return _train(trial.config, trial.load_data(), trial.seed, trial.values, tags, say, trial.job)


def train_once(config: Config, say: Say) -> Trained:
    """Train the one configuration of a config without a space."""
    check_effects(config)
    params = {f"model.{key}": text(value) for key, value in config.model.settings().items()}
    params |= {f"training.{key}": text(value) for key, value in config.training.plain().items()}
    params |= {f"job.{key}": text(value) for key, value in flat(config.job.settings())}
    data = loading.load(config.data, config.seed, config.task)
    return _train(config, data, trial_seed(config.seed, 1), params, {}, say)


def _train(
    config: Config, data: loading.Dataset, seed: int, params: Mapping[str, str], tags: Mapping[str, str], say: Say,
    values: Mapping[str, object] | None = None,
) -> Trained:  # fmt: skip
    root = Path(config.tracking.dir).absolute()
    with contextlib.ExitStack() as stack:
        check_labels(config, data)
        network = make_problem(config, data.input_shape, data.classes, data.kind).validate({}).network
        uri = open_store(config.tracking)
        folder = root / "trained" / new_id(config.tracking, config.name, "trained")
        stack.enter_context(log_to(folder / "log.txt"))
        executor = make_executor(config, folder / "log.txt")
        stack.callback(executor.close)
        config = settle(discover_application(config, data, executor), executor, say)
        check_code(config, data, executor)
        storage.save(data, folder / "data")
        spec = _spec(config, values or {}, seed, folder)
        run = SingleRun(uri, config.tracking.experiment)
        costs = {"parameters": float(network.parameters), "mmacs": float(network.mmacs)} if network else {}
        own = {"cnnsweep.kind": "train", "cnnsweep.status": "running", "cnnsweep.seed": str(seed)}
        run.send(
            name=f"train · {config.model.describe({})}",
            params=dict(params),
            tags={
                **{str(k): text(v) for k, v in config.tracking.tags.items()},
                **tags,
                **{f"{DATA}{key}": text(value) for key, value in redact(data.facts()).items()},
                **own,
                "cnnsweep.id": folder.name,
            },
            metrics=[(key, value, run.began, 0) for key, value in costs.items()],
            texts={"config.yaml": yaml.safe_dump(redact(config.plain()), sort_keys=False, allow_unicode=True)},
            status="RUNNING",
        )
        epochs: list[Mapping[str, float]] = []
        job = job_of(config)
        (end,) = run_all(executor, [(job, spec)], lambda _, report: _log_epoch(report, epochs, spec, run, say))
        result = end.value if end.kind == "result" else TrialResult(1, "failed", str(end.value), len(epochs))
        _log_end(result, epochs, spec, run)
        return Trained(run.id, folder, result)


def _spec(config: Config, values: Mapping[str, object], seed: int, folder: Path) -> TrialSpec:
    home, epochs = folder / "trials" / "001", total_epochs(config.training)
    return TrialSpec(1, values, config, seed, home, folder / "data", epochs)


def _log_epoch(
    report: EpochReport, epochs: list[Mapping[str, float]], spec: TrialSpec, run: SingleRun, say: Say
) -> bool:
    epochs.append(report.metrics)
    time = now()
    run.send(metrics=[(key, float(value), time, report.epoch) for key, value in report.metrics.items()])
    shown = "  ".join(f"{name} {score(value)}" for name, value in report.metrics.items() if name not in LEFT_OUT)
    say(f"epoch {report.epoch:>3}/{spec.epochs}  {shown}")
    return True


def _log_end(result: TrialResult, epochs: Sequence[Mapping[str, float]], spec: TrialSpec, run: SingleRun) -> None:
    """Log the result and what lies in the trial's folder."""
    objective = Objective.of(spec.config.objective)
    summary = dict(result.summary)
    index = objective.best(row[objective.metric] for row in epochs)
    if index is not None:
        summary |= {f"best_{objective.metric}": epochs[index][objective.metric], "best_epoch": float(index + 1)}
    run.send(
        metrics=[(key, float(value), now(), 0) for key, value in summary.items()],
        tags={"cnnsweep.status": result.status} | ({"cnnsweep.reason": result.reason} if result.reason else {}),
        folders=[spec.folder / "artifacts"],
        status=MLFLOW_STATUS[result.status],
    )

"""Training one configuration as its own tracked run: a trial again, or any config, without a sweep around it."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.data import loading as datasets
from cnnsweep.errors import UserError
from cnnsweep.executors.batch import run_all
from cnnsweep.search_space import problem
from cnnsweep.sweep.session import log_to, make_executor, new_id
from cnnsweep.tracking.run_updates import MLFLOW_STATUS, Write, text
from cnnsweep.tracking.run_writer import Runs
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.stored_trial import chosen
from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec


@dataclass
class Known:
    """The one run that is written here, for `Runs`."""

    runs: dict[int | None, str] = field(default_factory=dict)

    def note_run(self, trial: int | None, run: str) -> None:
        self.runs[trial] = run

    def forget(self) -> None:
        self.runs.clear()


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    run: str
    folder: Path
    result: TrialResult
    epochs: list[Mapping[str, float]]


def command(arguments: Sequence[str]) -> int:
    """Train one configuration: `train [--from RUN_ID] [OVERRIDE ...]`. Exit code 1 where it fails."""
    parser = argparse.ArgumentParser(prog="cnnsweep train", description="Train one configuration as its own run.")
    parser.add_argument("--from", dest="run", metavar="RUN_ID", help="the trial to train again, with the same numbers")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for a sweep")
    options = parser.parse_intermixed_args(list(arguments))
    console = Console(highlight=False, soft_wrap=True)
    trained = again(options.run, options.overrides, console) if options.run else fresh(options.overrides, console)
    result = trained.result
    told = f"{result.status}{f': {result.reason}' if result.reason else ''} after {result.epochs} epochs"
    console.print(f"{told}\nrun {trained.run} in MLflow · files: {trained.folder}")
    return 0 if result.status == "completed" else 1


def again(run_id: str, overrides: Sequence[str], console: Console) -> Trained:
    """Train a trial of a sweep again, by its MLflow run id: the same seed, so on the CPU the same numbers."""
    trial = chosen(run_id, overrides)
    console.print(f"training {trial.name} of {trial.sweep} again")
    tags = {"cnnsweep.from": run_id, "cnnsweep.of_sweep": trial.sweep}
    return _train(trial.config, trial.seed, trial.values, tags, console)


def fresh(overrides: Sequence[str], console: Console) -> Trained:
    """Train the one configuration that these overrides compose, whatever the space says."""
    config = compose([*overrides, "space=none"])
    values = {key: text(config["model"][key]) for key in config["model"] if key not in ("_target_", "layers")}
    values = {f"model.{key}": value for key, value in values.items()}
    values |= {f"training.{key}": text(value) for key, value in config["training"].items()}
    return _train(config, problem.trial_seed(config["seed"], 1), values, {}, console)


def _train(
    config: Mapping[str, Any], seed: int, values: Mapping[str, str], tags: dict[str, str], console: Console
) -> Trained:
    root = Path(config["tracking"]["dir"]).absolute()
    with contextlib.ExitStack() as stack:
        data = datasets.load(config["data"], config["seed"])
        posed = problem.pose(config, data.input_shape, data.classes)
        uri = open_store(config["tracking"])
        folder = root / "trained" / new_id(config["tracking"], config["name"], "trained")
        stack.enter_context(log_to(folder / "log.txt"))
        executor = make_executor(config, folder / "log.txt", root)
        stack.callback(executor.close)
        datasets.save(data, folder / "data")
        spec = TrialSpec(1, {}, config, seed, folder / "trials" / "001", folder / "data", config["training"]["epochs"])
        record = Record(uri, config, spec, folder.name, values, tags)
        record.begin(problem.short_name(1, config["model"], {}).partition(" · ")[2], posed)
        epochs: list[Mapping[str, float]] = []

        def on_report(_: int, report: EpochReport) -> bool:
            epochs.append(report.metrics)
            record.epoch(report)
            metrics = "  ".join(
                f"{k} {report.metrics[k]:.4f}" for k in ("loss", "accuracy", "val_loss", "val_accuracy")
            )
            console.print(f"epoch {report.epoch:>3}/{spec.epochs}  {metrics}")
            return True

        (end,) = run_all(executor, [(train, spec)], on_report)
        result = end.value if end.kind == "result" else TrialResult(1, "failed", str(end.value), len(epochs))
        record.end(result, epochs)
        return Trained(record.run, folder, result, epochs)


class Record:
    """One run without a parent, written as training goes on."""

    def __init__(
        self,
        uri: str,
        config: Mapping[str, Any],
        spec: TrialSpec,
        id_: str,
        values: Mapping[str, str],
        tags: dict[str, str],
    ) -> None:
        self._known = Known()
        self._runs = Runs(uri, config["tracking"]["experiment"], self._known)
        self._runs.doubtful = False
        self._config, self._spec, self._id, self._values, self._tags = config, spec, id_, values, tags
        self._began = now()

    @property
    def run(self) -> str:
        """The run's id."""
        return self._known.runs[None]

    def begin(self, name: str, posed: problem.Problem) -> None:
        import yaml

        from cnnsweep.tracking.credentials import redact

        network = posed.judge({}).network
        own = {str(k): text(v) for k, v in self._config["tracking"]["tags"].items()}
        tags = {
            **own,
            **self._tags,
            "cnnsweep.kind": "train",
            "cnnsweep.status": "running",
            "cnnsweep.seed": str(self._spec.seed),
            "cnnsweep.id": self._id,
        }
        metrics = {"parameters": float(network.parameters), "mmacs": float(network.mmacs)} if network else {}
        self._runs.open()
        self._send(
            name=f"train · {name}",
            params=dict(self._values),
            tags=tags,
            metrics=[(k, v, self._began, 0) for k, v in metrics.items()],
            texts={"config.yaml": yaml.safe_dump(redact(dict(self._config)), sort_keys=False, allow_unicode=True)},
            status="RUNNING",
        )

    def epoch(self, report: EpochReport) -> None:
        time = now()
        self._send(metrics=[(key, float(value), time, report.epoch) for key, value in report.metrics.items()])

    def end(self, result: TrialResult, epochs: Sequence[Mapping[str, float]]) -> None:
        objective = Objective.of(self._config["objective"])
        index = objective.best(row[objective.metric] for row in epochs)
        summary = dict(result.summary)
        if index is not None:
            summary |= {f"best_{objective.metric}": epochs[index][objective.metric], "best_epoch": float(index + 1)}
        tags = {"cnnsweep.status": result.status, **({"cnnsweep.reason": result.reason} if result.reason else {})}
        self._send(
            metrics=[(key, float(value), now(), 0) for key, value in summary.items()],
            tags=tags,
            folders=[self._spec.folder / "artifacts"],
            status=MLFLOW_STATUS[result.status],
        )

    def _send(self, **parts: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._runs.send(Write(None, self._began, now(), **parts))
        except MlflowException as error:
            raise UserError(f"the run cannot be logged to MLflow: {str(error).splitlines()[0]}") from error


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return round(time.time() * 1000)

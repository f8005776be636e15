"""Taking the best network home: trained again on all training data, tested once, registered, written to a folder."""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from cnnsweep.api import results_in, tracking_of
from cnnsweep.config.compose import compose
from cnnsweep.data import loading as datasets
from cnnsweep.errors import UserError
from cnnsweep.executors.batch import run_all
from cnnsweep.export import model_card as card
from cnnsweep.search_space import problem
from cnnsweep.statistics import wilson
from cnnsweep.sweep.session import log_to, make_executor, new_id
from cnnsweep.sweep.single import Known, now
from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.frames import Results
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.run_updates import Write
from cnnsweep.tracking.run_writer import Runs
from cnnsweep.tracking.store import connect
from cnnsweep.tracking.stored_trial import Chosen, chosen
from cnnsweep.training.refit import RefitSpec, refit, whole
from cnnsweep.trial import EpochReport, TrialSpec

ALIAS = "champion"


@dataclass(frozen=True)
class Exported:
    """A network that is ready for use."""

    folder: Path
    """With model.keras, labels.json, config.yaml, README.md (the model card), example.py and mlflow_model/."""
    accuracies: tuple[float, ...]
    """On the test set, by seed; the model is that of the first seed."""
    interval: tuple[float, float]
    """95%, of the first."""
    images: int
    run: str
    name: str
    """In the MLflow registry."""
    version: str
    uri: str


def command(arguments: Sequence[str]) -> int:
    """Export: `export [SWEEP] [--trial N] [--out DIR] [export.seeds=3] [executor=... data.dir=... tracking...]`."""
    parser = argparse.ArgumentParser(prog="cnnsweep export", description="Train the winner for good and register it.")
    parser.add_argument("words", nargs="*", metavar="SWEEP", help="id or name; by default the latest sweep")
    parser.add_argument("--trial", type=int, help="the trial's number; by default the best")
    parser.add_argument("--out", type=Path, help="the folder to write to")
    options = parser.parse_intermixed_args(list(arguments))
    names = [word for word in options.words if "=" not in word]
    if len(names) > 1:
        raise UserError(f"export takes one sweep, not {', '.join(names)}")
    console = Console(highlight=False, soft_wrap=True)
    overrides = [word for word in options.words if "=" in word]
    made = export(names[0] if names else None, options.trial, options.out, overrides, console)
    low, high = made.interval
    console.print(
        f"test accuracy {made.accuracies[0]:.4f} (95% interval {low:.4f} to {high:.4f}; {made.images:,} images)"
    )
    console.print(f"over {len(made.accuracies)} seeds: {card.spread(made.accuracies)}")
    console.print(f"model: {made.folder / 'model.keras'}")
    console.print(f"card:  {made.folder / 'README.md'}")
    console.print(f"MLflow registry: {made.name}, version {made.version}, alias {ALIAS}; run {made.run}")
    console.print(
        f"serve: MLFLOW_TRACKING_URI={made.uri} mlflow models serve -m models:/{made.name}@{ALIAS} --env-manager local"
    )
    console.print(f"try:   python -m cnnsweep predict {made.folder} IMAGE.png")
    return 0


def export(
    sweep: str | None, trial: int | None, out: Path | None, overrides: Sequence[str], console: Console
) -> Exported:
    """Train a trial's configuration on training plus validation images with several seeds, test, register, write.

    Trained are as many epochs as the trial's best had: without validation images there is nothing to stop by.
    Raises UserError where there is no such sweep or trial, or its training fails.
    """
    results = results_in(open_reader(tracking_of(overrides)), sweep)
    results.expect_finished()
    row = _row(results, trial)
    pick = chosen(str(row["run_id"]), overrides)
    seeds = compose(list(overrides))["export"]["seeds"]
    epochs = int(row["best_epoch"])
    console.print(
        f"training {pick.name} of {pick.sweep} for {epochs} epochs on training and validation images, {seeds} seeds"
    )
    root = Path(pick.config["tracking"]["dir"]).absolute()
    with contextlib.ExitStack() as stack:
        home = root / "exports" / new_id(pick.config["tracking"], str(pick.config["name"]), "exports")
        folder = out.absolute() if out else home
        _writable(folder)
        stack.enter_context(log_to(home / "log.txt"))
        executor = make_executor(pick.config, home / "log.txt", root)
        stack.callback(executor.close)
        data = datasets.load(pick.config["data"], pick.config["seed"])
        datasets.save(whole(data), home / "data")
        specs = _specs(pick, epochs, seeds, home, folder)
        ends = run_all(executor, [(refit, spec) for spec in specs], lambda i, r: _say(console, i, r, epochs))
        for end in ends:
            if end.kind != "result":
                raise UserError(f"the training failed: {end.value} (log: {home / 'log.txt'})")
        measured = [dict(end.value) for end in ends]
        facts = _facts(results, row, pick, data, measured, epochs)
        _write(folder, pick, facts)
        run = _log(pick, results, facts, folder)
        version = _register(pick, run, facts)
        for scratch in ("data", "trials"):
            shutil.rmtree(home / scratch, ignore_errors=True)
    accuracies = tuple(m["test_accuracy"] for m in measured)
    return Exported(
        folder, accuracies, facts.interval, sum(facts.images), run, pick.config["name"], version, redact(pick.uri)
    )


def _row(results: Results, trial: int | None) -> pd.Series:
    if trial is None:
        return results.ranked().iloc[0]
    trials = results.trials
    found = trials[trials["trial"] == trial]
    if found.empty:
        raise UserError(
            f"sweep {results.sweep.id} has no trial {trial} (it has {trials['trial'].min()} to {trials['trial'].max()})"
        )
    row = found.iloc[0]
    if row["status"] == "failed" or pd.isna(row.get(results.best_column)):
        raise UserError(f"trial {trial} of {results.sweep.id} is {row['status']} and has no result to train for")
    return row


def _specs(pick: Chosen, epochs: int, seeds: int, home: Path, folder: Path) -> list[RefitSpec]:
    config = {**pick.config, "training": {**pick.config["training"], "patience": None}}
    made = []
    for index in range(seeds):
        # The first is the trial's own; which model is kept is settled before any is tested.
        seed = pick.seed if index == 0 else problem.trial_seed(pick.seed, index)
        trial = TrialSpec(index + 1, {}, config, seed, home / "trials" / f"{index + 1:03d}", home / "data", epochs)
        made.append(RefitSpec(trial, folder if index == 0 else None))
    return made


def _say(console: Console, index: int, report: EpochReport, epochs: int) -> bool:
    metrics = report.metrics
    told = f"loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.4f}"
    console.print(f"seed {index + 1}  epoch {report.epoch:>3}/{epochs}  {told}")
    return True


def _facts(
    results: Results,
    row: pd.Series,
    pick: Chosen,
    data: datasets.Dataset,
    measured: Sequence[Mapping[str, Any]],
    epochs: int,
) -> card.Facts:
    first = measured[0]
    images = int(sum(first["images"]))
    return card.Facts(
        name=str(pick.config["name"]),
        sweep=pick.sweep,
        trial=str(row["name"]),
        run=pick.run,
        config=pick.config,
        values={key: row[key] for key in results.keys if pd.notna(row[key])},
        data=data,
        epochs=epochs,
        trials={str(s): int(n) for s, n in results.trials["status"].value_counts().items()},
        search=str(results.parent("params", "search") or ""),
        objective=results.objective.metric,
        objective_value=float(row[results.best_column]),
        accuracies=tuple(float(m["test_accuracy"]) for m in measured),
        losses=tuple(float(m["test_loss"]) for m in measured),
        interval=wilson(float(first["test_accuracy"]), images),
        right=tuple(first["right"]),
        images=tuple(first["images"]),
        parameters=int(first["parameters"]),
        mmacs=None if pd.isna(row["mmacs"]) else float(row["mmacs"]),
    )


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: '{folder}' cannot be written ({error.strerror})") from error


def _write(folder: Path, pick: Chosen, facts: card.Facts) -> None:
    config = redact({key: value for key, value in pick.config.items() if key != "tracking"})
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / "README.md").write_text(card.text(facts), encoding="utf-8")
    (folder / "example.py").write_text(card.example(facts), encoding="utf-8")


def _log(pick: Chosen, results: Results, facts: card.Facts, folder: Path) -> str:
    """Write the export's own run, its model included; return the run's id."""
    known, began = Known(), now()
    runs = Runs(pick.uri, pick.config["tracking"]["experiment"], known)
    runs.doubtful = False
    runs.open()
    low, high = facts.interval
    points = {
        "test_accuracy": facts.accuracies[0],
        "test_loss": facts.losses[0],
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_accuracy_mean": statistics.fmean(facts.accuracies),
        "parameters": float(facts.parameters),
        "epochs": float(facts.epochs),
    }
    if len(facts.accuracies) > 1:
        points["test_accuracy_std"] = statistics.stdev(facts.accuracies)
    by_seed = [("seed_test_accuracy", value, began, index) for index, value in enumerate(facts.accuracies, start=1)]
    tags = {
        "cnnsweep.kind": "export",
        "cnnsweep.of_sweep": pick.sweep,
        "cnnsweep.from": pick.run,
        "cnnsweep.status": "completed",
        "cnnsweep.final": str(began),
        "mlflow.parentRunId": results.sweep.run,
    }
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("config.yaml", "README.md", "example.py")}
    params = {str(key): str(value) for key, value in pick.values.items()}
    metrics = [(key, value, began, 0) for key, value in points.items() if not math.isnan(value)]
    runs.send(
        Write(
            None,
            began,
            now(),
            f"export · {facts.trial}",
            params,
            [*metrics, *by_seed],
            tags,
            texts,
            model=folder / "mlflow_model",
            status="FINISHED",
        )
    )
    return known.runs[None]


def _register(pick: Chosen, run: str, facts: card.Facts) -> str:
    """Register the logged model under the sweep's name, as the champion; return its version."""
    from mlflow.exceptions import MlflowException

    client, name = connect(pick.uri), str(pick.config["name"])
    source = client.get_run(run).data.tags["cnnsweep.model_uri"]
    model = client.get_logged_model(source.rpartition("/")[2])
    if not pick.uri.startswith(("http://", "https://")):
        # Without a server MLflow would look the model up in the store of its global URI, not in this one.
        source = model.artifact_location
    try:
        client.create_registered_model(name, description=f"The best networks of the sweeps named {name}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise UserError(f"the model cannot be registered: {str(error).splitlines()[0]}") from error
    low, high = facts.interval
    description = (
        f"{facts.trial} of {pick.sweep}: test accuracy {facts.accuracies[0]:.4f} (95%: {low:.4f} to {high:.4f})"
    )
    version = client.create_model_version(name, source, run, description=description, model_id=model.model_id)
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)

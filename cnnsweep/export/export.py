"""Export of the best network: trained again on all training data, tested once, registered, written to a folder."""

from __future__ import annotations

import contextlib
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cnnsweep.config.schema import Config
from cnnsweep.config.trust import Trusted
from cnnsweep.data import storage
from cnnsweep.data.arrays import Dataset
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Event, run_all
from cnnsweep.export.examples import EXAMPLES, example_of
from cnnsweep.export.model_card import ModelCard, spread
from cnnsweep.export.own_layers import own_layers
from cnnsweep.formatting import counted, listed, score
from cnnsweep.sweep.catalog import new_id
from cnnsweep.sweep.session import log_to, make_executor
from cnnsweep.tracking.credentials import redact, shown
from cnnsweep.tracking.frames import Results, read_results
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.run_writer import SingleRun
from cnnsweep.tracking.store import connect
from cnnsweep.tracking.stored_trials import StoredTrial, find_trial
from cnnsweep.training.early_stopping import without_early_stopping
from cnnsweep.training.evaluate import LABELS, FinalSpec, Refit, evaluate_last, with_validation
from cnnsweep.training.train import train
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec, trial_seed

ALIAS = "champion"
WRITTEN = ("config.yaml", "README.md", "example.py", *sorted({m.name for e in EXAMPLES.values() for m in e.modules}))


@dataclass(frozen=True)
class Exported:
    """A network that is ready for use."""

    folder: Path
    """With model.keras, labels.json, config.yaml, README.md (the model card), mlflow_model/, and, for a network that
    takes images of 1 or 3 channels, texts, or files, example.py and the module that decodes them.
    """
    card: ModelCard
    run: str
    version: str
    """In the MLflow registry, where it has the sweep's name."""

    @property
    def argument(self) -> str:
        """An input of it, as it is typed after `predict`; empty where that takes none, or cannot load it."""
        if self.card.own:
            return ""
        if example := example_of(self.card.data):
            return example.argument
        kind = self.card.data.kind
        return "" if kind in ("image", "multi_input") else f"{kind.upper()}.npy"

    def describe(self) -> str:
        """Its test and its places, in lines."""
        card, name = self.card, self.card.stored.config.name
        use = (
            f"serve: MLFLOW_TRACKING_URI={shown(card.stored.uri)} mlflow models serve -m models:/{name}@{ALIAS} "
            "--env-manager local"
        )
        if card.own:
            use = f"it has layers of its own ({listed(card.own)}): import their module before you load it"
        interval = card.interval_text("95% interval {} to {}; ")
        return (
            f"test {card.metric} {score(card.values[0])} ({interval}{card.images:,} {card.data.noun})\n"
            f"over {counted(len(card.values), 'seed')}: {spread(card.values)}\n"
            f"model: {self.folder / 'model.keras'}\n"
            f"card:  {self.folder / 'README.md'}\n"
            f"MLflow registry: {name}, version {self.version}, alias {ALIAS}; run {self.run}\n{use}"
        )


def export(
    sweep: str | None,
    trial: int | None,
    out: Path | None,
    config: Config,
    overrides: Sequence[str],
    say: Callable[[str], None],
    trusted: Trusted,
) -> Exported:
    """Train a trial's configuration on training plus validation images with several seeds, test, register, write.

    It is trained for as many epochs as the trial's best had: without validation images there is no early stopping.
    `config` is the one of the overrides, which replace what the trial's own config says; `trusted` is the code that the
    trial's own may name.
    Raises UserError where there is no such sweep or trial, or its training fails.
    """
    results = read_results(open_reader(config.tracking), sweep)
    results.expect_finished()
    row = _row(results, trial)
    stored = find_trial(str(row["run_id"]), config, overrides, trusted)
    if not stored.config.trains_networks:
        raise UserError(
            f"{results.sweep.id} trained with code of your own ({stored.config.job.target}), which cannot be trained "
            "again on all data here; its checkpoints are in the folders of its trials"
        )
    data, seeds, epochs = stored.load_data(), config.export.seeds, int(row["best_epoch"])
    what = f"{counted(epochs, 'epoch')} on training and validation {data.noun}, {counted(seeds, 'seed')}"
    say(f"training {stored.name} of {stored.sweep} for {what}")
    root = Path(stored.config.tracking.dir).absolute()
    home = root / "exports" / new_id(stored.config.tracking, stored.config.name, "exports")
    folder = _made(out.absolute() if out else home)
    measured = _train(stored, data, epochs, seeds, home, folder, say)
    card = ModelCard(results, row, stored, data, measured, own_layers(folder / "model.keras"))
    _write(folder, card)
    run = _log(card, folder)
    return Exported(folder, card, run, _register(run, card))


def _made(folder: Path) -> Path:
    """The folder to write to. Raises UserError where it cannot be made, or has such files, and not of an export."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: '{folder}' cannot be written ({error.strerror})") from error
    others = [] if (folder / LABELS).exists() else [name for name in WRITTEN if (folder / name).exists()]
    if others:
        raise UserError(f"--out: '{folder}' has a file {others[0]} that is not of an export; name another folder")
    return folder


def _row(results: Results, trial: int | None) -> pd.Series:
    if trial is None:
        return results.ranked().iloc[0]
    trials = results.trials
    found = trials[trials["trial"] == trial]
    if found.empty:
        numbers = f"{trials['trial'].min()} to {trials['trial'].max()}"
        raise UserError(f"sweep {results.sweep.id} has no trial {trial} (it has {numbers})")
    row = found.iloc[0]
    if row["status"] == "failed" or pd.isna(row.get(results.best_column)):
        raise UserError(f"trial {trial} of {results.sweep.id} is {row['status']} and has no result to train for")
    return row


def _train(
    stored: StoredTrial, data: Dataset, epochs: int, seeds: int, home: Path, folder: Path, say: Callable[[str], None]
) -> list[Refit]:
    """Train and test one network a seed; the first seed's model is written to `folder`."""

    def on_report(index: int, report: EpochReport) -> bool:
        names = [name for name in report.metrics if f"val_{name}" in report.metrics]
        shown = "  ".join(f"{name} {score(report.metrics[name])}" for name in names)
        say(f"seed {index + 1}  epoch {report.epoch:>3}/{epochs}  {shown}")
        return True

    config = without_early_stopping(stored.config)
    log = home / "log.txt"
    with log_to(log), contextlib.closing(make_executor(stored.config, log)) as executor:
        executor.say = say
        storage.save(with_validation(data, home / "joined"), home / "data")
        trials = []
        for index in range(seeds):
            # The first is the trial's own; which model is kept is settled before any is tested.
            seed = stored.seed if index == 0 else trial_seed(stored.seed, index)
            scratch = home / "trials" / f"{index + 1:03d}"
            trials.append(TrialSpec(index + 1, {}, config, seed, scratch, home / "data", epochs))
        _results(run_all(executor, [(train, trial) for trial in trials], on_report), log)
        finals = [FinalSpec(trial, folder if trial.number == 1 else None) for trial in trials]
        measured = _results(run_all(executor, [(evaluate_last, final) for final in finals]), log)
    for name in ("joined", "data", "trials"):
        shutil.rmtree(home / name, ignore_errors=True)
    return measured


def _results(ends: Sequence[Event], log: Path) -> list[Any]:
    """The results of jobs. Raises UserError for the first that has none, or whose training failed."""
    for end in ends:
        failed = isinstance(end.value, TrialResult) and end.value.status == "failed"
        if failed or end.kind != "result":
            raise UserError(f"the training failed: {end.value.reason if failed else end.value} (log: {log})")
    return [end.value for end in ends]


def _write(folder: Path, card: ModelCard) -> None:
    config = {key: value for key, value in card.stored.config.plain().items() if key != "tracking"}
    text = yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(card.text(), encoding="utf-8")
    if (example := example_of(card.data)) and not card.own:
        example.write(folder)


def _log(card: ModelCard, folder: Path) -> str:
    """Write the export's own run, its model included; return the run's id."""
    stored = card.stored
    run = SingleRun(stored.uri, stored.config.tracking.experiment)
    key = f"seed_test_{card.metric}"
    by_seed = [(key, value, run.began, index) for index, value in enumerate(card.values, start=1)]
    metrics = [(key, value, run.began, 0) for key, value in _metrics(card).items() if not math.isnan(value)]
    run.send(
        name=f"export · {card.row['name']}",
        params=stored.values,
        metrics=[*metrics, *by_seed],
        tags={
            "cnnsweep.kind": "export",
            "cnnsweep.of_sweep": stored.sweep,
            "cnnsweep.from": stored.run,
            "cnnsweep.status": "completed",
            "cnnsweep.final": str(run.began),
            "mlflow.parentRunId": card.results.sweep.run,
        },
        texts={name: (folder / name).read_text(encoding="utf-8") for name in WRITTEN if (folder / name).exists()},
        model=folder / "mlflow_model",
        status="FINISHED",
    )
    return run.id


def _metrics(card: ModelCard) -> dict[str, float]:
    first, name = card.measured[0], f"test_{card.metric}"
    values = {
        **first["metrics"],
        f"{name}_mean": statistics.fmean(card.values),
        "parameters": float(first["parameters"]),
        "epochs": float(card.row["best_epoch"]),
    }
    if card.interval:
        values |= dict(zip((f"{name}_low", f"{name}_high"), card.interval, strict=True))
    if len(card.values) > 1:
        values[f"{name}_std"] = statistics.stdev(card.values)
    return values


def _register(run: str, card: ModelCard) -> str:
    """Register the logged model under the sweep's name, as the champion; return its version."""
    from mlflow.exceptions import MlflowException

    uri, name = card.stored.uri, card.stored.config.name
    client = connect(uri)
    source = client.get_run(run).data.tags["cnnsweep.model_uri"]
    model = client.get_logged_model(source.rpartition("/")[2])
    if not uri.startswith(("http://", "https://")):
        # Without a server MLflow would look the model up in the store of its global URI, not in this one.
        source = model.artifact_location
    try:
        client.create_registered_model(name, description=f"The best networks of the sweeps named {name}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise UserError(f"the model cannot be registered: {str(error).splitlines()[0]}") from error
    result = f"test {card.metric} {score(card.values[0])}{card.interval_text(' (95%: {} to {})')}"
    version = client.create_model_version(
        name, source, run, description=f"{card.row['name']} of {card.stored.sweep}: {result}", model_id=model.model_id
    )
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)

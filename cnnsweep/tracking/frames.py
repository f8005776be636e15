"""A sweep's trials and learning curves as tidy data frames, read from the MLflow store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import yaml

from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.search_space import space as spaces
from cnnsweep.tracking.reader import Reader, Rows, SweepRun
from cnnsweep.tracking.run_updates import ABSENT
from cnnsweep.tracking.store import connect

EPOCH_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "learning_rate")
FINISHED = ("completed", "pruned")


@dataclass(frozen=True)
class Results:
    """All that the store says of one sweep."""

    reader: Reader
    sweep: SweepRun
    rows: Rows

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The composed config that is logged with the sweep; empty where it is gone."""
        return read_yaml(self.reader.uri, self.sweep.run, str(self.rows.runs.at[self.sweep.run, "artifact_uri"]))

    @cached_property
    def space(self) -> spaces.Space | None:
        """What was searched; None where the config is gone or another version's."""
        try:
            return spaces.read(self.config)
        except (UserError, KeyError):
            return None

    @cached_property
    def objective(self) -> Objective:
        return Objective.of(str(self.parent("params", "objective") or "val_accuracy"))

    @cached_property
    def keys(self) -> list[str]:
        """The searched keys, in the order of the space."""
        logged = self.rows.params.loc[self._of_trials].dropna(axis=1, how="all")
        return [p.name for p in self.space.parameters] if self.space else list(logged.columns)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by number.

        Columns: sweep, trial, name, status, reason; pareto, where there are several objectives; the searched keys,
        absent where a trial did not use them;
        best_<objective>, best_epoch; of a finalist that was trained again mean_<objective>, std_<objective> and the
        number of replicates; whatever else was logged with one value; epochs, parameters, mmacs
        (millions), seconds (of its worker, all its rungs together), worker, started, ended (UTC), run_id.
        """
        runs, tags, metrics = (
            part.loc[self._of_trials] for part in (self.rows.runs, self.rows.tags, self.rows.metrics)
        )
        spent = self.reader.history(self.sweep, ["trial_seconds"]).groupby("run_id")["trial_seconds"].sum()
        frame = pd.DataFrame(
            {
                "sweep": self.sweep.id,
                "trial": _column(tags, "cnnsweep.trial").astype(int),
                "name": runs["run_name"],
                "status": _column(tags, "cnnsweep.status"),
                "reason": _column(tags, "cnnsweep.reason"),
                **({"pareto": tags["cnnsweep.pareto"] == "true"} if "cnnsweep.pareto" in tags else {}),
                **self._values,
                **{k: metrics[k] for k in self._summaries(metrics)},
                "epochs": self.rows.steps.reindex(runs.index),
                "parameters": _whole(_column(metrics, "parameters")),
                "mmacs": _column(metrics, "mmacs").astype(float),
                "seconds": spent.reindex(runs.index).astype(float),
                "worker": _column(tags, "cnnsweep.worker"),
                "started": pd.to_datetime(runs["start_time"], unit="ms", utc=True),
                "ended": pd.to_datetime(runs["end_time"], unit="ms", utc=True),
                "run_id": runs.index,
            }
        )
        return frame.sort_values("trial", ignore_index=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an epoch: sweep, trial, epoch, time (UTC, when it ended), the metrics of each epoch, run_id."""
        frame = self.reader.history(self.sweep, EPOCH_METRICS).rename(columns={"step": "epoch"})
        frame["time"] = pd.to_datetime(frame["time"], unit="ms", utc=True)
        numbers = _column(self.rows.tags.loc[self._of_trials], "cnnsweep.trial").astype(int)
        frame = frame.assign(sweep=self.sweep.id, trial=frame["run_id"].map(numbers))
        order = ["sweep", "trial", "epoch", "time", *EPOCH_METRICS, "run_id"]
        ordered = frame[order].sort_values(["trial", "epoch", "time"], ignore_index=True)
        return ordered.drop_duplicates(
            ["trial", "epoch"], ignore_index=True
        )  # of one repeated after a crash, the first

    @property
    def best_column(self) -> str:
        return f"best_{self.objective.metric}"

    def finalists(self) -> pd.DataFrame:
        """The trials that were trained again with other seeds, the best mean first."""
        named = str(self.parent("tags", "cnnsweep.finalists") or "").split(", ")
        ranked, mean = self.ranked(), f"mean_{self.objective.metric}"
        return ranked[ranked["trial"].astype(str).isin(named) & _column(ranked, mean).notna()]

    def front(self) -> pd.DataFrame:
        """The trials of the Pareto front, the best by the first objective first; none where there is one objective."""
        ranked = self.ranked()
        return ranked[_column(ranked, "pareto").eq(True)]

    def ranked(self) -> pd.DataFrame:
        """The trials that have a value and did not fail, the best first."""
        trials = self.trials
        scored = trials[(trials["status"] != "failed") & _column(trials, self.best_column).notna()]
        ascending = self.objective.direction == "min"
        finalists = str(self.parent("tags", "cnnsweep.finalists") or "").split(", ")
        if (mean := f"mean_{self.objective.metric}") in scored:  # of several trainings, which says more than one
            first = scored[scored["trial"].astype(str).isin(finalists) & scored[mean].notna()]
            rest = scored.drop(first.index)
            by_mean = first.sort_values([mean, "trial"], ascending=[ascending, True])
            return pd.concat([by_mean, rest.sort_values([self.best_column, "trial"], ascending=[ascending, True])])
        return scored.sort_values([self.best_column, "trial"], ascending=[ascending, True]) if len(scored) else scored

    def expect_finished(self) -> None:
        """Raise UserError where no trial has finished yet."""
        trials = self.trials
        if len(self.ranked()) and trials["status"].isin(FINISHED).any():
            return
        counts = (
            ", ".join(f"{n} {status}" for status, n in trials["status"].value_counts().items()) or "none was started"
        )
        reasons = trials["reason"].dropna()
        why = f"; the first reason: {reasons.iloc[0]}" if len(reasons) else ""
        raise UserError(f"sweep {self.sweep.id} has no finished trial ({counts}{why})")

    def parent(self, part: str, key: str) -> Any:
        """A param, tag or metric of the sweep's own run; None where it has none."""
        frame = getattr(self.rows, part)
        value = frame.at[self.sweep.run, key] if key in frame.columns else None
        return None if value is None or pd.isna(value) else value

    @property
    def _of_trials(self) -> pd.Index:
        tags = self.rows.tags
        return tags.index[_column(tags, "cnnsweep.kind") == "trial"]

    @cached_property
    def _values(self) -> dict[str, pd.Series]:
        logged = self.rows.params.loc[self._of_trials]
        found: dict[str, pd.Series] = {}
        for key in self.keys:
            text = _column(logged, key)
            parameter = self.space.by_name.get(key) if self.space else None
            absent = text.isna() | (text == ABSENT)
            if parameter and parameter.choices and ABSENT in parameter.choices:
                active = pd.Series(True, text.index)
                for name, allowed in parameter.when:
                    active &= found[name].isin(allowed)
                absent = text.isna() | ~active
            found[key] = parse(text.mask(absent))
        return found

    def _summaries(self, metrics: pd.DataFrame) -> list[str]:
        apart = {*EPOCH_METRICS, "parameters", "mmacs", "trial_seconds", f"replicate_{self.objective.metric}"}
        logged = [key for key in metrics.columns if key not in apart and metrics[key].notna().any()]
        return sorted(logged, key=lambda key: (key != self.best_column, key != "best_epoch", key))


def read_yaml(uri: str, run: str, artifacts: str, name: str = "config.yaml") -> Mapping[str, Any]:
    """An artifact of a run that is YAML; empty where it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        local = local_folder(artifacts)
        if local is not None:
            content = (local / name).read_text(encoding="utf-8")
        else:
            with tempfile.TemporaryDirectory() as folder:
                content = Path(connect(uri).download_artifacts(run, name, folder)).read_text(encoding="utf-8")
    except (OSError, MlflowException):
        return {}
    return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def local_folder(artifacts: str) -> Path | None:
    """The folder of a run's artifacts where it is on this machine.

    >>> print(local_folder("file:///srv/a"), local_folder("mlflow-artifacts:/1/2"))
    /srv/a None
    """
    parts = urlsplit(artifacts)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


def parse(text: pd.Series) -> pd.Series:
    """Give a column of MLflow's texts its type: whole numbers, numbers, true and false, or text.

    >>> parse(pd.Series(["16", None, "32"])).tolist()
    [16, <NA>, 32]
    >>> parse(pd.Series(["true", "false"])).tolist()
    [True, False]
    """
    present = text.dropna()
    if present.empty:
        return text
    if present.isin(["true", "false"]).all():
        answers = text.map({"true": True, "false": False})
        return answers.astype(bool if len(present) == len(text) else "boolean")
    numbers = pd.to_numeric(present, errors="coerce")
    if numbers.isna().any():
        return text
    if present.str.fullmatch(r"[+-]?\d+").all():
        whole = pd.to_numeric(text).astype("Int64")
        return whole.astype("int64") if len(present) == len(text) else whole
    return pd.to_numeric(text).astype(float)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name] if name in frame.columns else pd.Series(None, frame.index, dtype=object)


def _whole(column: pd.Series) -> pd.Series:
    return column.astype(float).round().astype("Int64")

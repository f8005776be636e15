"""A sweep's trials and learning curves as tidy data frames, read from the MLflow store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from cnnsweep.config.objective import COSTS, Objective
from cnnsweep.config.schema import Config
from cnnsweep.config.tasks import Task, metric_names
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.space import Space
from cnnsweep.tracking.reader import Reader, Rows, SweepRun, find_sweep, read_yaml
from cnnsweep.tracking.run_updates import ABSENT

EPOCH_COSTS = ("epoch_seconds", "learning_rate")
"""Logged in every epoch beside the metrics."""
OWN_COLUMNS = {
    "sweep", "trial", "name", "status", "reason", "pareto", "epochs", "parameters", "mmacs", "seconds", "worker",
    "started", "ended", "run_id", "step", "epoch", "time",
}  # fmt: skip
"""Of the frames: a metric of such a name, which a user's own code may report, is in none of them."""


def read_results(reader: Reader, sweep: str | None) -> Results:
    """Return the sweep with this id or name, or the latest where None. Raises UserError with the nearest match."""
    found = find_sweep(reader, sweep)
    return Results(reader, found, reader.rows(found))


@dataclass(frozen=True)
class Results:
    """One sweep, as the store has it."""

    reader: Reader
    sweep: SweepRun
    rows: Rows

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The config that is logged with the sweep, as plain data; empty where it is gone."""
        return read_yaml(self.reader.uri, self.artifacts(self.sweep.run))

    @cached_property
    def space(self) -> Space | None:
        """The searched space; None where the config is gone or another version's."""
        try:
            return parse_space(Config.from_plain(self.config))
        except (UserError, KeyError):
            return None

    @cached_property
    def objective(self) -> Objective:
        return Objective.of(str(self.parent("params", "objective") or "val_accuracy"))

    @property
    def task(self) -> Task:
        return self.parent("params", "task") or "classification"

    @property
    def by_share(self) -> bool:
        """Whether trials are compared by a share of validation images."""
        return self.objective.metric == "val_accuracy" and self.task == "classification"

    @property
    def best_column(self) -> str:
        return f"best_{self.objective.metric}"

    @cached_property
    def keys(self) -> list[str]:
        """The searched keys, in the order of the space."""
        logged = self.rows.params.loc[self._of_trials].dropna(axis=1, how="all")
        return [p.name for p in self.space.parameters] if self.space else list(logged.columns)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, by number.

        Columns: sweep, trial, name, status, reason; pareto, where there are several objectives; the searched keys,
        absent where a trial did not use them; best_<objective>, best_epoch; of a finalist that was trained again
        mean_<objective>, std_<objective> and the number of replicates; all else that was logged with one value;
        epochs, parameters, mmacs (millions), seconds (of its worker, all its rungs together), worker, started, ended
        (UTC), run_id.
        """
        index = self._of_trials
        runs, tags, metrics = (part.loc[index] for part in (self.rows.runs, self.rows.tags, self.rows.metrics))
        frame = pd.DataFrame(
            {
                "sweep": self.sweep.id,
                "trial": _column(tags, "cnnsweep.trial").astype(int),
                "name": runs["run_name"],
                "status": _column(tags, "cnnsweep.status"),
                "reason": _column(tags, "cnnsweep.reason"),
                **({"pareto": tags["cnnsweep.pareto"] == "true"} if "cnnsweep.pareto" in tags else {}),
                **self._values,
                **{key: metrics[key] for key in self._summaries(metrics)},
                "epochs": self.rows.steps.reindex(index),
                "parameters": _column(metrics, "parameters").astype(float).round().astype("Int64"),
                "mmacs": _column(metrics, "mmacs").astype(float),
                "seconds": _column(metrics, "trial_seconds").astype(float),
                "worker": _column(tags, "cnnsweep.worker"),
                "started": pd.to_datetime(runs["start_time"], unit="ms", utc=True),
                "ended": pd.to_datetime(runs["end_time"], unit="ms", utc=True),
                "run_id": index,
            }
        )
        return frame.sort_values("trial", ignore_index=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an epoch: sweep, trial, epoch, time (UTC, when it ended), the metrics of each epoch, run_id."""
        frame = self.reader.history(self.sweep, self.epoch_metrics).rename(columns={"step": "epoch"})
        frame["time"] = pd.to_datetime(frame["time"], unit="ms", utc=True)
        numbers = _column(self.rows.tags.loc[self._of_trials], "cnnsweep.trial").astype(int)
        frame = frame.assign(sweep=self.sweep.id, trial=frame["run_id"].map(numbers))
        frame = frame[["sweep", "trial", "epoch", "time", *self.epoch_metrics, "run_id"]]
        # Of an epoch of a trial that failed and was trained again, the last report counts.
        frame = frame.sort_values(["trial", "epoch", "time"], ignore_index=True)
        return frame.drop_duplicates(["trial", "epoch"], keep="last", ignore_index=True)

    def ranked(self) -> pd.DataFrame:
        """The trials that have a value and did not fail, the best first.

        Finalists come first, by their means: several trainings say more than one.
        """
        trials, best, mean = self.trials, self.best_column, f"mean_{self.objective.metric}"
        scored = trials[(trials["status"] != "failed") & _column(trials, best).notna()]
        again = self._are_finalists(scored)
        order: dict[str, Any] = {"ascending": [self.objective.direction == "min", True]}
        rest = scored[~again].sort_values([best, "trial"], **order) if len(scored) else scored
        return pd.concat([scored[again].sort_values([mean, "trial"], **order), rest]) if again.any() else rest

    @cached_property
    def epoch_metrics(self) -> list[str]:
        """What is logged in every epoch: the metrics, those with `val_` after the others, `EPOCH_COSTS`, and others."""
        return [*self._usual_metrics, *sorted(self._other_metrics)]

    @cached_property
    def _other_metrics(self) -> set[str]:
        """What code of the user's own reports beside the objective, on the training or the validation data alone."""
        return {*self.rows.by_epoch} - {*self._usual_metrics, *OWN_COLUMNS, f"replicate_{self.objective.metric}"}

    @cached_property
    def _usual_metrics(self) -> list[str]:
        logged = {key.removeprefix("val_") for key in self.rows.metrics.columns if key.startswith("val_")}
        order = ["loss", *metric_names((self.config.get("training") or {}).get("metrics", "auto"), self.task)]
        names = [*(name for name in order if name in logged or name == "loss"), *sorted(logged - {*order})]
        found = [*names, *(f"val_{name}" for name in names), *EPOCH_COSTS]
        return [*found, *(o.metric for o in self.objective.all if o.metric not in (*found, *COSTS))]

    @cached_property
    def test(self) -> tuple[str, float] | None:
        """The name and the value of the best trial's network, after its best epoch, on the test set.

        None where that was not evaluated, but an earlier best.
        """
        names = [f"test_{name}" for name in self.epoch_metrics]
        found = {name: value for name in names if (value := self.parent("metrics", name)) is not None}
        ranked = self.ranked()
        if not found or ranked.empty:
            return None
        trial, epoch = (self.parent("tags", f"cnnsweep.best_{key}") for key in ("trial", "epoch"))
        best, name = ranked.iloc[0], self.objective.tested([*found])
        known = (trial, epoch) == (str(best["trial"]), f"{best['best_epoch']:.0f}")
        return (name.removeprefix("test_"), float(found[name])) if known else None

    def finalists(self) -> pd.DataFrame:
        """The trials that were trained again with other seeds, the best mean first."""
        ranked = self.ranked()
        return ranked[self._are_finalists(ranked)]

    def front(self) -> pd.DataFrame:
        """The trials of the Pareto front, the best by the first objective first; none where there is one objective."""
        ranked = self.ranked()
        return ranked[_column(ranked, "pareto").eq(True)]

    def expect_finished(self) -> None:
        """Raise UserError where no trial has finished yet."""
        trials = self.trials
        if len(self.ranked()) and trials["status"].isin(["completed", "pruned"]).any():
            return
        counts = ", ".join(f"{n} {status}" for status, n in trials["status"].value_counts().items())
        reasons = trials["reason"].dropna()
        why = f"; the first reason: {reasons.iloc[0]}" if len(reasons) else ""
        raise UserError(f"sweep {self.sweep.id} has no finished trial ({counts or 'none was started'}{why})")

    def artifacts(self, run: str) -> str:
        """The location of the files of one of the runs."""
        return str(self.rows.runs.at[run, "artifact_uri"])

    def parent(self, part: Literal["params", "tags", "metrics"], key: str) -> Any:
        """A param, tag or metric of the sweep's own run; None where it has none."""
        frame: pd.DataFrame = getattr(self.rows, part)
        value: Any = frame.at[self.sweep.run, key] if key in frame.columns else None
        return None if value is None or pd.isna(value) else value

    @cached_property
    def _of_trials(self) -> pd.Index:
        return self.rows.tags.index[_column(self.rows.tags, "cnnsweep.kind") == "trial"]

    @cached_property
    def _values(self) -> dict[str, pd.Series]:
        """A column for each searched key."""
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
            words = parameter and parameter.choices and isinstance(parameter.choices[0], str)
            found[key] = text.mask(absent) if words else parse(text.mask(absent))
        return found

    def _are_finalists(self, trials: pd.DataFrame) -> pd.Series:
        finalists = str(self.parent("tags", "cnnsweep.finalists") or "").split(", ")
        return trials["trial"].astype(str).isin(finalists) & _column(trials, f"mean_{self.objective.metric}").notna()

    def _summaries(self, metrics: pd.DataFrame) -> list[str]:
        several = self._other_metrics if (self.rows.steps > 1).any() else set()
        apart = {*self._usual_metrics, *several, *OWN_COLUMNS, "trial_seconds", f"replicate_{self.objective.metric}"}
        logged = [key for key in metrics.columns if key not in apart and metrics[key].notna().any()]
        return sorted(logged, key=lambda key: (key != self.best_column, key != "best_epoch", key))


def parse(text: pd.Series) -> pd.Series:
    """Give a column of MLflow's texts its type: whole numbers, numbers, true and false, or text.

    >>> columns = ["16", None, "32"], ["0.001", "1e-05"], ["1", "0.5"], ["true", "false"], ["same", "3"], ["9" * 20]
    >>> [parse(pd.Series(texts)).tolist() for texts in columns]
    [[16, <NA>, 32], [0.001, 1e-05], [1.0, 0.5], [True, False], ['same', '3'], [99999999999999999999]]
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
        if (numbers.abs() > 2.0**62).any():
            return text.map(int, na_action="ignore")
        whole = pd.to_numeric(text).astype("Int64")
        return whole.astype("int64") if len(present) == len(text) else whole
    return pd.to_numeric(text).astype(float)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name] if name in frame.columns else pd.Series(None, frame.index, dtype=object)

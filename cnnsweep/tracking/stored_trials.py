"""Trials of earlier sweeps in the MLflow store: one to be trained again, or all of a sweep for `search.learn_from`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from cnnsweep.config.compose import flat
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.config.section import Plain
from cnnsweep.config.trust import Trusted, expect_trusted
from cnnsweep.data import loading
from cnnsweep.errors import UserError
from cnnsweep.search_space.problem import Problem
from cnnsweep.search_space.space import Parameter
from cnnsweep.tracking.credentials import shown
from cnnsweep.tracking.frames import read_results
from cnnsweep.tracking.locations import with_store_at
from cnnsweep.tracking.reader import open_reader, read_yaml
from cnnsweep.tracking.run_updates import ABSENT, text
from cnnsweep.tracking.store import connect, find_store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATA = "cnnsweep.data."
"""Begins the names of the tags that describe the data."""
KEPT = ("name", "seed", "backend", "task", "objective", "job", "data", "model", "training")
"""Keys that describe a network and its training; all others say where and how to run, and are today's."""


@dataclass(frozen=True)
class StoredTrial:
    """One trial of some sweep, with what the overrides change; its config's space is empty."""

    run: str
    uri: str
    config: Config
    seed: int
    values: Mapping[str, str]
    """The searched keys and those of the overrides, as text."""
    sweep: str
    name: str
    data: Mapping[str, str] = field(default_factory=dict)
    """`Dataset.facts` of what it was trained on, as text; empty where they are not known."""
    changes: Sequence[str] = ()
    """Settings of the data that the overrides changed: "data.image_size 64 → 224"."""
    job: Mapping[str, object] = field(default_factory=dict)
    """The values of keys of `job`, with their types."""

    def load_data(self) -> loading.Dataset:
        """Load the data of the config. Raises UserError where they are not those that the trial was trained on."""
        data = loading.load(self.config.data, self.config.seed, self.config.task)
        if self.data:
            loading.refuse_other(data, self.data, f"{self.name} of {self.sweep} was trained", self.changes)
        return data


def find_trial(run_id: str, config: Config, overrides: Sequence[str], trusted: Trusted) -> StoredTrial:
    """Find a trial's run in the store that a config names, with the overrides of this config put into the trial's own.

    Raises UserError where there is no such run, it is no trial, its config is gone, or it names code that is not
    trusted.
    """
    from mlflow.exceptions import MlflowException

    uri = find_store(config.tracking)
    try:
        run = connect(uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"there is no run '{run_id}' in the MLflow store {shown(uri)}") from error
    tags = run.data.tags
    if tags.get("cnnsweep.kind") not in ("trial", "train"):
        kind = tags.get("cnnsweep.kind", "no cnnsweep run")
        raise UserError(f"run '{run_id}' is no trial ({kind}); the report and the UI show the trials' run ids")
    stored = read_yaml(uri, run.info.artifact_uri)
    if not stored:
        raise UserError(f"run '{run_id}' has no config.yaml among its artifacts ({run.info.artifact_uri})")
    seed, sweep, name = int(tags["cnnsweep.seed"]), tags.get("cnnsweep.sweep", ""), run.info.run_name or run_id
    merged = _merge(stored, config, overrides)
    expect_trusted(f"the config of run '{run_id}'", merged, trusted)
    data, checked = _facts(connect(uri), tags), Config.from_plain(merged)
    values, job = _values(checked.plain(), run.data.params, _changed(overrides))
    changes = _changes(stored, checked.plain())
    return StoredTrial(run_id, uri, checked, seed, values, sweep, name, data, changes, job)


def read_earlier(config: Config, problem: Problem, objective: Objective) -> tuple[list[Plain], str]:
    """Return values and learning curve of each trial of the sweep that `search.learn_from` names, and a line to show.

    A key that is unknown, or whose value lies outside the present space, is omitted. Raises `UserError` where there
    is no such sweep or it has another objective.
    """
    try:
        results = read_results(open_reader(config.tracking), config.search.learn_from)
    except UserError as error:
        raise UserError(f"search.learn_from: {error}") from error
    ours, theirs = ([o.metric for o in goal.all] for goal in (objective, results.objective))
    if ours != theirs:
        both = f"{', '.join(theirs)}, and this one has {', '.join(ours)}"
        raise UserError(f"search.learn_from: {results.sweep.id} has another objective: {both}")
    curves, fixed = dict(iter(results.curves.groupby("trial"))), problem.config.plain()
    found: list[Plain] = []
    whole = unusable = 0
    searched = {name for p in problem.space.parameters for name in (p.name, p.key)}
    for _, row in results.trials.iterrows():
        curve = _curve(curves[row["trial"]], ours) if row["trial"] in curves else {}
        logged = {key: value for key in results.keys if not pd.isna(value := row[key])}
        earlier = {key: value.item() if hasattr(value, "item") else value for key, value in logged.items()}
        values, complete = _usable(problem, earlier, results.config)
        if not curve or row["status"] == "failed" or (not values and problem.space.parameters):
            unusable += 1
            continue
        others = {key: value for key, value in earlier.items() if not searched & {key, _without_block(key)}}
        same = all(_value_at(fixed, key) == value for key, value in others.items())
        whole += complete and same and problem.validate(values).fault is None
        found.append({"values": values, "curve": curve})
    counts = f"{whole} trials inside today's space, {len(found) - whole} of use in part, {unusable} of none"
    return found, f"learning from {results.sweep.id}: {counts}"


def _merge(stored: Mapping[str, Any], config: Config, overrides: Sequence[str]) -> Plain:
    """The stored description of a network in a plain config of today; the keys of the overrides are today's too.

    >>> from cnnsweep.config.compose import compose
    >>> merged = _merge({"seed": 1, "name": "old"}, compose(["seed=2"]), ["seed=2"])
    >>> merged["seed"], merged["name"]
    (2, 'old')
    """
    today = config.plain()
    if {"tracking", "data", "model"} <= stored.keys():
        stored = with_store_at(stored, config.tracking.dir)
    merged = {**today, "space": {}, **{key: stored[key] for key in KEPT if key in stored}}
    for *path, last in (key.split(".") for key in _changed(overrides)):
        source, target = today, merged
        for part in path:
            source, target[part] = source[part], dict(target.get(part) or {})
            target = target[part]
        target[last] = source[last]
    return merged


def _changed(overrides: Sequence[str]) -> list[str]:
    """The keys of the overrides that describe a network."""
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    return [key for key in keys if key.partition(".")[0] in KEPT]


def _values(
    config: Plain, logged: Mapping[str, str], changed: Sequence[str]
) -> tuple[dict[str, str], dict[str, object]]:
    """A trial's values as they were logged, with those of changed keys; and those of `job` with their types.

    >>> _values({"job": {"config": {"rate": 2, "l": 1}}}, {"job.config.l": "1"}, ["job.config.rate"])
    ({'job.config.l': '1', 'job.config.rate': '2'}, {'job.config.rate': 2, 'job.config.l': 1})
    """

    def is_changed(name: str) -> bool:
        return any(f"{name}.".startswith(f"{key}.") for key in changed)

    leaves = dict(flat(config))
    values = {name: value for name, value in logged.items() if not is_changed(name)}
    values |= {name: text(value) for name, value in leaves.items() if is_changed(name)}
    job = {name: leaves[name] for name in leaves if name.startswith("job.") and values.get(name, ABSENT) != ABSENT}
    return values, job


def _facts(client: MlflowClient, tags: Mapping[str, str]) -> dict[str, str]:
    """The facts of the data, among the tags of a run or of the sweep that it belongs to."""
    from mlflow.exceptions import MlflowException

    if DATA + "digest" not in tags and (parent := tags.get("mlflow.parentRunId")):
        try:
            tags = client.get_run(parent).data.tags
        except MlflowException:  # the run is gone from the store
            return {}
    found = {key.removeprefix(DATA): value for key, value in tags.items() if key.startswith(DATA)}
    return found if "digest" in found else {}


def _changes(stored: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """The settings of data and split that are not as they were."""
    before, after = (
        {key: text(value) for key, value in flat({"data": config["data"], "seed": config["seed"]})}
        for config in (stored, today)
    )
    relevant = [key for key in after if not key.startswith(("data.augment", "data.cache"))]
    return [f"{key} {before.get(key, ABSENT)} → {after[key]}" for key in relevant if before.get(key) != after[key]]


def _usable(
    problem: Problem, earlier: Mapping[str, object], config: Mapping[str, Any]
) -> tuple[dict[str, object], bool]:
    """An earlier trial's values that the present space allows, and whether there is one for each of its keys."""
    values: dict[str, object] = {}
    complete = True
    for p in problem.space.parameters:
        if all(name in values and values[name] in allowed for name, allowed in p.when):
            value = _earlier_value(p, earlier, config)
            if value is not None and p.allows(value):
                values[p.name] = p.typed(value)
            else:
                complete = False
    return values, complete


def _earlier_value(p: Parameter, earlier: Mapping[str, object], config: Mapping[str, object]) -> object:
    """An earlier trial's value of a key, which may have had one for all blocks, or for each; None where not known."""
    if p.name in earlier or p.key in earlier:
        return earlier.get(p.name, earlier.get(p.key))
    of_blocks = [value for name, value in earlier.items() if _without_block(name) == p.key]
    if of_blocks:
        return of_blocks[0] if p.block is None and len(set(of_blocks)) == 1 else None
    return _value_at(config, p.name)


def _without_block(name: str) -> str:
    head, _, tail = name.rpartition(".")
    return head if tail.isdigit() else name


def _curve(rows: pd.DataFrame, objectives: Sequence[str]) -> dict[str, dict[str, float]]:
    """The metrics by epoch."""
    known = [
        name
        for name in map(str, rows)
        if name in objectives or (name.removeprefix("val_") in rows and f"val_{name.removeprefix('val_')}" in rows)
    ]
    return {
        str(int(row["epoch"])): {name: float(row[name]) for name in known}
        for _, row in rows.iterrows()
        if math.isfinite(row[objectives[0]])
    }


def _value_at(config: Mapping[str, Any], name: str) -> object:
    """A key of the config; of a list with a value a block, the block's."""
    value: Any = config
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[min(int(part), len(value)) - 1]
        elif not part.isdigit():
            return None
    return None if isinstance(value, (Mapping, list)) else value

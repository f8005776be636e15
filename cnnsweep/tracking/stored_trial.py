"""A trial's own config, as it is logged with its run, made ready to be trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsweep.config.compose import check, compose
from cnnsweep.errors import UserError
from cnnsweep.tracking.frames import read_yaml
from cnnsweep.tracking.store import connect, find_store

KEPT = ("name", "seed", "backend", "objective", "data", "model", "training")
"""What describes a network and how it is trained; the rest says where and how to run, and comes from here and now."""


@dataclass(frozen=True)
class Chosen:
    """One trial of some sweep."""

    run: str
    uri: str
    config: Mapping[str, Any]
    """Checked; its space is empty."""
    seed: int
    values: Mapping[str, Any]
    """The searched keys, as text."""
    sweep: str
    name: str


def chosen(run_id: str, overrides: Sequence[str] = ()) -> Chosen:
    """Find a trial's run in the store that the overrides name, with the overrides put into its config.

    Raises UserError where there is no such run, it is no trial, or its config is gone.
    """
    from mlflow.exceptions import MlflowException

    composed = compose(list(overrides))
    uri = find_store(composed["tracking"])
    try:
        run = connect(uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"there is no run '{run_id}' in the MLflow store {uri}") from error
    tags = run.data.tags
    if tags.get("cnnsweep.kind") not in ("trial", "train"):
        kind = tags.get("cnnsweep.kind", "no cnnsweep run")
        raise UserError(f"run '{run_id}' is no trial ({kind}); the report and the UI show the trials' run ids")
    stored = read_yaml(uri, run_id, run.info.artifact_uri)
    if not stored:
        raise UserError(f"run '{run_id}' has no config.yaml among its artifacts ({run.info.artifact_uri})")
    config = merge(stored, composed, overrides)
    return Chosen(
        run_id,
        uri,
        config,
        int(tags["cnnsweep.seed"]),
        dict(run.data.params),
        tags.get("cnnsweep.sweep", ""),
        run.info.run_name or run_id,
    )


def merge(stored: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The stored description of a network, in a config of here and now; what the overrides name, they decide.

    >>> merge({"seed": 1, "model": {"blocks": 3}}, compose(["seed=2"]), ["seed=2"])["seed"]
    2
    """
    named = {o.lstrip("+").partition("=")[0] for o in overrides}
    config: dict[str, Any] = {**composed, "space": {}}
    for key in KEPT:
        if key not in stored or key in named:
            continue
        group = stored[key]
        if not isinstance(group, Mapping):
            config[key] = group
            continue
        config[key] = dict(group)
        for name in named:
            if name.startswith(f"{key}."):
                _copy(composed, config, name.split("."))
    return check(config)


def _copy(source: Mapping[str, Any], target: dict[str, Any], path: Sequence[str]) -> None:
    for part in path[:-1]:
        source, target[part] = source[part], dict(target[part])
        target = target[part]
    target[path[-1]] = source[path[-1]]

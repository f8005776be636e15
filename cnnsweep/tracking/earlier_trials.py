"""`search.learn_from`: the trials of an earlier sweep in the MLflow store, as far as today's space can use them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import METRICS
from cnnsweep.errors import UserError
from cnnsweep.search_space.problem import Problem
from cnnsweep.tracking.frames import Results
from cnnsweep.tracking.reader import find_sweep, open_reader


def earlier(config: Mapping[str, Any], problem: Problem, objective: Objective) -> tuple[list[dict[str, Any]], str]:
    """The trials of the sweep that `search.learn_from` names, values and learning curve of each, and a line to say.

    A key whose value lies outside today's space, or that is not known, is left away. Raises `UserError` where there is
    no such sweep or it has another objective.
    """
    wanted = config["search"]["learn_from"]
    reader = open_reader(config["tracking"])
    try:
        sweep = find_sweep(reader, wanted)
    except UserError as error:
        raise UserError(f"search.learn_from: {error}") from error
    results = Results(reader, sweep, reader.rows(sweep))
    ours, theirs = ([o.metric for o in goal.all] for goal in (objective, results.objective))
    if ours != theirs:
        both = f"{', '.join(theirs)}, and this one has {', '.join(ours)}"
        raise UserError(f"search.learn_from: {sweep.id} has another objective: {both}")
    curves = dict(iter(results.curves.groupby("trial")))
    found, whole, unusable = [], 0, 0
    for _, row in results.trials.iterrows():
        curve = _curve(curves.get(row["trial"]), objective.metric)
        values, complete = _values(problem, results, row)
        if not curve or row["status"] == "failed" or (not values and problem.space.parameters):
            unusable += 1
            continue
        whole += complete
        found.append({"values": values, "curve": curve})
    part = len(found) - whole
    told = f"learning from {sweep.id}: {whole} trials inside today's space, {part} of use in part, {unusable} of none"
    return found, told


def _values(problem: Problem, results: Results, row: pd.Series) -> tuple[dict[str, Any], bool]:
    """The values of today's keys, and whether that is the whole configuration, and a valid one."""
    theirs = {key: _plain(row[key]) for key in results.keys if _is_there(row[key])}
    values: dict[str, Any] = {}
    missing = False
    for p in problem.space.parameters:
        if not all(name in values and values[name] in allowed for name, allowed in p.when):
            continue
        value = theirs[p.name] if p.name in theirs else _fixed(results.config, p.name)
        if value is not None and p.allows(value):
            values[p.name] = p.typed(value)
        else:
            missing = True
    same = all(
        _fixed(problem.config, key) == value for key, value in theirs.items() if key not in problem.space.by_name
    )
    return values, not missing and same and problem.judge(values).fault is None


def _curve(rows: pd.DataFrame | None, metric: str) -> dict[str, dict[str, float]]:
    if rows is None:
        return {}
    known = [name for name in METRICS if name in rows]
    return {
        str(int(row["epoch"])): {name: float(row[name]) for name in known}
        for _, row in rows.iterrows()
        if math.isfinite(row[metric])
    }


def _fixed(config: Mapping[str, Any], name: str) -> Any:
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


def _is_there(value: Any) -> bool:
    return value is not None and not pd.isna(value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value

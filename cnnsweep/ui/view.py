"""A sweep's own view in MLflow's UI: the columns and the charts that a newcomer would have to choose.

It is what MLflow keeps of a view that somebody has saved: a tag of the experiment, opened by its key in the address.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.search_space.space import Parameter, read

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TAG = "mlflow.sharedViewState."
MOST = 5000
"""Characters that a tag of an experiment holds."""
MOST_AXES = 8
SECTION = "sweep"


def filter_of(sweep: str | None) -> str:
    """What finds a sweep's trials, or those of all sweeps."""
    wanted = "tags.`cnnsweep.kind` = 'trial'"
    return wanted if sweep is None else f"{wanted} AND tags.`cnnsweep.sweep` = '{sweep}'"


def save(client: MlflowClient, experiment: str, sweep: str, config: Mapping[str, Any]) -> str | None:
    """Save a sweep's view and return its key; None where the store does not take it or the config is unknown.

    Saving it again replaces it.
    """
    from mlflow.exceptions import MlflowException

    try:
        parameters = read(config).parameters
    except (UserError, KeyError):
        return None
    shown = state(sweep, parameters, Objective.of(config["objective"]))
    packed = base64.b64encode(zlib.compress(json.dumps(shown).encode(), 9)).decode()
    view = {"name": sweep, "createdAt": round(time.time() * 1000), "state": f"deflate;{packed}"}
    if len(text := json.dumps(view)) > MOST:
        return None
    try:
        client.set_experiment_tag(experiment, f"{TAG}{sweep}", text)
    except MlflowException:
        return None
    return sweep


def state(sweep: str, parameters: Sequence[Parameter], objective: Objective) -> dict[str, Any]:
    """The view: best first; the objective, the searched keys and the costs as columns; and charts of these."""
    best = f"best_{objective.metric}"
    searched = [p.name for p in parameters]
    metrics = [f"metrics.`{name}`" for name in (best, "parameters", "mmacs")]
    return {
        "searchFilter": filter_of(sweep),
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": objective.direction == "min",
        "selectedColumns": [metrics[0], *(f"params.`{name}`" for name in searched), *metrics[1:]],
        "runsHiddenMode": "SHOW_ALL",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [_section()],
        "isAccordionReordered": True,
        "compareRunCharts": _charts(parameters, objective.metric, best),
    }


def _section() -> dict[str, Any]:
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": SECTION, "name": "The sweep", "columns": 2, "cardHeight": 380, **shown}


def _charts(parameters: Sequence[Parameter], metric: str, best: str) -> list[dict[str, Any]]:
    value = _axis("METRIC", best)
    curves = {"metricKey": metric, "selectedMetricKeys": [metric], "lineSmoothness": 0, "useGlobalXaxisKey": True}
    charts: list[dict[str, Any]] = [{"type": "LINE", **curves, "useGlobalLineSmoothing": False, "xAxisKey": "step"}]
    charts.append({"type": "SCATTER", "xaxis": _axis("METRIC", "parameters"), "yaxis": value})
    # The value of a network without the setting, `none`, would make its axis one of texts.
    always = sorted((p for p in parameters if not p.when), key=lambda p: p.grid is not None)
    if always:
        shown = [p.name for p in always[:MOST_AXES]]
        charts.append({"type": "PARALLEL", "selectedParams": shown, "selectedMetrics": [best], "showAllRuns": True})
    ranges = [p.name for p in always if _is_numeric(p)]
    if len(ranges) > 1:
        across, up = (_axis("PARAM", name) for name in ranges[:2])
        charts.append({"type": "CONTOUR", "xaxis": across, "yaxis": up, "zaxis": value})
    common = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return [{"uuid": f"{SECTION}-{n}", **common, **chart} for n, chart in enumerate(charts, start=1)]


def _axis(kind: str, key: str) -> dict[str, str]:
    return {"key": key, "type": kind}


def _is_numeric(parameter: Parameter) -> bool:
    """Whether it is a range, or has numbers to choose from that make up one."""
    numbers = parameter.choices is None or all(type(c) in (int, float) for c in parameter.choices)
    return numbers and (parameter.choices is None or len(parameter.choices) > 2)

"""A sweep's own view in MLflow's UI: the columns and charts that a newcomer would have to choose.

It is stored like a view that a user has saved: in a tag of the experiment, opened by its key in the address.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.journal.events import Plain
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.space import Parameter

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TAG = "mlflow.sharedViewState."
MAX_TAG = 5000
"""Characters that a tag of an experiment holds."""
MAX_AXES = 8
SECTION = "sweep"
Json = dict[str, object]


def filter_of(sweep: str | None) -> str:
    """The filter for a sweep's trials, or for those of all sweeps."""
    trials = "tags.`cnnsweep.kind` = 'trial'"
    return trials if sweep is None else f"{trials} AND tags.`cnnsweep.sweep` = '{sweep}'"


def save(client: MlflowClient, experiment: str, sweep: str, config: Plain) -> str | None:
    """Save a sweep's view and return its key; None where the store refuses it or the plain config is incomplete.

    Saving it again replaces it.
    """
    from mlflow.exceptions import MlflowException

    try:
        parameters = parse_space(Config.from_plain(config)).parameters
    except UserError:
        return None
    shown = state(sweep, parameters, Objective.of(config["objective"]))
    packed = base64.b64encode(zlib.compress(json.dumps(shown).encode(), 9)).decode()
    view = json.dumps({"name": sweep, "createdAt": round(time.time() * 1000), "state": f"deflate;{packed}"})
    if len(view) > MAX_TAG:
        return None
    try:
        client.set_experiment_tag(experiment, f"{TAG}{sweep}", view)
    except MlflowException:
        return None
    return sweep


def state(sweep: str, parameters: Sequence[Parameter], objective: Objective) -> Json:
    """The view: best first; the objective, the searched keys and the costs as columns; and charts of these."""
    best = f"best_{objective.metric}"
    others = [f"best_{metric}" for metric in objective.metrics[1:]]
    metrics = [f"metrics.`{name}`" for name in (best, *others, "parameters", "mmacs")]
    section = {"uuid": SECTION, "name": "The sweep", "columns": 2, "cardHeight": 380, "display": True}
    return {
        "searchFilter": filter_of(sweep),
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": objective.direction == "min",
        "selectedColumns": [metrics[0], *(f"params.`{p.name}`" for p in parameters), *metrics[1:]],
        "runsHiddenMode": "SHOW_ALL",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [{**section, "isReordered": True, "deleted": False, "isGenerated": False}],
        "isAccordionReordered": True,
        "compareRunCharts": _charts(parameters, objective.metric, best, others),
    }


def _charts(parameters: Sequence[Parameter], metric: str, best: str, others: Sequence[str]) -> list[Json]:
    value = _axis("METRIC", best)
    curves = {"metricKey": metric, "selectedMetricKeys": [metric], "lineSmoothness": 0, "useGlobalXaxisKey": True}
    charts: list[Json] = [{"type": "LINE", **curves, "useGlobalLineSmoothing": False, "xAxisKey": "step"}]
    for key in (*others, "parameters"):
        charts.append({"type": "SCATTER", "xaxis": _axis("METRIC", key), "yaxis": value})
    # The value of a network without the setting, `none`, would make its axis one of texts.
    always = sorted((p for p in parameters if not p.when), key=lambda p: p.grid is not None)
    if always:
        names = [p.name for p in always[:MAX_AXES]]
        charts.append({"type": "PARALLEL", "selectedParams": names, "selectedMetrics": [best], "showAllRuns": True})
    ranges = [p.name for p in always if _is_numeric(p)]
    if len(ranges) > 1:
        across, up = (_axis("PARAM", name) for name in ranges[:2])
        charts.append({"type": "CONTOUR", "xaxis": across, "yaxis": up, "zaxis": value})
    common = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return [{"uuid": f"{SECTION}-{n}", **common, **chart} for n, chart in enumerate(charts, start=1)]


def _axis(kind: str, key: str) -> dict[str, str]:
    return {"key": key, "type": kind}


def _is_numeric(parameter: Parameter) -> bool:
    """True for a range, and for three or more numbers to choose from."""
    choices = parameter.choices
    return choices is None or (len(choices) > 2 and all(type(c) in (int, float) for c in choices))

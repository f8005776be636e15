"""A sweep's saved view in MLflow's UI."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.search_space.space import read
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.ui import view


@pytest.fixture(scope="module")
def fashion() -> dict[str, Any]:
    return compose(["+sweep=fashion", "space=cnn"])


def test_columns_carry_the_objective_and_every_searched_key(fashion: dict[str, Any]) -> None:
    parameters = read(fashion).parameters
    columns = view.state("fashion-1", parameters, Objective.of("val_accuracy"))["selectedColumns"]
    assert columns[0] == "metrics.`best_val_accuracy`"
    assert {f"params.`{p.name}`" for p in parameters} < set(columns)


def test_trials_stand_best_first(fashion: dict[str, Any]) -> None:
    for metric, rising in (("val_accuracy", False), ("val_loss", True)):
        shown = view.state("fashion-1", read(fashion).parameters, Objective.of(metric))
        assert (shown["orderByKey"], shown["orderByAsc"]) == (f"metrics.`best_{metric}`", rising)
        assert "'fashion-1'" in shown["searchFilter"]


def test_no_axis_is_of_a_setting_that_some_networks_do_not_have(fashion: dict[str, Any]) -> None:
    parameters = read(fashion).parameters
    sometimes = {p.name for p in parameters if p.when}
    charts = view.state("fashion-1", parameters, Objective.of("val_accuracy"))["compareRunCharts"]
    by_type = {chart["type"]: chart for chart in charts}
    assert sometimes
    assert not sometimes & set(by_type["PARALLEL"]["selectedParams"])
    assert [by_type["CONTOUR"][axis]["key"] for axis in ("xaxis", "yaxis")] == [
        "model.dropout",
        "training.learning_rate",
    ]


def test_nothing_searched_is_no_reason_to_fail() -> None:
    charts = view.state("one-1", (), Objective.of("val_accuracy"))["compareRunCharts"]
    assert [chart["type"] for chart in charts] == ["LINE", "SCATTER"]


def test_it_is_kept_as_mlflow_keeps_saved_views(fashion: dict[str, Any], tmp_path: Path) -> None:
    tracking = {"uri": None, "dir": str(tmp_path), "experiment": "tests"}
    client = connect(open_store(tracking))
    experiment = client.get_experiment_by_name("tests").experiment_id
    for _ in range(2):
        assert view.save(client, experiment, "fashion-1", fashion) == "fashion-1"
    (text,) = [v for k, v in client.get_experiment(experiment).tags.items() if k == "mlflow.sharedViewState.fashion-1"]
    kept = json.loads(text)
    assert (kept["name"], len(text) < 5000) == ("fashion-1", True)
    state = json.loads(zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;"))))
    assert state["runsHiddenMode"] == "SHOW_ALL"


def test_a_config_that_is_gone_leaves_no_view(tmp_path: Path) -> None:
    tracking = {"uri": None, "dir": str(tmp_path), "experiment": "tests"}
    client = connect(open_store(tracking))
    assert view.save(client, "1", "fashion-1", {"objective": "val_accuracy"}) is None

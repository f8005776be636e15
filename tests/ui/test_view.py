"""A sweep's saved view in MLflow's UI."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from tracked_sweeps import settings

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.ui import view


@pytest.fixture(scope="module")
def fashion() -> Config:
    return compose(["+sweep=fashion", "space=cnn"])


@pytest.mark.parametrize(("metric", "rising"), [("val_accuracy", False), ("val_loss", True)])
def test_it_shows_the_objective_and_every_searched_key_best_first(fashion: Config, metric: str, rising: bool) -> None:
    parameters = parse_space(fashion).parameters
    shown = view.state("fashion-1", parameters, Objective.of(metric))
    assert (shown["orderByKey"], shown["orderByAsc"]) == (f"metrics.`best_{metric}`", rising)
    assert "'fashion-1'" in shown["searchFilter"]
    assert shown["selectedColumns"][0] == f"metrics.`best_{metric}`"
    assert {f"params.`{p.name}`" for p in parameters} < set(shown["selectedColumns"])


def test_axes_are_of_settings_that_all_networks_have(fashion: Config) -> None:
    parameters = parse_space(fashion).parameters
    sometimes = {p.name for p in parameters if p.when}
    charts = view.state("fashion-1", parameters, Objective.of("val_accuracy"))["compareRunCharts"]
    by_type = {chart["type"]: chart for chart in charts}
    assert sometimes
    assert not sometimes & set(by_type["PARALLEL"]["selectedParams"])
    axes = [by_type["CONTOUR"][axis]["key"] for axis in ("xaxis", "yaxis")]
    assert axes == ["model.dropout", "training.learning_rate"]


def test_a_sweep_without_searched_keys() -> None:
    charts = view.state("one-1", (), Objective.of("val_accuracy"))["compareRunCharts"]
    assert [chart["type"] for chart in charts] == ["LINE", "SCATTER"]


def test_it_is_stored_like_mlflows_saved_views(fashion: Config, tmp_path: Path) -> None:
    client = connect(open_store(settings(tmp_path)))
    experiment = client.get_experiment_by_name("tests").experiment_id
    for _ in range(2):
        assert view.save(client, experiment, "fashion-1", fashion.plain()) == "fashion-1"
    (text,) = [v for k, v in client.get_experiment(experiment).tags.items() if k == "mlflow.sharedViewState.fashion-1"]
    kept = json.loads(text)
    assert (kept["name"], len(text) < 5000) == ("fashion-1", True)
    state = json.loads(zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;"))))
    assert state["runsHiddenMode"] == "SHOW_ALL"


def test_without_a_config_there_is_no_view(tmp_path: Path) -> None:
    client = connect(open_store(settings(tmp_path)))
    assert view.save(client, "1", "fashion-1", {"objective": "val_accuracy"}) is None


def test_a_second_metric_is_a_column_and_an_axis() -> None:
    shown = view.state("two", [], Objective.of(["val_recall", "val_loss", "parameters"]))
    expected = ["metrics.`best_val_recall`", "metrics.`best_val_loss`", "metrics.`parameters`"]
    assert shown["selectedColumns"][:3] == expected
    axes = [chart["xaxis"]["key"] for chart in shown["compareRunCharts"] if "xaxis" in chart]
    assert axes == ["best_val_loss", "parameters"]

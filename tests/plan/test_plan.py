"""The plan of a sweep, and the forecasts in it and in the sweep."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from cnnsweep.cli import main
from cnnsweep.config.compose import compose
from cnnsweep.data import loading
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.journal.events import TrialEnded
from cnnsweep.journal.journal import read
from cnnsweep.plan import calibration, description, view
from cnnsweep.plan.description import SearchDescription, describe_space
from cnnsweep.plan.plan import Plan
from cnnsweep.search_space.problem import make_problem
from cnnsweep.search_space.stages import Uncountable
from cnnsweep.sweep import session
from cnnsweep.trial import EpochReport, TrialResult

QUIET = ["tracking.dir=runs", "executor=inline", "+sweep=smoke"]


def test_a_plan_counts_and_shows_the_space_in_100_columns() -> None:
    space = describe_space(make_problem(compose(["+sweep=fashion"]), (28, 28, 1), 10))
    assert set(space.networks) == {"smallest", "median", "largest"}
    sizes = [space.networks[kind].parameters for kind in ("smallest", "median", "largest")]
    assert sizes == sorted(sizes)
    assert sizes[2] <= 1_000_000
    assert space.counts.exact
    assert space.counts.networks <= space.counts.trials <= space.counts.valid
    console = Console(width=200, record=True, force_terminal=False)
    search = SearchDescription(3, 3, 9, 9_000, "now", {}, 1.0)
    view.show(Plan(**vars(space), name="x", input_shape=(28, 28, 1), search=search), console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 100
    assert f"{space.counts.valid:,}" in shown
    assert "A dense layer from the input" in shown
    console = Console(width=70, record=True, force_terminal=False)
    view.show(Plan(**vars(space), name="x", input_shape=(28, 28, 1), search=search), console)
    table = console.export_text().partition("largest network")[2].partition("A dense layer")[0]
    largest = space.networks["largest"]
    assert f"{largest.parameters:,}" in table
    assert not re.search("…|multiply-ad[^d]", table), "numbers are cut, and not the bars"


def test_where_a_space_cannot_be_counted_all_configurations_are_alike_likely_in_the_estimate(monkeypatch) -> None:
    filters = "+space.model.filters={min: 1, max: 64, per_block: true}"
    config = compose(["space=none", "+space.model.blocks={min: 1, max: 3}", filters, "limits.parameters=30k"])
    problem = make_problem(config, (8, 8, 1), 10)
    exact = describe_space(problem).counts
    monkeypatch.setattr(description, "ValidConfigurations", Mock(side_effect=Uncountable))
    space = describe_space(problem)
    low, high = space.counts.interval
    console = Console(width=100, record=True, force_terminal=False)
    search = SearchDescription(3, 3, 9, 9_000, "now", {}, 1.0)
    view.show(Plan(**vars(space), name="x", input_shape=(8, 8, 1), search=search), console)
    assert "smallest network drawn" in console.export_text()
    assert low <= exact.valid <= high
    assert high < 2 * low
    assert sum(values["model.blocks"] == 3 for values in description._draw(problem, None)) > 0.9 * description.DRAWN


def test_a_small_space_is_listed_where_its_networks_cannot_be_counted() -> None:
    rate = "+space.training.learning_rate={min: 1e-4, max: 1e-2}"
    filters = "+space.model.filters={values: [4, 8], per_block: true}"
    config = compose(["task=segmentation", "data=mask_folder", "model=unet", "space=none", filters, rate])
    space = describe_space(make_problem(config, (8, 8, 1), 2))
    assert (space.counts.valid, space.counts.trials, space.counts.exact, space.drawn) == (4, 4, True, 4)
    values = [[*space.networks[kind].values.values()] for kind in ("smallest", "largest")]
    assert values == [[4, 4], [8, 8]]
    console = Console(width=100, record=True, force_terminal=False)
    search = SearchDescription(3, 3, 9, 9_000, "now", {}, 1.0)
    view.show(Plan(**vars(space), name="x", input_shape=(8, 8, 1), search=search), console)
    assert "all 4 valid configurations" in console.export_text()


def slow_job(spec: Any) -> Any:
    """Two epochs that take as long as they say."""
    for epoch in range(1, spec.epochs + 1):
        time.sleep(0.25)
        value = {"val_accuracy": 0.5, "loss": 1.0, "epoch_seconds": 0.25}
        if not (yield EpochReport(spec.number, epoch, value)):
            return TrialResult(spec.number, "pruned", None, epoch)
    return TrialResult(spec.number, "completed", None, spec.epochs)


def sweep(tmp_path: Path, *overrides: str) -> list[Any]:
    config = compose([*QUIET, f"tracking.dir={tmp_path / 'runs'}", *overrides])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnsweep.sweep.finish.test", lambda *_: None)
        outcome = session.start(config, session.Watcher(), job=slow_job)
    return list(read(outcome.folder / "journal.jsonl"))


@pytest.mark.slow
def test_every_trial_is_predicted_and_the_score_is_kept(tmp_path: Path) -> None:
    events = sweep(tmp_path, "budget.trials=6", "training.epochs=2")
    ends = [e.summary for e in events if isinstance(e, TrialEnded)]
    assert "predicted_seconds" not in ends[0]  # nothing was known
    assert all(0.5 < e["predicted_seconds"] / e["actual_seconds"] < 1.5 for e in ends[2:])
    assert events[-1].summary["forecast_trials"] == 5
    assert events[-1].summary["forecast_median_error"] < 0.5
    events = sweep(tmp_path, "budget.trials=2", "training.epochs=2")
    again = [e.summary for e in events if isinstance(e, TrialEnded)]
    assert "predicted_seconds" in again[0]  # the first sweep's measurements were kept


@pytest.mark.slow
def test_the_plan_command_measures_and_writes_json(tmp_path: Path, capfd: Any) -> None:
    overrides = [f"tracking.dir={tmp_path / 'runs'}", "+sweep=smoke", "executor.workers=2"]
    overrides += ["budget.replicates=100", "budget.finalists=1"]
    assert main(["plan", *overrides, "--json", str(tmp_path / "plan.json")]) == 0
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["search"]["trials"] == 3
    assert report["search"]["images"] == 3 * 2 * 320
    assert 1 < (search := report["forecast"]["search_seconds"]) < 120
    assert report["forecast"]["seconds"] - search > 30 * report["forecast"]["trial_seconds"]["median"], "replicates"
    assert 100 < report["forecast"]["memory_mb"] < 8_000
    assert "wall time" in capfd.readouterr().out
    assert not list((tmp_path / "runs").glob("sweeps/*"))


def test_configurations_that_cannot_be_measured_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: Any) -> Any:
        raise MemoryError("no room")
        yield

    monkeypatch.setattr(calibration, "measure_sample", measure)
    config = compose(["+sweep=smoke", "training.precision=float32"])
    data = loading.load(config.data, 0)
    loading.save(data, tmp_path / "data")
    problem = make_problem(config, data.input_shape, data.classes)
    found = calibration.calibrate(problem, InlineExecutor("none"), tmp_path / "data")
    assert found.missing == "8 of 8 configurations could not be measured: MemoryError: no room"


def test_the_plan_of_a_fixed_configuration_is_its_layer_table(capfd: Any) -> None:
    assert main(["plan", "space=none", "model.blocks=1", "model.filters=5", "budget.trials=1", "--no-forecast"]) == 0
    shown = capfd.readouterr().out
    assert "block1 conv" in shown
    assert "8×8×5" in shown
    assert "smallest" not in shown


def test_a_plan_counts_the_examples_of_small_epochs(capfd: Any, tmp_path: Path) -> None:
    overrides = ["+sweep=smoke", "training.epoch_size=100", "--no-forecast", "--json", str(tmp_path / "plan.json")]
    assert main(["plan", *overrides]) == 0
    assert json.loads((tmp_path / "plan.json").read_text())["search"]["images"] == 3 * 2 * 100


def test_a_plan_counts_what_all_folds_train_and_keep(tmp_path: Path) -> None:
    def planned(*overrides: str) -> Any:
        path = tmp_path / "plan.json"
        assert main(["plan", "+sweep=smoke", *overrides, "--no-forecast", "--json", str(path)]) == 0
        return json.loads(path.read_text())["search"]

    one, four = planned(), planned("data.folds=4")
    assert four["images"] == 3 * 2 * 4 * 300
    assert four["disk_mb"] > 2 * one["disk_mb"], "each fold keeps checkpoints"
    assert planned("data.folds=4", "training.epoch_size=100")["images"] == 3 * 2 * 4 * 100


def test_a_plan_has_the_trainings_of_finalists_with_other_seeds(capfd: Any) -> None:
    assert main(["plan", "+sweep=smoke", "budget.replicates=3", "budget.finalists=2", "--no-forecast"]) == 0
    assert "then 6 trainings of finalists" in " ".join(capfd.readouterr().out.split())

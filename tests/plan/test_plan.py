"""The plan, the forecast and what the sweep does with them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cnnsweep.cli import main
from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.journal.journal import read
from cnnsweep.plan import view as plan_view
from cnnsweep.plan.description import describe_space
from cnnsweep.plan.simulation import Simulation
from cnnsweep.search.search import build
from cnnsweep.search_space.counting import lattice
from cnnsweep.search_space.problem import Problem, pose
from cnnsweep.search_space.space import apply
from cnnsweep.sweep import session
from cnnsweep.training.cost_model import TYPICAL, Forecaster, amounts_of
from cnnsweep.training.pricing import Pricer
from cnnsweep.trial import EpochReport, TrialResult

DIGITS = (8, 8, 1)
QUIET = ["tracking.dir=runs", "executor=inline", "+sweep=smoke"]


def posed(*overrides: str, shape: Any = (28, 28, 1)) -> Problem:
    return pose(compose(overrides), shape, 10)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["space=none", "model.kernel_size=-3"], ["model.kernel_size: block 1's value is -3", "block1_conv    fails"]),
        (["space.model.stride.values=[1,0]"], ["model.stride: block 1's value is 0", "block1_conv    fails"]),
        (
            ["space.model.pool_size.values=[2,-2]"],
            ["model.pool_size: block 1's value is -2", "block1_conv ", "block1_pool           fails"],
        ),
        (["model.filters=[8,16]"], ["model.filters: 2 values [8, 16] for model.blocks="]),
        (["limits.parameters=2 MB"], ["limits.parameters: '2 MB' is no positive number"]),
        (["limits.parameters=100"], ["limits.parameters: 100 rules out", "the least is 2,250 parameters", "total"]),
        (
            ["limits.parameters=2300", "limits.mmacs=0.05"],
            ["limits.parameters=2,300 and limits.mmacs=0.05 together", "least is 0.096304 million"],
        ),
        (["space=none", "model.kernel_size=31", "model.padding=valid"], ["31×31 kernel is larger", "28×28×1"]),
        (["model.kernel_size=31", "model.padding=valid"], ["no configuration of the space can be built", "31×31"]),
    ],
)
def test_bad_input_is_an_error_that_names_the_key_and_shows_the_layers(overrides: list[str], told: list[str]) -> None:
    with pytest.raises(UserError) as error:
        posed(*overrides)
    for words in told:
        assert words in str(error.value)


def test_a_space_with_a_few_members_among_millions_finds_all_of_them() -> None:
    p = posed("space.model.dropout=null", "space.training=null", "limits.parameters=2300", "space.model.blocks.max=4")
    found = lattice(p)
    assert found is not None
    assert (p.space.size, 1 <= found.valid <= 20) == (41544000, True)
    search = build(
        {**p.config, "budget": {"trials": None, "minutes": 9.0, "epochs": None}}, p, Objective.of("val_loss")
    )
    proposed = []
    while not isinstance(proposal := search.ask("a"), str):
        proposed.append(p.judge(proposal.values))
        search.end(proposal.id, succeeded=False)
    assert all(verdict.fault is None for verdict in proposed)
    signatures = {p.judge(found.complete(t, v, np.random.default_rng(0))).signature for t, v in found.members()}
    assert {verdict.signature for verdict in proposed} == signatures
    assert len(proposed) == len(signatures)


@pytest.mark.parametrize("value", [-3, 0])
def test_a_value_that_no_layer_can_have_is_refused_among_good_ones(value: int) -> None:
    with pytest.raises(UserError, match=rf"model.kernel_size: block \d's value is {value}, not a positive"):
        posed(f"space.model.kernel_size.values=[3,5,{value}]")


def measured(seed: int, count: int) -> list[tuple[dict[str, float], float]]:
    """Epochs on a machine three times slower than the typical one, where pooling is far dearer than usual."""
    p = posed("space.model.dropout=null", "limits.mmacs=10")
    rng = np.random.default_rng(seed)
    prices = {name: 3 * price for name, price in TYPICAL.items()} | {"max pooled": 2e-8}
    found: list[tuple[dict[str, float], float]] = []
    while len(found) < count:
        values = p.space.draw(rng)
        verdict = p.judge(values)
        if verdict.fault is None:
            amounts = amounts_of(verdict.network, apply(p.config, values), 10_000, 1_000)
            seconds = sum(prices.get(name, 0.0) * amount for name, amount in amounts.items())
            found.append((amounts, seconds * float(rng.lognormal(0, 0.05))))
    return found


def test_a_forecast_learns_a_machine_from_a_handful_of_epochs() -> None:
    forecaster = Forecaster()
    before = [abs(forecaster.epoch(a) - s) / s for a, s in measured(1, 40)]
    for amounts, seconds in measured(2, 30):
        forecaster.learn(amounts, seconds)
    after = [abs(forecaster.epoch(a) - s) / s for a, s in measured(1, 40)]
    assert np.median(before) > 0.5
    assert np.median(after) < 0.1


def test_measurements_are_kept_for_the_same_machine_only(tmp_path: Path) -> None:
    forecaster = Forecaster()
    forecaster.learn({"epoch": 1.0, "step": 10.0}, 2.0)
    forecaster.starts.append(0.7)
    forecaster.save(tmp_path / "forecast.json", "here")
    assert Forecaster.load(tmp_path / "forecast.json", "here").prices == pytest.approx(forecaster.prices)
    assert not Forecaster.load(tmp_path / "forecast.json", "elsewhere").measured
    (tmp_path / "forecast.json").write_text("{")
    assert not Forecaster.load(tmp_path / "forecast.json", "here").measured


@pytest.mark.parametrize("search", ["random", "hyperband"])
def test_a_simulated_sweep_spends_its_budget_like_the_search_does(search: str) -> None:
    p = posed(f"search={search}", "budget.trials=9", "training.epochs=9", shape=DIGITS)
    played = Simulation(
        p, build(p.config, p, Objective.of("val_accuracy")), ("a", "b"), Forecaster(), (1_000, 100)
    ).run()
    trials = {run.number for run in played.runs}
    assert len(trials) == 9
    if search == "random":
        assert (len(played.runs), sum(run.epochs for run in played.runs)) == (9, 81)
        total = sum(run.seconds for run in played.runs)
        assert total / 2 <= played.seconds <= total
    else:
        assert len(played.runs) > 9  # some are promoted
        assert sum(run.epochs for run in played.runs) < 81


def test_a_simulated_trial_ends_at_the_rung_where_the_search_stops_it() -> None:
    p = posed("search=asha", "search.variant=stopping", "budget.trials=30", "training.epochs=9", shape=DIGITS)
    search, forecaster = build(p.config, p, Objective.of("val_accuracy")), Forecaster()
    played = Simulation(p, search, ("a", "b"), forecaster, (1_000, 100)).run()
    assert len(played.runs) == len({run.number for run in played.runs}) == 30
    lengths = [run.epochs for run in played.runs]
    assert set(lengths) == {1, 3, 9}
    assert lengths.count(1) >= 15, "about two in three go no further than the first rung"
    for run in played.runs:
        amounts = amounts_of(p.judge(run.values).network, apply(p.config, run.values), 1_000, 100)
        assert run.seconds == pytest.approx(forecaster.trial(amounts, run.epochs))
    total = sum(run.seconds for run in played.runs)
    assert total / 2 <= played.seconds <= total


def test_a_plan_counts_and_shows_the_space_in_100_columns() -> None:
    p = posed("+sweep=fashion")
    report: dict[str, Any] = {"name": "x", **describe_space(p)}
    assert set(report["networks"]) == {"smallest", "median", "largest"}
    sizes = [report["networks"][kind]["parameters"] for kind in ("smallest", "median", "largest")]
    assert sizes == sorted(sizes)
    assert sizes[2] <= 1_000_000
    assert report["counts"]["exact"]
    assert report["counts"]["networks"] <= report["counts"]["trials"] <= report["counts"]["valid"]
    console = Console(width=200, record=True, force_terminal=False)
    run = {"trials": 3, "runs": 3, "epochs": 9, "images": 9_000, "ends": "now"}
    plan_view.show(report | {"search": run}, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 100
    assert f"{report['counts']['valid']:,}" in shown
    assert "A dense layer from the input" in shown


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
        patch.setattr("cnnsweep.sweep.loop.Sweep._evaluate", lambda *_: None)
        outcome = session.start(config, session.Watcher(), job=slow_job)
    return list(read(outcome.folder / "journal.jsonl"))


@pytest.mark.slow
def test_every_trial_is_predicted_and_the_score_is_kept(tmp_path: Path) -> None:
    events = sweep(tmp_path, "budget.trials=6", "training.epochs=2")
    ends = [e["summary"] for e in events if e["event"] == "end"]
    assert "predicted_seconds" not in ends[0]  # nothing was known
    assert all(0.5 < e["predicted_seconds"] / e["actual_seconds"] < 1.5 for e in ends[2:])
    assert events[-1]["summary"]["forecast_trials"] == 5
    assert events[-1]["summary"]["forecast_median_error"] < 0.5
    again = [e["summary"] for e in sweep(tmp_path, "budget.trials=2", "training.epochs=2") if e["event"] == "end"]
    assert "predicted_seconds" in again[0]  # the first sweep's measurements were kept


@pytest.mark.slow
def test_a_trial_that_would_not_end_in_time_is_not_started(tmp_path: Path) -> None:
    # Trials of two seconds in five: after the second there is half the time that the third would take.
    events = sweep(tmp_path, "budget={trials: null, minutes: 0.084}", "training.epochs=8")
    assert "the next trial would take" in events[-1]["reason"]
    assert {e["status"] for e in events if e["event"] == "end"} == {"completed"}
    assert 1 <= len([e for e in events if e["event"] == "end"]) <= 2


@pytest.mark.slow
def test_the_plan_command_measures_and_writes_json(tmp_path: Path, capfd: Any) -> None:
    overrides = [f"tracking.dir={tmp_path / 'runs'}", "+sweep=smoke", "executor.workers=2"]
    assert main(["plan", *overrides, "--json", str(tmp_path / "plan.json")]) == 0
    report = json.loads((tmp_path / "plan.json").read_text())
    assert report["search"]["trials"] == 3
    assert report["search"]["images"] == 3 * 2 * 320
    assert 1 < report["forecast"]["seconds"] < 120
    assert 100 < report["forecast"]["memory_mb"] < 8_000
    assert "wall time" in capfd.readouterr().out
    assert not list((tmp_path / "runs").glob("sweeps/*"))


def test_the_plan_of_a_fixed_configuration_is_its_layer_table(capfd: Any) -> None:
    assert main(["plan", "space=none", "model.blocks=1", "model.filters=5", "budget.trials=1", "--no-forecast"]) == 0
    shown = capfd.readouterr().out
    assert "block1 conv" in shown
    assert "8×8×5" in shown
    assert "smallest" not in shown


def test_a_pricer_compares_only_the_epochs_that_ran() -> None:
    p = posed(shape=DIGITS)
    pricer = Pricer(p, Forecaster(), (1_000, 100))
    values = p.space.draw(np.random.default_rng(0))
    pricer.start(1, values)
    pricer.epoch(1, 2.0)
    pricer.epoch(1, 1.0)
    assert pricer.end(1, 3.5) == {"actual_seconds": 3.5}
    pricer.start(2, values)
    pricer.epoch(2, 2.0)
    told = pricer.end(2, 2.5)
    assert told["predicted_seconds"] == pytest.approx(2.5, rel=0.3)
    assert pricer.summary()["forecast_trials"] == 1

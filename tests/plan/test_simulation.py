"""The executor on a virtual clock, and sweeps on it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.plan.simulation import After, Simulation, VirtualExecutor
from cnnsweep.search.registry import build
from cnnsweep.search_space.problem import Problem, make_problem
from cnnsweep.training.cost_model import Forecaster, amounts_of


def job(seconds: float) -> Generator[After, bool, str]:
    for epoch in (1, 2, 3):
        if not (yield After(seconds, epoch)):
            return f"stopped after {epoch}"
    return "done"


@pytest.fixture
def executor() -> VirtualExecutor:
    executor = VirtualExecutor(["slow", "fast"])
    executor.submit("slow", job, 5.0)
    executor.submit("fast", job, 2.0)
    return executor


def play(executor: VirtualExecutor) -> list[tuple[float, str, Any]]:
    found = []
    while (event := executor.wait()) is not None:
        found.append((executor.now(), event.worker, event.value))
        event.answer(not (event.worker == "slow" and event.value == 2))
    return found


def test_events_come_in_the_order_of_the_clock(executor: VirtualExecutor) -> None:
    fast = [(2.0, "fast", 1), (4.0, "fast", 2), (6.0, "fast", 3), (6.0, "fast", "done")]
    slow = [(5.0, "slow", 1), (10.0, "slow", 2), (10.0, "slow", "stopped after 2")]
    assert play(executor) == sorted([*fast, *slow], key=lambda event: event[0])


def test_waiting_moves_the_clock_no_further_than_the_timeout(executor: VirtualExecutor) -> None:
    assert executor.wait(0.0) is None
    assert executor.wait(1.5) is None
    assert executor.now() == 1.5
    event = executor.wait(100.0)
    assert event is not None
    assert (executor.now(), event.worker) == (2.0, "fast")


def test_a_killed_job_is_lost_at_once(executor: VirtualExecutor) -> None:
    executor.kill("slow", "too long")
    event = executor.wait()
    assert event is not None
    assert (executor.now(), event.worker, event.kind, event.value) == (0.0, "slow", "lost", "too long")
    assert {worker for _, worker, _ in play(executor)} == {"fast"}


def simulated(*overrides: str) -> tuple[Problem, Simulation]:
    p = make_problem(compose(overrides), (8, 8, 1), 10)
    search = build(p.config, p, Objective.of("val_accuracy"))
    return p, Simulation(p, search, ("a", "b"), Forecaster(), (1_000, 100)).run()


@pytest.mark.parametrize("search", ["random", "hyperband"])
def test_a_simulated_sweep_spends_its_budget_like_the_search_does(search: str) -> None:
    _, played = simulated(f"search={search}", "budget.trials=9", "training.epochs=9")
    assert len({run.number for run in played.runs}) == 9
    if search == "random":
        assert (len(played.runs), sum(run.epochs for run in played.runs)) == (9, 81)
        total = sum(run.seconds for run in played.runs)
        assert total / 2 <= played.seconds <= total
    else:
        assert len(played.runs) > 9  # some are promoted
        assert sum(run.epochs for run in played.runs) < 81


def test_a_simulated_trial_ends_at_the_rung_where_the_search_stops_it() -> None:
    p, played = simulated("search=asha", "search.variant=stopping", "budget.trials=30", "training.epochs=9")
    assert len(played.runs) == len({run.number for run in played.runs}) == 30
    lengths = [run.epochs for run in played.runs]
    assert set(lengths) == {1, 3, 9}
    assert lengths.count(1) >= 12, "many go no further than the first rung"
    for run in played.runs:
        amounts = amounts_of(p.validate(run.values).network, p.config.with_values(run.values), 1_000, 100)
        assert run.seconds == pytest.approx(Forecaster().trial(amounts, run.epochs))
    total = sum(run.seconds for run in played.runs)
    assert total / 2 <= played.seconds <= total


@pytest.mark.parametrize(
    ("overrides", "replicates"),
    [
        (("budget.replicates=4", "budget.finalists=2"), 8),
        ((), 0),
        (("space=none", "+space.model.blocks.values=[1,2]", "budget.minutes=9", "budget.finalists=1"), 10),
    ],
    ids=["asked-for", "none", "where-everything-was-tried"],
)
def test_finalists_are_trained_again_after_the_search(overrides: tuple[str, ...], replicates: int) -> None:
    _, played = simulated("budget.trials=null", "budget.epochs=8", "training.epochs=2", *overrides)
    alone = sum(run.seconds for run in played.runs) / len(played.runs)
    assert played.replicates == replicates
    assert played.replicate_seconds == pytest.approx(replicates / 2 * alone, rel=0.3)  # on two workers

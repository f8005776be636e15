"""A change that spoils a search is caught: on recorded learning curves each must beat random search by a margin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "search_quality"
sys.path.append(str(FOLDER))

from compare import PEERS  # noqa: E402
from contenders import contender  # noqa: E402
from problem import EPOCHS, problem  # noqa: E402
from simulator import History, Simulator  # noqa: E402
from surrogate import Rows, Surrogate, read_table, surrogate  # noqa: E402

from cnnsweep.search.gp import GaussianProcess  # noqa: E402
from cnnsweep.trial import TrialSpec  # noqa: E402

SEEDS = range(4)
TRAININGS = 10
POINT = 0.01
MARGINS = {"auto": (5, 2.0), "gp": (20, 0.2)}
"""Trainings after which each must be ahead of random search, and by how many points."""


def play(name: str, seed: int, workers: int = 2, trainings: float = TRAININGS) -> History:
    seconds = trainings * surrogate().training_seconds / workers
    return Simulator(surrogate(), workers, seed).run(contender(name)(seed), seconds)


@cache
def mean_found(name: str, trainings: float = TRAININGS) -> float:
    """The accuracy found, on average over the seeds."""
    return float(np.mean([play(name, seed, trainings=trainings).found[-1] for seed in SEEDS]))


@pytest.mark.slow
@pytest.mark.parametrize("name", MARGINS)
def test_a_search_finds_better_networks_than_random_search(name: str) -> None:
    trainings, margin = MARGINS[name]
    ahead = (mean_found(name, trainings) - mean_found("random", trainings)) / POINT
    assert ahead > margin, f"{ahead:.2f} points ahead of random search; at least {margin} are expected"


def test_a_sampler_that_learns_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> Iterator[dict[str, Any]]:
        return iter(())

    monkeypatch.setattr(GaussianProcess, "propose", nothing)
    assert mean_found.__wrapped__("gp") == mean_found("random")


@pytest.mark.parametrize("name", PEERS)
def test_the_loop_drives_the_searches_of_others(name: str) -> None:
    history = play(name, 0, trainings=2)
    assert history.trials >= 2
    assert history.found[-1] > 0.2


def test_the_same_seed_plays_the_same_search() -> None:
    assert play("asha search.sampler=tpe", 3, trainings=5) == play("asha search.sampler=tpe", 3, trainings=5)


def test_asynchronous_halving_keeps_all_workers_busy() -> None:
    assert play("asha", 0, workers=8).idle == 0


def test_a_trial_that_is_continued_pays_for_its_start_again() -> None:
    simulator, values = Simulator(surrogate(), 1, 0), read_table().values[0]
    spec = TrialSpec(1, values, problem().config, 0, Path(), Path(), epochs=3)
    seconds = surrogate().curve(values)[1]
    begun, continued = (next(simulator._train(replace(spec, initial_epoch=epoch))).seconds for epoch in (0, 1))
    assert begun == pytest.approx(seconds[0])
    assert continued == pytest.approx(seconds[1] + surrogate().start_seconds)


def test_what_was_found_is_that_of_the_moment() -> None:
    history = History(seconds=[2.0, 5.0], found=[0.3, 0.6])
    assert [history.after(seconds) for seconds in (1.0, 2.0, 4.9, 5.0, 9.0)] == [0.0, 0.3, 0.3, 0.6, 0.6]


def test_the_table_holds_full_curves_of_valid_configurations() -> None:
    table = read_table()
    assert len(table.values) >= 100
    assert table.accuracy.shape == table.seconds.shape == (len(table.values), EPOCHS)
    assert not [fault for values in table.values if (fault := problem().validate(values).fault)]


def test_another_seed_changes_a_good_network_little() -> None:
    """The repetitions are those of the same configuration: two configurations lie much further apart."""
    table = read_table()
    better = table.level > np.median(table.level)
    assert np.median(np.abs(table.noise[better, -1])) < 0.1


def test_the_surrogate_ranks_configurations_that_it_has_not_seen() -> None:
    table = read_table()
    seen = len(table.values) * 3 // 4
    predicted = Surrogate(table.part(range(seen))).curves(table.values[seen:])[:, -1]
    ranks = [np.argsort(np.argsort(a)) for a in (predicted, table.accuracy[seen:, -1])]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_a_row_of_the_table_is_its_own_nearest() -> None:
    table = read_table()
    rows = Rows(table)
    assert (rows.curves(table.values[:20]) == table.accuracy[:20]).all()

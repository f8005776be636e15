"""A change that spoils a search is caught: on recorded learning curves each must beat random search by a margin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "search_quality"
sys.path.append(str(FOLDER))

from contenders import contender  # noqa: E402
from problem import EPOCHS, problem  # noqa: E402
from simulator import History, Simulator  # noqa: E402
from surrogate import Surrogate, read_table, surrogate  # noqa: E402

from cnnsweep.search.gp import GaussianProcess  # noqa: E402

SEEDS = range(5)
TRAININGS = 20
POINT = 0.01
MARGINS = {"gp": 0.5, "tpe": 0.2}
"""Points by which each must be ahead of random search."""


def play(name: str, seed: int, workers: int = 2) -> History:
    return Simulator(surrogate(), workers, seed).run(contender(name)(seed), TRAININGS)


def mean_found(name: str) -> float:
    """The accuracy found, on average over the seeds."""
    return float(np.mean([play(name, seed).after(TRAININGS) for seed in SEEDS]))


@cache
def found_at_random() -> float:
    return mean_found("random")


@pytest.mark.slow
@pytest.mark.parametrize("name", MARGINS)
def test_a_search_finds_better_networks_than_random_search(name: str) -> None:
    ahead = (mean_found(name) - found_at_random()) / POINT
    assert ahead > MARGINS[name], f"{ahead:.2f} points ahead of random search; at least {MARGINS[name]} are expected"


def test_a_sampler_that_learns_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> Iterator[dict[str, Any]]:
        return iter(())

    monkeypatch.setattr(GaussianProcess, "propose", nothing)
    assert mean_found("gp") == found_at_random()


def test_the_same_seed_plays_the_same_search() -> None:
    assert play("asha search.sampler=tpe", 3) == play("asha search.sampler=tpe", 3)


def test_asynchronous_halving_keeps_all_workers_busy() -> None:
    assert play("asha", 0, workers=8).idle == 0


def test_the_table_holds_full_curves_of_valid_configurations() -> None:
    table = read_table()
    assert len(table.values) >= 400
    assert table.accuracy.shape == table.seconds.shape == (len(table.values), EPOCHS)
    assert not [fault for values in table.values if (fault := problem().validate(values).fault)]


def test_the_surrogate_ranks_configurations_that_it_has_not_seen() -> None:
    table, seen = read_table(), 300
    predicted = Surrogate(table.part(range(seen))).curves(table.values[seen:])[:, -1]
    ranks = [np.argsort(np.argsort(a)) for a in (predicted, table.accuracy[seen:, -1])]
    assert np.corrcoef(*ranks)[0, 1] > 0.8

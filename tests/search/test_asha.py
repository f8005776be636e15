"""The rungs of asynchronous successive halving."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from searching import DISCRETE, FLAT, new, race, score

from cnnsweep.errors import UserError


@pytest.mark.parametrize("workers", [1, 4])
def test_the_best_third_of_each_rung_is_promoted_and_no_worker_waits(start, workers):
    _, search = start("asha", FLAT, budget={"trials": 1000}, training={"epochs": 9})
    proposals, _, waits = race(search, workers, most=120)
    assert waits == 0
    counts = Counter(p.epochs for p in proposals)
    assert set(counts) == {1, 3, 9}
    for low, high in ((1, 3), (3, 9)):
        # Those among the best third when promoted need not be among them now: the paper expects about √n such.
        assert counts[low] // 3 - workers <= counts[high] <= counts[low] // 3 + math.sqrt(counts[low])
    by_id = {p.id: p for p in proposals}
    for promoted in (p for p in proposals if p.continues):
        assert promoted.values == by_id[promoted.continues].values
    first = [score(p.values) for p in proposals if p.epochs == 1]
    assert np.mean([score(p.values) for p in proposals if p.epochs == 9]) > np.quantile(first, 0.8)


@pytest.mark.parametrize("trials", [1, 2, 7, 12])
@pytest.mark.parametrize("workers", [1, 3])
def test_rungs_are_finished_when_nothing_new_may_be_drawn(start, trials, workers):
    _, search = start("asha", FLAT, budget={"trials": trials}, training={"epochs": 9})
    proposals, _, _ = race(search, workers)
    assert len(new(proposals)) == trials
    assert any(p.epochs == 9 for p in proposals)
    assert search.ask("worker0") == "done"


@pytest.mark.parametrize("workers", [1, 4])
def test_trials_that_are_not_among_the_best_third_at_a_rung_are_stopped(start, workers):
    _, search = start("asha stopping", FLAT, budget={"trials": 1000}, training={"epochs": 9})
    proposals, reached, waits = race(search, workers, most=60)
    assert waits == 0
    assert not any(p.continues for p in proposals)
    ends = Counter(reached.values())
    assert set(ends) == {1, 3, 9}
    assert ends[1] > 35 > ends[9] > 1


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_a_sampler_draws_better_configurations_than_chance(start, name):
    def mean(name, seed):
        _, search = start(name, FLAT, seed=seed, budget={"trials": 40}, training={"epochs": 9})
        return np.mean([score(p.values) for p in new(race(search, 2)[0])[15:]])

    assert np.mean([mean(f"{name} tpe", seed) - mean(name, seed) for seed in range(2)]) > 0.1


def test_trials_that_failed_stop_no_other(start):
    _, search = start("asha stopping", DISCRETE, training={"epochs": 9}, budget={"trials": 4})
    wrong = [search.ask(f"worker{number}").id for number in range(4)]
    for id_ in wrong:
        search.report(id_, 1, {"val_accuracy": 0.9})
        search.end(id_, succeeded=False)
    for id_ in wrong:
        search.reopen(id_)
        assert search.report(id_, 1, {"val_accuracy": 0.2})
        search.end(id_, succeeded=True)


def test_a_first_rung_beyond_the_last_epoch_is_refused(start):
    settings = {"training": {"epochs": 9}, "search": {"min_epochs": 10}}
    with pytest.raises(UserError, match=r"search\.min_epochs: 10 exceeds the 9 epochs of a trial"):
        start("asha", FLAT, **settings)
    settings["search"] = {"min_epochs": 9}
    assert start("asha", FLAT, **settings)[1].rungs == [9]

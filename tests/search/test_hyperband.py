"""The brackets of Hyperband."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
from searching import MIXED, drive, new, score


def rungs(proposals):
    """The proposals of each (epochs of the first rung, epochs to reach), following promotions back."""
    by_id = {p.id: p for p in proposals}

    def first(p):
        return p.epochs if p.continues is None else first(by_id[p.continues])

    counts = defaultdict(list)
    for proposal in proposals:
        counts[first(proposal), proposal.epochs].append(proposal)
    return counts


@pytest.mark.parametrize("workers", [1, 2, 5, 30])
@pytest.mark.parametrize(("epochs", "factor"), [(9, 3), (10, 3), (8, 2)])
def test_rungs_have_the_sizes_of_the_paper_for_any_number_of_workers(start, workers, epochs, factor):
    settings = {"factor": factor, "iterations": 1}
    _, search = start("hyperband", MIXED, budget={"trials": 1000}, training={"epochs": epochs}, search=settings)
    # A bracket that halves s times begins with n = ceil((s_max + 1) / (s + 1) factor^s) trials of R / factor^s epochs
    # (Li et al. 2017, algorithm 1), with KerasTuner's rounding.
    top = 0
    while factor ** (top + 1) <= epochs:
        top += 1
    expected = {}
    for s in range(top, -1, -1):
        begin = math.ceil(epochs / factor**s)
        for r in range(s + 1):
            end_size = math.ceil(1 + math.log(epochs, factor)) / (s + 1)
            expected[begin, math.ceil(epochs / factor ** (s - r))] = math.ceil(end_size * factor ** (s - r))
    assert {rung: len(found) for rung, found in rungs(drive(search, workers)).items()} == expected


@pytest.mark.parametrize("workers", [1, 4])
def test_the_best_of_a_rung_are_promoted(start, workers):
    _, search = start("hyperband", MIXED, budget={"trials": 1000}, training={"epochs": 9}, search={"iterations": 1})
    proposals = drive(search, workers)
    by_id = {p.id: p for p in proposals}
    counts = rungs(proposals)
    for (begin, epochs), promoted in counts.items():
        if epochs > begin:
            below = sorted((score(p.values) for p in counts[begin, epochs // 3]), reverse=True)
            assert sorted((score(p.values) for p in promoted), reverse=True) == below[: len(promoted)]
    for promoted in (p for p in proposals if p.continues):
        assert promoted.values == by_id[promoted.continues].values
        assert promoted.epochs > by_id[promoted.continues].epochs
    assert max(Counter(p.continues for p in proposals if p.continues).values()) == 1


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("failing", [0, 1, 3, 6, 7, 8])
def test_failures_cost_no_promotion_as_long_as_enough_trials_are_left(start, workers, failing):
    _, search = start("hyperband", MIXED, budget={"trials": 9}, training={"epochs": 9}, search={"iterations": 1})
    counts = rungs(drive(search, workers, fails=lambda number, p: p.continues is None and number <= failing))
    assert [len(counts[1, epochs]) for epochs in (1, 3, 9)] == [9, min(3, 9 - failing), 1]


@pytest.mark.parametrize("trials", [1, 2, 5, 12, 15, 40])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_budget_of_trials_is_kept_and_rungs_are_finished(start, trials, workers):
    _, search = start("hyperband", MIXED, budget={"trials": trials}, training={"epochs": 9})
    proposals = drive(search, workers)
    assert len(new(proposals)) == trials
    assert search.ask("worker0") == "done"
    counts = rungs(proposals)
    for (begin, epochs), below in counts.items():
        if epochs < 9:
            assert len(counts[begin, epochs * 3]) >= len(below) // 3


def test_the_schedule_is_repeated_until_the_budget_is_spent(start):
    _, search = start("hyperband", MIXED, budget={"trials": 50}, training={"epochs": 9})
    assert len(rungs(drive(search))[1, 1]) == 27  # 9 + 5 + 3 begin in each round: 17 + 17 + 9 + 5 + 2

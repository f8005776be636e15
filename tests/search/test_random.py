"""The distribution of random search."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare
from searching import ACCURACY, DISCRETE, drive

from cnnsweep.search.observations import Untried
from cnnsweep.search.registry import build


def test_random_search_draws_each_key_uniformly_and_leaves_out_what_is_not_valid(start):
    tree = {"model": {name: DISCRETE["model"][name] for name in ("blocks", "kernel_size", "padding")}}
    counts = Counter()
    problem, _ = start("random", tree)
    for seed in range(600):
        search = build(problem.config.replace(seed=seed), problem, ACCURACY)
        counts.update(tuple(p.values.items()) for p in drive(search, most=3))
    valid = [tuple(v.items()) for v in problem.space.enumerate() if problem.validate(v).fault is None]
    assert set(counts) <= set(valid)
    assert len(valid) < problem.space.size
    chances = np.array([problem.space.preference(dict(v)) for v in valid])
    expected = counts.total() * chances / chances.sum()
    assert expected.max() > 2 * expected.min()
    assert chisquare([counts[v] for v in valid], expected).pvalue > 0.01


def test_what_is_drawn_evenly_has_the_most_blocks_most_often(start):
    tree = {"model": {"blocks": {"min": 1, "max": 2}, "filters": {"min": 1, "max": 50, "per_block": True}}}
    untried, rng = Untried(start("random", tree)[0]), np.random.default_rng(0)
    shares = [np.mean([untried.draw(rng, evenly)["model.blocks"] == 2 for _ in range(400)]) for evenly in (False, True)]
    assert shares == pytest.approx([1 / 2, 50 / 51], abs=0.08)


def test_random_search_keeps_a_log_range_even_over_its_decades(start):
    problem, _ = start("random", {"model": {"dense_units": {"min": 10, "max": 1000, "log": True}}})
    searches = [build(problem.config.replace(seed=seed), problem, ACCURACY) for seed in range(300)]
    assert sum(s.ask("a").values["model.dense_units"] < 100 for s in searches) == pytest.approx(150, abs=35)

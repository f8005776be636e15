"""The order of grid search."""

from __future__ import annotations

import pytest
from searching import MIXED, TINY, drive

from cnnsweep.errors import UserError


def test_grid_search_walks_in_order(start):
    problem, search = start("grid", TINY)
    assert [p.values for p in drive(search)] == list(problem.space.enumerate())


def test_grid_search_of_a_continuous_range_is_an_error(start):
    with pytest.raises(UserError, match=r"space.model.dropout \(0 to 0.5\): give it `values` or a `step`"):
        start("grid", MIXED)

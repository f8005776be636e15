"""The sweeps of experiments/fashion_small: they compose, and what they limit leaves much to search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.search_space.problem import make_problem

CONF = Path(__file__).parents[2] / "experiments" / "fashion_small" / "conf"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_the_sweeps_compose_and_have_networks_within_their_limits(name):
    problem = make_problem(compose([f"+sweep={name}"], config_dir=CONF), (28, 28, 1), 10)
    rng = np.random.default_rng(0)
    found = [problem.validate(problem.space.draw(rng)) for _ in range(50)]
    assert sum(validity.fault is None for validity in found) > 2
    assert {validity.mistake for validity in found} == {False}

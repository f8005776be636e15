"""Small problems to search, without data and without training; stores whose tables are copied."""

from __future__ import annotations

import copy
import functools

import pytest
import store_template

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.search_space.problem import make_problem
from cnnsweep.tracking import store


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once():
    """Sweeps in this process find the tables of their store there; tests/tracking has them made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "create_tables", store_template.create_tables)
        yield


@functools.cache
def composed(algorithm):
    return compose(["space=none", f"search={algorithm}"])


@pytest.fixture
def configure():
    """Return a checked config in which only `space` varies; each group given is updated: model={"blocks": 1}."""

    def make(space, algorithm="random", **groups):
        config = copy.deepcopy(composed(algorithm).plain())
        config["space"] = space
        for name, value in groups.items():
            config[name] = {**config[name], **value} if isinstance(value, dict) else value
        return Config.from_plain(config)

    return make


@pytest.fixture
def problem(configure):
    """Return such a config as a problem on small images."""

    def make(space, algorithm="random", shape=(8, 8, 1), **groups):
        return make_problem(configure(space, algorithm, **groups), shape, 10)

    return make

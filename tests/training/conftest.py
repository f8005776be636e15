"""Saved digits for trials."""

from __future__ import annotations

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load
from cnnsweep.data.storage import save


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The folder of a small data set."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    config = compose(["data=digits", "data.limit=60"])
    save(load(config.data, 0), folder)
    return folder

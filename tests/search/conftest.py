"""Building a search on a small problem."""

from __future__ import annotations

import pytest
from searching import ACCURACY

from cnnsweep.search.registry import build


@pytest.fixture
def start(problem):
    """Return a problem and its search; a second word in the name is a sampler or a variant: "asha tpe"."""

    def make(name, space, objective=ACCURACY, **groups):
        name, _, word = name.partition(" ")
        if word:
            key = "variant" if word == "stopping" else "sampler"
            groups["search"] = {key: word, **groups.get("search", {})}
        made = problem(space, name, **groups)
        return made, build(made.config, made, objective)

    return make

"""Trials of an earlier sweep, from which a search learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnnsweep.config.schema import Config
from cnnsweep.search.oracle import Oracle
from cnnsweep.search_space.problem import Problem


def learn(
    search: Oracle,
    config: Config,
    problem: Problem,
    earlier: Sequence[Mapping[str, Any]] | None,
    say: Callable[[str], None],
) -> Sequence[Mapping[str, Any]]:
    """Give the search the earlier trials, those of the store where `earlier` is None, and return them."""
    if earlier is None and config.search.learn_from:
        from cnnsweep.tracking.stored_trials import read_earlier

        earlier, summary = read_earlier(config, problem, search.objective)
        say(summary)
    if earlier:
        search.learn(earlier)
    return earlier or ()

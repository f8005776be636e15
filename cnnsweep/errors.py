"""Errors of the user's input: each names the value it got, what is allowed and the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """Wrong input, found before any training. The command line prints it without a traceback and exits with 2."""


def nearest(name: str, allowed: Iterable[str], suggested: Mapping[str, str] | None = None) -> str:
    """Return ", did you mean 'X'?" for the allowed name closest to `name`, or "" where none is close.

    X is that name, or what is `suggested` for it.

    >>> nearest("max_trails", ["max_trials", "minutes"])
    ", did you mean 'max_trials'?"
    >>> nearest("max_trails", ["max_trials", "minutes"], {"max_trials": "budget.max_trials"})
    ", did you mean 'budget.max_trials'?"
    >>> nearest("zebra", ["max_trials"])
    ''
    """
    for match in difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.6):
        return f", did you mean '{(suggested or {}).get(match, match)}'?"
    return ""


def unknown(kind: str, name: object, allowed: Iterable[str], shown: Iterable[str] = ()) -> UserError:
    """The error for a name that is not among the allowed ones, which are `shown` in another form where that is given.

    >>> print(unknown("search", "randon", ["grid", "random"]))
    unknown search 'randon', did you mean 'random'? (one of: grid, random)
    """
    allowed = sorted(str(a) for a in allowed)
    return UserError(f"unknown {kind} '{name}'{nearest(str(name), allowed)} (one of: {', '.join([*shown] or allowed)})")

"""Errors of the user's input: each names the value it got, what is allowed and the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UserError(ValueError):
    """Wrong input, found before any training. The command line prints it without a traceback and exits with 2."""


def nearest(name: str, allowed: Iterable[str], suggested: Mapping[str, str] | None = None, cutoff: float = 0.6) -> str:
    """Return ", did you mean 'X'?" for the allowed name closest to `name`, or "" where none is close.

    X is that name, or what is `suggested` for it; `cutoff` is the least similarity (difflib's ratio).

    >>> nearest("max_trails", ["max_trials", "minutes"])
    ", did you mean 'max_trials'?"
    >>> nearest("max_trails", ["max_trials", "minutes"], {"max_trials": "budget.max_trials"})
    ", did you mean 'budget.max_trials'?"
    >>> nearest("AUC", ["accuracy", "auc"])
    ", did you mean 'auc'?"
    >>> nearest("zebra", ["max_trials"])
    ''
    """
    names = [str(a) for a in allowed]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)
    for match in close or [a for a in names if a.casefold() == str(name).casefold()][:1]:
        return f", did you mean '{(suggested or {}).get(match, match)}'?"
    return ""


def nearest_key(name: str, allowed: Iterable[str]) -> str:
    """The same for a dotted key: first one of another group with its last part or with these initials.

    >>> nearest_key("model.epochs", ["model.blocks", "training.epochs", "training.learning_rate"])
    ", did you mean 'training.epochs'?"
    >>> nearest_key("model.lr", ["model.blocks", "training.epochs", "training.learning_rate"])
    ", did you mean 'training.learning_rate'?"
    >>> nearest_key("model.block", ["model.blocks", "training.epochs", "training.learning_rate"])
    ", did you mean 'model.blocks'?"
    """
    keys, last = list(allowed), name.rpartition(".")[2]
    by_last_part = {key.rpartition(".")[2]: key for key in reversed(keys)}
    by_initials = {"".join(w[:1] for w in part.split("_")): key for part, key in by_last_part.items() if "_" in part}
    if key := by_last_part.get(last) or by_initials.get(last):
        return f", did you mean '{key}'?"
    return nearest(name, keys) or nearest(last, by_last_part, by_last_part, cutoff=0.75)


def unknown(kind: str, name: object, allowed: Iterable[str], shown: Iterable[str] = ()) -> UserError:
    """The error for a name that is not among the allowed ones, which are `shown` in another form where that is given.

    >>> print(unknown("search", "randon", ["grid", "random"]))
    unknown search 'randon', did you mean 'random'? (one of: grid, random)
    """
    allowed = sorted(str(a) for a in allowed)
    one_of = ", ".join([*shown] or allowed) or "none"
    return UserError(f"unknown {kind} '{name}'{nearest(str(name), allowed)} (one of: {one_of})")

"""The values that settings of losses and metrics can have: Keras checks some of them, once a trial begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cnnsweep.config.section import Plain
from cnnsweep.config.validation import short
from cnnsweep.errors import UserError, unknown


class Range(NamedTuple):
    """The numbers that a setting can have."""

    words: str
    holds: Callable[[float], bool]
    whole: bool = False


_SHARE = Range("must be from 0 to 1", lambda value: 0 <= value <= 1)
_FROM_0 = Range("must be at least 0", lambda value: value >= 0)
_ABOVE_0 = Range("must be above 0", lambda value: value > 0)
_COUNT = Range("must be at least 1", lambda value: value >= 1, whole=True)
WORDS = {"average": ("macro", "micro", "weighted"), "curve": ("ROC", "PR", "PRGAIN")}
OF_METRICS: Mapping[str, Range] = {
    "beta": _ABOVE_0,
    "threshold": Range("must be above 0 and at most 1", lambda value: 0 < value <= 1),
    **dict.fromkeys(("thresholds", "precision", "recall", "sensitivity", "specificity"), _SHARE),
    "num_thresholds": Range("must be at least 2", lambda value: value >= 2, whole=True),
    "top_k": _COUNT,
    "k": _COUNT,
    "class_id": Range("must be at least 0", lambda value: value >= 0, whole=True),
}
OF_LOSSES: Mapping[str, Range] = {
    "label_smoothing": _SHARE,
    **dict.fromkeys(("alpha", "beta", "gamma"), _FROM_0),
    "delta": _ABOVE_0,
    "q": Range("must be above 0 and below 1", lambda value: 0 < value < 1),
}
LISTS = ("alpha", "thresholds")
"""Settings that may be lists of numbers: one for each class; of thresholds one, as a metric is one number."""
OPTIONAL = ("class_id", "threshold", "thresholds", "top_k")


def check_values(where: str, settings: Mapping[str, object], known: Mapping[str, Range]) -> None:
    """Raise `UserError` for a value that a setting cannot have."""
    for name, value in settings.items():
        if name == "average" and value is None:
            raise UserError(f"{where}: average=null gives a number for each class (macro, micro or weighted)")
        if name in WORDS and value not in WORDS[name]:
            raise unknown(f"{name} in {where}", short(value), WORDS[name])
        if name == "apply_class_balancing" and not isinstance(value, bool):
            raise UserError(f"{where}: {name}: '{short(value)}' is not true or false")
        if name == "thresholds" and isinstance(value, list) and len(value) != 1:
            raise UserError(f"{where}: {name}: {short(value)} gives {len(value)} numbers: take one threshold")
        if name in known and not (value is None and name in OPTIONAL):
            for each in value if isinstance(value, list) and name in LISTS else [value]:
                _check_number(f"{where}: {name}", each, known[name])


def check_searched(entries: object) -> None:
    """The same for the settings of losses that a space searches, by their entries."""
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if isinstance(entry, Mapping):
            listed = entry.get("values")
            values = listed if isinstance(listed, list) else [entry[end] for end in ("min", "max") if end in entry]
            for value in values:
                check_values("space.training.loss_settings", {name: value}, OF_LOSSES)


def as_keras_takes(settings: Plain) -> Plain:
    """Settings without whole numbers where Keras takes fractions alone."""
    return {name: float(value) if name in ("beta", "threshold") and value is not None else value
            for name, value in settings.items()}  # fmt: skip


def _check_number(where: str, value: object, allowed: Range) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: '{short(value)}' is not a number")
    if allowed.whole and not isinstance(value, int):
        raise UserError(f"{where}: {short(value)} is not a whole number")
    if not (allowed.holds(value) and abs(value) < float("inf")):
        raise UserError(f"{where}: {short(value)} ({allowed.words})")

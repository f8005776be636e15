"""Code of the user's own that a config names, and the objective that it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnsweep.config.tasks import LABELS, kind_of, measured
from cnnsweep.config.validation import KEY_RULE, is_key, short
from cnnsweep.errors import UserError, unknown

SMALLER = ("loss", "error", "mae", "mse", "rmse", "mape", "msle", "perplexity", "nll", "parameters", "mmacs", "seconds")
LARGER = ("accuracy", "acc", "auc", "f1", "score", "precision", "recall", "iou", "dice", "r2", "reward", "map")
"""Last words of metrics by which their direction is known."""
NEGATED = {"neg", "negative", "negated", "minus", "inverse"}
"""With one of these words a name tells no direction: scikit-learn's neg_log_loss is better the larger it is."""


NETWORKS = "cnnsweep.training.train.train"
"""The job that trains the networks of `model` on `data`."""
MODELS = ("cnnsweep.models.function.build", "cnnsweep.models.hypermodel.build")
"""Families whose models, with their losses and metrics, are the user's own."""


def is_run_by(plain: Mapping[str, Any]) -> bool:
    """Whether trials of a plain config run code of the user's own, which may measure anything."""
    job, model = (dict(plain.get(group) or {}).get("_target_") for group in ("job", "model"))
    return job != NETWORKS or not str(model).startswith("cnnsweep.") or model in MODELS


def read(value: Any, task: Any = "classification", metrics: Any = "auto") -> str | list[str]:
    """Check a config's `objective`: a name, {name: direction}, or a list of these; `auto` is the first metric.

    A direction that the name does not tell stands behind it: "val_tokens: max". Raises `UserError`.
    """
    value = measured(metrics, task)[0] if value == "auto" and task in LABELS else value
    names: list[str] = []
    for entry in value if isinstance(value, list) else [value]:
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [split(str(entry))]
        for name, wanted in pairs:
            if not isinstance(name, str) or not is_key(name):
                raise UserError(f"objective: '{short(name)}' cannot be a metric's name ({KEY_RULE})")
            if wanted not in (None, "max", "min"):
                raise unknown(f"direction of objective {name}", wanted, ("max", "min"))
            if name in (split(other)[0] for other in names):
                raise UserError(f"objective: {name} is given twice")
            names.append(with_direction(name, wanted))
    return names if len(names) > 1 else names[0]


def with_direction(name: str, wanted: str | None) -> str:
    """A metric's name, with the direction behind it where the name does not tell it. Raises `UserError`."""
    kind = kind_of(name)
    known = kind.direction if kind else direction_of(name)
    if wanted is None and known is None:
        raise UserError(f"objective: is {name} better the larger or the smaller? say objective={{{name}: max}}")
    return name if wanted in (None, known) else f"{name}: {wanted}"


def split(name: str) -> tuple[str, str | None]:
    """A metric's name and the direction that stands behind it.

    >>> split("val_tokens: max"), split("val_loss")
    (('val_tokens', 'max'), ('val_loss', None))
    """
    metric, _, direction = name.partition(": ")
    return metric, direction or None


def direction_of(name: str) -> str | None:
    """The direction that a name tells; None where it tells none.

    >>> direction_of("val_f1_score"), direction_of("val_rmse"), direction_of("neg_rmse")
    ('max', 'min', None)
    """
    *words, last = re.split(r"[^a-z0-9]+", name.lower())
    if NEGATED & {*words, last} or (last == "score" and {*words} & {"brier", "fid", *SMALLER}):
        return None
    return "min" if last in SMALLER or name.endswith("loss") else "max" if last in LARGER else None

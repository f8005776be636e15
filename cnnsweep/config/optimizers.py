"""The optimizers and learning-rate schedules of Keras, and their settings, listed so that none needs Keras to check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationInfo

from cnnsweep.config.section import Plain
from cnnsweep.config.validation import Unknown, short
from cnnsweep.errors import UserError

Setting = float | bool | list[float]


class Optimizer(NamedTuple):
    keras: str
    """Its class in keras.optimizers."""
    defaults: Mapping[str, float | bool]
    """Of its settings, beside those that all optimizers have."""
    values: int
    """Numbers that it keeps for each weight."""


_BETAS = {"beta_1": 0.9, "beta_2": 0.999}
_ADAM = {**_BETAS, "epsilon": 1e-7}
_FTRL = {
    "learning_rate_power": -0.5, "initial_accumulator_value": 0.1, "l1_regularization_strength": 0.0,
    "l2_regularization_strength": 0.0, "l2_shrinkage_regularization_strength": 0.0, "beta": 0.0,
}  # fmt: skip
_ADAFACTOR = {
    "beta_2_decay": -0.8, "epsilon_1": 1e-16, "epsilon_2": 1e-3, "clip_threshold": 1.0, "relative_step": True,
}  # fmt: skip
# The update of a weight from a dead input to a dead unit divides by the root of epsilon_1² / (a mean of squared
# gradients). With Keras' 1e-30 that is 0 in float32, and the weight NaN; 1e-16 works for means up to 1e6.
_MUON = {
    "adam_beta_1": 0.9, "adam_beta_2": 0.999, "adam_weight_decay": 0.0, "epsilon": 1e-7, "adam_lr_ratio": 1.0,
    "momentum": 0.95, "ns_steps": 5, "nesterov": True, "rms_rate": 0.2,
}  # fmt: skip
OPTIMIZERS = {
    "adadelta": Optimizer("Adadelta", {"rho": 0.95, "epsilon": 1e-7}, 2),
    "adafactor": Optimizer("Adafactor", _ADAFACTOR, 1),
    "adagrad": Optimizer("Adagrad", {"initial_accumulator_value": 0.1, "epsilon": 1e-7}, 1),
    "adam": Optimizer("Adam", {**_ADAM, "amsgrad": False}, 2),
    "adamax": Optimizer("Adamax", _ADAM, 2),
    "adamw": Optimizer("AdamW", {**_ADAM, "amsgrad": False}, 2),
    "ftrl": Optimizer("Ftrl", _FTRL, 2),
    "lamb": Optimizer("Lamb", _ADAM, 2),
    "lion": Optimizer("Lion", {"beta_1": 0.9, "beta_2": 0.99}, 1),
    "muon": Optimizer("Muon", _MUON, 2),
    "nadam": Optimizer("Nadam", _ADAM, 2),
    "rmsprop": Optimizer("RMSprop", {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}, 3),
    "schedule_free_adamw": Optimizer("ScheduleFreeAdamW", {**_BETAS, "epsilon": 1e-8, "warmup_steps": 0}, 2),
    "sgd": Optimizer("SGD", {"momentum": 0.9, "nesterov": True}, 1),
}
"""By their names in the config. The defaults are those of Keras but for the momentum of sgd, epsilon_1 of adafactor,
and muon's weight decay for what it updates as Adam does, which is `training.weight_decay`."""

SCHEDULES: dict[str, Mapping[str, Setting | None]] = {
    "constant": {},
    "cosine": {"alpha": 0.0},
    "cosine_restarts": {"first_decay_epochs": 1.0, "t_mul": 2.0, "m_mul": 1.0, "alpha": 0.0},
    "exponential": {"decay_epochs": 1.0, "decay_rate": 0.9, "staircase": False},
    "inverse_time": {"decay_epochs": 1.0, "decay_rate": 0.5, "staircase": False},
    "piecewise": {"boundaries": [], "factors": [1.0]},
    "polynomial": {"decay_epochs": None, "end_learning_rate": 0.0, "power": 1.0, "cycle": False},
}
"""The settings of each and their defaults; durations are in epochs, and None is all epochs of a trial."""

OPTIMIZER_SETTINGS = "optimizer_settings"
SCHEDULE_SETTINGS = "schedule_settings"
GROUPS: dict[str, tuple[str, Mapping[str, Mapping[str, Setting | None]]]] = {
    OPTIMIZER_SETTINGS: ("optimizer", {name: kind.defaults for name, kind in OPTIMIZERS.items()}),
    SCHEDULE_SETTINGS: ("schedule", SCHEDULES),
}
"""By the group of settings in `training`: the key that says which are in use, and the settings for each of its values.
"""
_BELOW_1 = {"adam_beta_1", "adam_beta_2", "beta_1", "beta_2", "momentum", "rho"}
_UP_TO_0 = {"beta_2_decay", "learning_rate_power"}
_ABOVE_0 = {"decay_epochs", "first_decay_epochs", "m_mul", "decay_rate", "power", "ns_steps", "clip_threshold"}
_NEED_BETA_1 = ("lion", "schedule_free_adamw")
"""The optimizers for which Keras refuses a beta_1 of 0, or divides by it."""


def names_of(group: str) -> dict[str, object]:
    """Every setting of a group with the default that it has somewhere."""
    return {name: default for defaults in GROUPS[group][1].values() for name, default in defaults.items()}


def settings_of(group: str) -> Callable[[object, ValidationInfo], object]:
    """A validator of a group of settings, of optimizers or schedules."""
    known = names_of(group)

    def check(values: object, others: ValidationInfo) -> object:
        if not isinstance(values, Mapping):
            raise ValueError(f"expected settings such as {{{next(iter(known))}: 0.9}}, got '{short(values)}'")
        for name, value in values.items():
            if name not in known:
                raise Unknown(name, tuple(known))
            _check(name, value, known[name])
        if len(values.get("factors", [1.0])) != len(values.get("boundaries", [])) + 1:
            raise ValueError("piecewise: needs one more of the factors than of the boundaries")
        optimizer = others.data.get("optimizer")
        if optimizer in _NEED_BETA_1 and values.get("beta_1") == 0:
            raise ValueError(f"beta_1: 0 (must be above 0 and below 1 for {optimizer})")
        return values

    return check


def chosen(group: str, name: str, settings: Mapping[str, Any]) -> Plain:
    """The settings of one optimizer or schedule: its defaults, and those that are set of the ones that it has."""
    found = {key: (settings.get(key, default), default) for key, default in GROUPS[group][1][name].items()}
    # Keras takes no whole number for the momentum of SGD.
    return {key: float(value) if type(default) is float else value for key, (value, default) in found.items()}


def check_used(group: str, names: Sequence[str], settings: Sequence[str]) -> None:
    """Raise UserError for a setting that none of these optimizers, or schedules, has."""
    members = GROUPS[group][1]
    allowed = sorted({setting for name in names for setting in members[name]})
    for setting in settings:
        if setting not in allowed:
            have = ", ".join(name for name, defaults in members.items() if setting in defaults)
            rest = f"; it has {', '.join(allowed)}" if allowed else ""
            raise UserError(f"training.{group}.{setting}: {' or '.join(names)} has no such setting{rest} ({have} has)")
    if "piecewise" in names and "boundaries" not in settings:
        example = "{boundaries: [5, 8], factors: [1, 0.1, 0.01]}"
        raise UserError(f"training.{group}.boundaries: piecewise needs them, in epochs, such as {example}")


def _check(name: str, value: Any, default: object) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: '{short(value)}' is not true or false")
    elif isinstance(default, list):
        if not isinstance(value, list) or not all(_is_number(item) and item >= 0 for item in value):
            raise ValueError(f"{name}: '{short(value)}' is not a list of numbers from 0")
        if not value:
            raise ValueError(f"{name}: [] has no number")
        if name == "boundaries" and sorted(set(value)) != value:
            raise ValueError(f"boundaries: {short(value)} do not rise")
    elif not _is_number(value):
        raise ValueError(f"{name}: '{short(value)}' is not a number")
    elif isinstance(default, int) and not isinstance(value, int):
        raise ValueError(f"{name}: {short(value)} is not a whole number")
    elif name in _BELOW_1 and not 0 <= value < 1:
        raise ValueError(f"{name}: {value} (must be at least 0 and below 1)")
    elif name in _ABOVE_0 and value <= 0:
        raise ValueError(f"{name}: {value} (must be above 0)")
    elif name == "t_mul" and value < 1:
        raise ValueError(f"t_mul: {value} (must be at least 1)")  # Keras' rates end in NaN where the times shrink
    elif name in _UP_TO_0 and value > 0:
        raise ValueError(f"{name}: {value} (must be at most 0)")
    elif name not in _UP_TO_0 and value < 0:
        raise ValueError(f"{name}: {value} (must be at least 0)")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")

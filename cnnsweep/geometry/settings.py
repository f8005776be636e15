"""Settings of a layer: their types, their checks, and the error of one with which a layer cannot be built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

Shape = tuple[int, ...]
Settings = Mapping[str, Any]
"""Of a layer, by the names in `Layer`'s table; checked by the rules of each kind."""
Cost = tuple[int, int, int]
"""Parameters, multiply-adds, and bytes of the float32 output (0 for views of the input)."""
Part = tuple[Any, ...]
"""A name, such as "conv", and numbers and tuples of numbers that describe a layer's effect."""
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}


class MisfitError(Exception):
    """A setting with which a layer cannot be built."""

    def __init__(self, setting: str, problem: str, mistake: bool = False) -> None:
        """`problem` continues "block 3's"; `mistake`: wrong in any network, such as a kernel of size 0."""
        super().__init__(setting, problem, mistake)
        self.setting, self.problem, self.mistake = setting, problem, mistake


def positive(settings: Settings, name: str, default: int | None = None) -> int:
    """A setting that must be a positive integer."""
    value = settings.get(name, default)
    if type(value) is int and value > 0:
        return value
    raise MisfitError(name, f"value is {value!r}, not a positive integer", mistake=True)


def has_bias(settings: Settings) -> bool:
    """Whether a layer has a bias, as it does by default."""
    return bool(settings.get("use_bias", True))


def is_number(value: object) -> TypeGuard[int | float]:
    """True for a number that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_function(setting: str, function: object) -> None:
    """Raise for what is no activation that keeps the shape."""
    if not isinstance(function, str):
        raise MisfitError(setting, f"value is {function!r}, not the name of a function", mistake=True)
    if function == "glu":
        problem = "function is 'glu', which halves its input; take one that keeps the shape"
        raise MisfitError(setting, problem, mistake=True)


def one_name(function: str) -> str:
    """The one name of an activation for which Keras has two."""
    return _ALIASES.get(function, function)

"""Validation of config sections by pydantic; each fault is one `UserError` that names the value and what is allowed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from cnnsweep.errors import UserError, unknown

LARGEST = 2**31 - 1
MOST_REPEATS = 20
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "str": "text",
         "list": "a list, such as [a,b]"}  # fmt: skip
BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}
OUT_OF_BOUNDS = ("finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal")
Model = TypeVar("Model", bound=BaseModel)
KEY_RULE = "letters, digits, spaces and _ - . : / alone, no empty part, 250 at most"


def no_bool(value: object) -> object:
    """Refuse true and false where a number is expected; pydantic would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"'{short(value)}' is not a number")
    return value


Int = Annotated[int, BeforeValidator(no_bool), Field(le=LARGEST)]
Float = Annotated[float, BeforeValidator(no_bool), Field(allow_inf_nan=False)]


def quantity(value: object) -> float | None:
    """Parse a positive number with an optional unit k, M or G; None stays None. Raises ValueError.

    >>> quantity("1.5M")
    1500000.0
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([kKMG]?)\s*", str(value))
    try:
        number = float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]] if match else None
    except ValueError:
        number = None
    if number is None or not 0 < number < float("inf"):
        raise ValueError(f"'{short(value)}' is not a positive number (such as 250000, 250k or 1.5M)")
    return number


Quantity = Annotated[float | None, BeforeValidator(quantity)]


def per_block(check: Callable[[object], None]) -> BeforeValidator:
    """A validator of one value for all blocks, or a list with one value for each; `check` raises ValueError."""

    def validate(value: object) -> object:
        if value == []:
            raise ValueError("needs a value, or a list with one value for each block; got an empty list")
        for item in value if isinstance(value, list) else [value]:
            check(item)
        return value

    return BeforeValidator(validate)


def _check_size(value: object) -> None:
    if type(value) is not int:
        raise ValueError(f"'{short(value)}' is not a whole number")
    if value > LARGEST:
        raise ValueError(f"{value} (must be at most {LARGEST})")


Sizes = Annotated[int | list[int], per_block(_check_size)]
"""A whole number for all blocks, or a list with one for each. Those below 1 are left to the geometry to refuse."""


def _check_count(value: object) -> None:
    _check_size(value)
    if not 1 <= int(str(value)) <= MOST_REPEATS:
        raise ValueError(f"{value} (must be at least 1 and at most {MOST_REPEATS})")


Counts = Annotated[int | list[int], per_block(_check_count)]
"""A small number for all blocks, or a list with one for each."""


def words(*allowed: str) -> BeforeValidator:
    """A validator of one of these words for all blocks, or a list with one for each block."""

    def check(value: object) -> None:
        if value not in allowed:
            raise Unknown(value, allowed)

    return per_block(check)


def choice(*allowed: str) -> BeforeValidator:
    """A validator of one of these words."""

    def check(value: object) -> object:
        if value not in allowed:
            raise Unknown(short(value), allowed)
        return value

    return BeforeValidator(check)


class Unknown(ValueError):  # noqa: N818
    """A value that is not among the allowed ones."""

    def __init__(self, value: object, allowed: tuple[str, ...]) -> None:
        super().__init__(value, allowed)
        self.value, self.allowed = value, allowed


def validate(name: str, model: type[Model], values: object) -> Model:
    """Return the model made of `values`; `name` is the section's key in the config, "" for the root.

    Raises `UserError` for the first value that does not fit.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{name}: expected a group of keys, got '{short(values)}'")
    for key, value in values.items():
        if value == "???":
            raise UserError(f"{_dotted(name, key)}: a value is needed ({_dotted(name, key)}=...)")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(name, model, error.errors(include_url=False)[0]) from error


def sweep_name(name: str) -> str:
    """A name that may be a folder's too. Raises `ValueError`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", name):
        raise ValueError(f"'{short(name)}' (use letters, digits and _ . - only, 80 at most)")
    return name


def auto_or_steps(steps: object) -> object:
    """`auto` or a number of steps. Raises `ValueError`."""
    if steps != "auto" and (type(steps) is not int or steps < 1):
        raise ValueError(f"'{steps}' (auto, or a whole number from 1)")
    return steps


def auto_or_truth(value: object) -> object:
    """`auto`, true or false. Raises `ValueError`."""
    if value not in ("auto", True, False):
        raise ValueError(f"'{value}' (auto, true or false)")
    return value


def is_key(name: str) -> bool:
    """Whether MLflow takes a param or a tag of this name; `KEY_RULE` says the rule.

    >>> [is_key(name) for name in ("model.größe", "a/b", "a//b", "owner@lab", "")]
    [True, True, False, False, False]
    """
    return bool(re.fullmatch(r"(?!/|\.\.|\.$)[/\w.\- :]{1,250}", name)) and posixpath.normpath(name) == name


def tags(values: dict[str, Any]) -> dict[str, Any]:
    """Tags whose names MLflow takes. Raises `ValueError`."""
    for name in map(str, values):
        if not is_key(name):
            raise ValueError(f"'{short(name)}' cannot be a tag's name ({KEY_RULE})")
        if name.startswith("cnnsweep."):
            raise ValueError(f"'{name}' cannot be a tag's name: those with cnnsweep. are the program's own")
    return values


def short(value: object, most: int = 120) -> str:
    """A user's value, shortened for an error text."""
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= most else f"{text[:most]}…"


def _dotted(*parts: object) -> str:
    return ".".join(str(part) for part in parts if part != "")


def _explain(name: str, model: type[BaseModel], error: ErrorDetails) -> UserError:
    """The error for the first fault that pydantic found in a section."""
    path = [part for part in error["loc"] if isinstance(part, str) and part != "str" and "[" not in part][:2]
    owner, field = _find(model, path)
    where, value, kind = _dotted(name, *path), error["input"], error["type"]
    match kind:
        case "extra_forbidden":
            parent, keys = _dotted(name, *path[:-1]), _keys(owner)
            return unknown("key", where, [_dotted(parent, key) for key in keys], shown=keys)
        case "missing":
            return UserError(f"{where}: a value is needed ({where}=...)")
        case "value_error":
            cause = error["ctx"]["error"]
            refused = isinstance(cause, Unknown)
            return unknown(where, cause.value, cause.allowed) if refused else UserError(f"{where}: {cause}")
        case "literal_error":
            return unknown(where, short(value), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        case "model_type" | "model_attributes_type" | "dict_type":
            return UserError(f"{where}: expected a group of keys, got '{short(value)}'")
    rules = [*_rules(field)]
    if kind in OUT_OF_BOUNDS:
        finite = [] if abs(float(value)) < float("inf") else ["finite"]
        return UserError(f"{where}: {_number(field, value)} (must be {' and '.join([*finite, *rules])})")
    wanted, bounds = KINDS.get(kind.partition("_")[0], error["msg"]), " and ".join(rules)
    return UserError(f"{where}: '{short(value)}' is not {wanted}{f' ({bounds})' if bounds else ''}")


def _number(field: Any, value: object) -> str:
    """The value as it was understood: 0 for a key that takes fractions is 0.0."""
    if "float" in str(getattr(field, "annotation", "")) and isinstance(value, int):
        value = float(value)
    return short(value, 40)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _find(model: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], Any]:
    """The model that holds the key at the end of a path, and the key's field."""
    for part in path[:-1]:
        inner = model.model_fields.get(part)
        if inner is not None and isinstance(inner.annotation, type) and issubclass(inner.annotation, BaseModel):
            model = inner.annotation
    return model, model.model_fields.get(path[-1]) if path else None


def _rules(field: Any) -> Iterator[str]:
    """The bounds of a field in words: "at least 1"."""
    if field is None:
        return
    found = list(_bounds(field.metadata, field.annotation))
    for kind, (attribute, text) in BOUNDS.items():
        limits = [getattr(bound, attribute) for bound in found if type(bound) is kind]
        if limits:
            yield f"{text} {(max if kind in (Ge, Gt) else min)(limits):.10g}"


def _bounds(metadata: Any, annotation: Any) -> Iterator[Any]:
    for inner in get_args(annotation):
        yield from _bounds(getattr(inner, "__metadata__", ()), inner)
    for item in metadata:
        yield from (b for b in getattr(item, "metadata", (item,)) if type(b) in BOUNDS)

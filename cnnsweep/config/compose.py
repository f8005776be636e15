"""Composing the config with Hydra and checking it against the schema; every fault is a `UserError`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.config import objective, schema
from cnnsweep.errors import UserError, nearest, unknown

LARGEST = 2**31 - 1
INFINITY = float("inf")
GROUPS = ("data", "model", "space", "search", "training", "executor", "tracking", "budget", "sweep")


def shipped() -> Path:
    """The folder with the configs that come with the package, in a checkout or an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> dict[str, Any]:
    """Return the checked config as plain nested dicts.

    Hydra composes the shipped configs with those of `config_dir` (default: ./conf, where there is one) and the
    overrides. An override of a searched key (`model.filters=32`) fixes it, unless `space.model.filters` is
    overridden too. Raises `UserError`.
    """
    for override in overrides:
        _check_form(override)
    own = Path(config_dir) if config_dir is not None else Path.cwd() / "conf"
    if config_dir is not None and not own.is_dir():
        raise UserError(f"--config-dir: there is no directory '{config_dir}'")
    search_path = [own] if own.is_dir() and own.resolve() != shipped().resolve() else []
    composed = _compose([_prepare(o) for o in overrides], search_path)
    for fixed in _fixed_by(overrides):
        _drop(composed["space"], fixed.split("."))
    return check(composed)


def packaged(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The shipped configs alone, unchecked: a value that is needed may be "???"."""
    return _compose(list(overrides), [])


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with every value converted to its type; raise `UserError` for the first that does not fit."""
    root = _typed("", schema.Root, config)
    checked = {name: root[name] for name in ("name", "seed", "backend")}
    checked["objective"] = objective.read(root["objective"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", checked["name"]):
        raise UserError(f"name: '{_short(checked['name'])}' (use letters, digits and _ . - only, 80 at most)")
    checked["training"] = check_training(root["training"])
    for group, type_ in schema.BY_GROUP.items():
        checked[group] = _typed(group, type_, _mapping(group, root[group]))
    for group in schema.EXTENSIBLE:
        checked[group] = check_component(group, root[group])
    checked["space"] = dict(root["space"] or {})
    checked["limits"] = {name: quantity(f"limits.{name}", v) for name, v in checked["limits"].items()}
    _check_words(checked)
    return checked


def check_component(group: str, values: Any) -> dict[str, Any]:
    """Check one of data, model, search and executor by the type that belongs to its `_target_`."""
    if not isinstance(_mapping(group, values).get("_target_"), str):
        raise UserError(f"{group}: needs `_target_`, the class or function that it configures")
    type_ = schema.BY_TARGET.get(values["_target_"])
    return _typed(group, type_, values) if type_ else dict(values)


def check_training(values: Any) -> dict[str, Any]:
    return _typed("training", schema.Training, _mapping("training", values))


def quantity(name: str, value: Any) -> float | None:
    """Parse a number with an optional unit k, M or G.

    >>> quantity("limits.parameters", "1.5M")
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
        raise UserError(f"{name}: '{value}' is no positive number (such as 250000, 250k or 1.5M)")
    return number


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that holds a value rather than a group, with the value; an empty group is a value.

    >>> dict(flat({"model": {"blocks": 2, "filters": [1]}, "seed": 0}))
    {'model.blocks': 2, 'model.filters': [1], 'seed': 0}
    """
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{dotted}.")
        else:
            yield dotted, value


def _check_form(override: str) -> None:
    """Hydra's own settings are not the user's here, and what has no key has no meaning that an error could name."""
    if not re.match(r"(\+{1,2}|~)?[^\s=+~]", override) or "\0" in override:
        raise _unreadable(override)
    if re.match(r"[+~]*hydra\b", override):
        raise UserError(f"unknown key '{_key(override)}' (hydra's own settings have no effect here; see --config-dir)")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _unreadable(override: str) -> UserError:
    advice = "expected KEY=VALUE, such as budget.trials=5, or GROUP=CHOICE, such as search=grid"
    quotes = """(quote [ ] { } and spaces for the shell; other signs need quotes of their own: 'KEY="é"')"""
    return UserError(f"cannot read '{_short(override.removeprefix('++'))}': {advice} {quotes}")


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _prepare(override: str) -> str:
    # What a space or the tags do not hold yet may be added without Hydra's "+".
    return f"++{override}" if override.startswith(("space.", "tracking.tags")) else override


def _fixed_by(overrides: Sequence[str]) -> list[str]:
    names = [_key(o) for o in overrides if "=" in o]
    spaces = [n.removeprefix("space.") for n in names if n.startswith("space.")]
    fixed = [n for n in names if n.startswith(("model.", "training.", "data.augment."))]
    return [n for n in fixed if not any(s == n or s.startswith(f"{n}.") for s in spaces)]


def _drop(tree: Any, path: Sequence[str]) -> None:
    for part in path[:-1]:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if isinstance(tree, dict):
        tree.pop(path[-1], None)


def _compose(overrides: list[str], search_path: list[Path]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    extra = [f"hydra.searchpath=[{','.join(f'file://{p.resolve()}' for p in search_path)}]"] if search_path else []
    try:
        with initialize_config_dir(str(shipped()), version_base="1.3", job_name="cnnsweep"):
            composed = hydra_compose("config", overrides=[*extra, *overrides])
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except Exception as error:  # of many kinds (parser, loader, file system), and all come from what was given
        raise _explain(error, overrides) from error


def _explain(error: Exception, overrides: Sequence[str]) -> UserError:
    from hydra.errors import MissingConfigException, OverrideParseException
    from yaml import MarkedYAMLError

    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.match(r"Error parsing override '(.*)'", text, re.DOTALL):
        return _unreadable(match[1])
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return UserError(f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}")
    if "override must be a string" in text:
        groups = [o for o in overrides if _key(o) in GROUPS]
        wrong = [o for o in groups if not re.fullmatch(r"[\w./-]+", o.partition("=")[2]) or o.endswith("=null")]
        return _is_group(_key([*wrong, *groups, "group"][0]))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [o for o in error.options or () if not o.startswith("_")]
        return unknown(group or "config", choice, options) if options else UserError(text.splitlines()[0])
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1])
    culprit = next((_short(o) for o in overrides if _key(o) in text or len(overrides) == 1), None)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    place = getattr(error, "full_key", None)  # None also where OmegaConf does not know it
    where = f" with {culprit!r}" if culprit else f" at {place}" if place else ""
    return UserError(f"cannot compose the config{where}: {_short(first, 300)}")


def _is_group(name: str) -> UserError:
    return UserError(f"'{name}' is a group: choose one of its configs ({name}=NAME) or set its keys ({name}.KEY=VALUE)")


def _unknown_key(name: str) -> UserError:
    if name == "sweep":
        return UserError("'sweep' is a preset to add: +sweep=NAME, with a plus")
    if name in GROUPS:
        return _is_group(name)
    base = _compose([], [])
    allowed = [*(k for k, _ in flat(base) if not k.endswith("_target_")), *GROUPS]
    close = nearest(name, allowed) or nearest(name.split(".")[-1], [k.split(".")[-1] for k in allowed])
    return UserError(f"unknown key '{name}'{close or '; python -m cnnsweep --cfg shows all keys'}")


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: expected a group of keys, got '{value}'")
    return value


def _typed(prefix: str, type_: type, values: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    fields = dataclasses.fields(type_)
    names = [f.name for f in fields]
    dot = f"{prefix}." if prefix else ""
    for field in fields:
        if field.default_factory is not dataclasses.MISSING and field.name in values:
            _mapping(f"{dot}{field.name}", values[field.name])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(type_), dict(values))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"{dot}{missing[0]}: a value is needed ({dot}{missing[0]}=...)")
        typed: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    except ConfigKeyError as error:
        name = str(error.full_key)
        raise UserError(f"unknown key '{dot}{name}'{nearest(name, names)} (one of: {', '.join(names)})") from error
    except OmegaConfBaseException as error:
        reason = _short(str(error).splitlines()[0], 300)
        raise UserError(f"{dot}{error.full_key or ''}: {reason}") from error
    _check_bounds(dot, type_, typed)
    return typed


def _check_bounds(dot: str, type_: type, values: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(type_):
        value, bounds = values[field.name], field.metadata
        if isinstance(value, Mapping) and field.name == "augment":
            _check_bounds(f"{dot}augment.", schema.Augment, value)
        _check_value(f"{dot}{field.name}", value, bounds)


def _check_value(name: str, value: Any, bounds: Mapping[str, Any]) -> None:
    if "each" in bounds:
        if value == []:
            raise UserError(f"{name}: needs a value, or a list with one a block; got an empty list")
        for item in value if isinstance(value, list) else [value]:
            if "choices" not in bounds["each"] and type(item) is not int:
                raise UserError(f"{name}: '{item}' is no whole number")
            _check_value(name, item, bounds["each"])
    elif "choices" in bounds:
        if value not in bounds["choices"]:
            raise unknown(name, value, bounds["choices"])
    elif bounds and value is not None:
        check_number(name, value, bounds)


def check_number(name: str, value: float, bounds: Mapping[str, float]) -> None:
    """Raise `UserError` where a number is outside `least`/`above`/`most`/`below`."""
    if isinstance(value, int) and "most" not in bounds:
        bounds = {**bounds, "most": LARGEST}
    rules = [
        ("least", value >= bounds.get("least", value), "at least"),
        ("above", value > bounds.get("above", float("-inf")), "above"),
        ("most", value <= bounds.get("most", value), "at most"),
        ("below", value < bounds.get("below", float("inf")), "below"),
    ]
    if any(rule in bounds and not holds for rule, holds, _ in rules) or not abs(value) < INFINITY:
        allowed = [f"{words} {bounds[rule]:.10g}" for rule, _, words in rules if rule in bounds]
        finite = [] if abs(value) < INFINITY else ["finite"]
        raise UserError(f"{name}: {_short(str(value), 40)} (must be {' and '.join(finite + allowed)})")


def _check_words(config: Mapping[str, Any]) -> None:
    steps, exact = config["training"]["steps_per_execution"], config["training"]["deterministic"]
    if steps != "auto" and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise UserError(f"training.steps_per_execution: '{steps}' (auto, or a whole number from 1)")
    if exact not in ("auto", True, False):
        raise UserError(f"training.deterministic: '{exact}' (auto, true or false)")
    if all(config["budget"][name] is None for name in ("trials", "minutes", "epochs")):
        raise UserError("budget: a sweep needs an end; set at least one of budget.trials, .minutes, .epochs")

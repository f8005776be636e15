"""Composing the config with Hydra and checking it against the schema; every fault is a `UserError`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnsweep.config import GROUPS, shipped
from cnnsweep.config.components import config_type
from cnnsweep.config.optimizers import GROUPS as SETTINGS
from cnnsweep.config.schema import SECTIONS, Config
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import short
from cnnsweep.errors import UserError, nearest_key, unknown

PATHS = ("tracking.dir", "tracking.uri", "data.dir", "data.file")
"""Keys whose values are taken as they are: Hydra's grammar knows few of the signs that a path may have."""

OPEN = ("space.", "tracking.tags", "training.loss_settings", "model.hp.", "job.groups.", "job.config.",
        *(f"training.{group}" for group in SETTINGS))  # fmt: skip
"""What these groups do not hold yet may be added without Hydra's "+"."""

SEARCHABLE = ("job.", "model.", "training.", "data.augment.")


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Return the checked config.

    Hydra composes the shipped configs with those of `config_dir` (default: ./conf, where there is one), which win where
    both have one of the same name, and the overrides. An override of a searched key (`model.filters=32`) fixes it,
    unless `space.model.filters` is overridden too. Raises `UserError`.
    """
    for override in overrides:
        _check_form(override)
    own = own_configs(config_dir).resolve()
    try:
        composed = _compose([_prepare(o) for o in overrides], own)
        if "sweep" in composed:
            raise _no_preset(overrides)
        for fixed in _fixed_by(overrides):
            _drop(composed["space"], fixed.split("."))
        if composed["name"] == "auto":
            composed["name"] = _name_of(str((composed.get("data") or {}).get("_target_")))
        return Config.from_plain(composed)
    except UserError as error:
        raise _name_replaced(error, own) from error


def _name_of(target: str) -> str:
    """What a source of data is called: its function, or its module where that is called "load".

    >>> _name_of("my.shapes.load"), _name_of("cnnsweep.data.mnist.fashion_mnist")
    ('shapes', 'fashion_mnist')
    """
    name = target.removesuffix(".load").rpartition(".")[2]
    return re.sub(r"[^A-Za-z0-9_-]", "", name).lstrip("_-")[:40] or "sweep"


def own_configs(config_dir: str | Path | None = None) -> Path:
    """The folder of the user's own configs: by default ./conf, or ./conf/cnnsweep where an application has ./conf.

    The shipped ones where there is none. Raises `UserError` where `config_dir` is not there.
    """
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir: there is no directory '{config_dir}'")
        return Path(config_dir)
    if not Path("conf").is_dir():
        return shipped()
    own = Path("conf").absolute()
    if (own / "cnnsweep").is_dir():
        return own / "cnnsweep"
    return shipped() if _is_applications(own) else own


def _is_applications(folder: Path) -> bool:
    """Whether configs are those of an application with `@hydra.main`: its main config has none of our groups."""
    for main in folder.glob("config.y*ml"):
        with contextlib.suppress(OSError, UnicodeError):
            return "tracking" not in main.read_text(encoding="utf-8")
    return False


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


def _check_form(override: object) -> None:
    """Hydra's own settings are not the user's here, and what has no key has no meaning that an error could name."""
    if not isinstance(override, str):
        raise UserError(f'overrides are strings, as in run("+sweep=smoke", "budget.trials=5"); got {override!r:.120}')
    if not re.match(r"(\+{1,2}|~)?[^\s=+~]", override) or "\0" in override:
        raise _unreadable(override)
    if not override.isascii() and override.encode(errors="replace").decode() != override:
        raise UserError(f"cannot read {override!a}: it is no text in this locale; set LC_ALL=C.UTF-8, or rename it")
    if re.match(r"[+~]*hydra\b", override):
        raise UserError(f"unknown key '{_key(override)}' (hydra's own settings have no effect here; see --config-dir)")
    if _key(override) in GROUPS and _key(override) != "sweep" and re.search(r"=\s*\[", override):
        raise _several(override)  # Hydra would take the last one


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _unreadable(override: str) -> UserError:
    advice = "expected KEY=VALUE, such as budget.trials=5, or GROUP=CHOICE, such as search=grid"
    quotes = """(quote [ ] { } and spaces for the shell; other signs need quotes of their own: 'KEY="é"')"""
    return UserError(f"cannot read '{short(override.removeprefix('++'))}': {advice} {quotes}")


def _several(override: str) -> UserError:
    """The error for several values in Hydra's own form, which starts a job for each."""
    key = _key(override)
    if key in GROUPS:
        return UserError(f"cannot use '{short(override)}': choose one config ({'+' * (key == 'sweep')}{key}=NAME)")
    searched = key.removeprefix("space.").removesuffix(".values")
    searched = f"space.{searched if searched.startswith(SEARCHABLE) else 'KEY'}"
    return UserError(
        f"cannot use '{short(override)}': a list is [16,32], a text with a comma is '\"a,b\"'; "
        f"to search a key: '{searched}.values=[16,32]'"
    )


def _prepare(override: str) -> str:
    key, _, value = override.partition("=")
    if key.lstrip("+") in PATHS and not re.match(r"""\s*(['"]|null\s*$|\?{3}$|$)""", value):
        return f"{key}={quoted(os.path.expanduser(value))}"  # the shell leaves a ~ after = as it is
    if match := re.fullmatch(r"((?:space\.)?job\.groups)\.([^=]*?[/@][^=]*?)(\.values)?=(.*)", override, re.DOTALL):
        tree, group, values, value = match.groups()  # Hydra would take it for a group of ours
        return f"++{tree}={{{group}:{f'{{values:{value}}}' if values else value}}}"
    return f"++{override}" if override.startswith(OPEN) else override


def quoted(text: str) -> str:
    """Any text in Hydra's quotes, where backslashes are doubled before a quote and at the end, and nowhere else."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def _fixed_by(overrides: Sequence[str]) -> list[str]:
    names = [_key(o) for o in overrides if "=" in o]
    spaces = [n.removeprefix("space.") for n in names if n.startswith("space.")]
    fixed = [n for n in names if n.startswith(SEARCHABLE)]
    return [n for n in fixed if not any(s == n or s.startswith(f"{n}.") for s in spaces)]


def _drop(tree: Any, path: Sequence[str]) -> None:
    """Remove a key, and the groups that are empty without it."""
    first, *rest = path
    if not isinstance(tree, dict):
        return
    if not rest:
        tree.pop(first, None)
    elif tree.get(first):
        _drop(tree[first], rest)
        if not tree[first]:
            del tree[first]


@contextlib.contextmanager
def beside_hydra() -> Iterator[None]:
    """Use Hydra inside of an application with `@hydra.main`, or after `hydra.initialize`: its state comes back."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    outer, base = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, VersionBase.instance().version_base = outer, base


def _compose(overrides: list[str], own: Path) -> Plain:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    try:
        with beside_hydra(), initialize_config_dir(str(shipped()), version_base="1.3", job_name="cnnsweep"):
            # Not as an override of hydra.searchpath, whose grammar not every path fits, and which comes last.
            loader = GlobalHydra.instance().config_loader()
            loader.get_search_path().prepend("own", f"file://{own}", anchor="main")
            loader.repository.initialize_sources(loader.get_search_path())  # type: ignore[attr-defined]
            composed = hydra_compose("config", overrides=overrides)
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except Exception as error:  # of many kinds (parser, loader, file system), and all come from what was given
        raise _explain(error, overrides, own) from error


def _explain(error: Exception, overrides: Sequence[str], own: Path) -> UserError:
    from hydra.errors import MissingConfigException, OverrideParseException
    from yaml import MarkedYAMLError

    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.match(r"Error parsing override '(.*)'", text, re.DOTALL):
        return _unreadable(match[1])
    if match := re.match(r"(?:Sweep parameters|Ambiguous value for argument) '(.*?)'( requires|$)", text, re.MULTILINE):
        return _several(match[1].removeprefix("++"))
    if not __debug__ and "TerminalNodeImpl" in text:
        return UserError("Hydra reads no {key: value} under python -O; start without -O and PYTHONOPTIMIZE")
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return UserError(f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}")
    if "override must be a string" in text:
        groups = [o for o in overrides if _key(o) in GROUPS]
        wrong = [o for o in groups if not re.fullmatch(r"[\w./-]+", o.partition("=")[2]) or o.endswith("=null")]
        return _is_group(_key([*wrong, *groups, "group"][0]))
    if re.search(r"Could not override '\S+@sweep\b", text):
        return _no_preset(overrides)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if (file := own / group / f"{choice}.yml").is_file():
            return UserError(f"'{file}' is not read: name it {choice}.yaml")
        options = [o for o in error.options or () if not o.startswith("_")]
        return unknown(group or "config", choice, options) if options else UserError(text.splitlines()[0])
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], [o for o in overrides if _key(o) in GROUPS], own)
    if match := re.match(r"Error merging override \+*([\w.]+)=([\[{].*)", text, re.DOTALL):
        return _other_kind(match[1], match[2])
    culprit = next((short(o.removeprefix("++")) for o in overrides if _key(o) in text or len(overrides) == 1), None)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    place = getattr(error, "full_key", None)  # None also where OmegaConf does not know it
    where = f" with {culprit!r}" if culprit else f" at {place}" if place else ""
    foreign = "job=hydra" in overrides and "Interpolation key" in first
    more = "; a key of the application's config is \\${KEY}" if foreign else ""
    return UserError(f"cannot compose the config{where}: {short(first, 300)}{more}")


def _other_kind(key: str, value: str) -> UserError:
    """The error for a list where the config has a mapping, or the other way round."""
    wanted = "{key: value}" if value.startswith("[") else f"[{short(value)}]"
    wanted = "{values: [...]} or {min: .., max: ..}" if key.startswith("space.") else wanted
    return UserError(f"{key}: expected {wanted}, got '{short(value)}'")


def _no_preset(overrides: Sequence[str]) -> UserError:
    """The error for a preset whose keys are below `sweep`, where they mean nothing."""
    chosen = " ".join(short(o) for o in overrides if _key(o) == "sweep") or "sweep"
    header = "the line '# @package _global_' (and no byte order mark)"
    return UserError(f"{chosen}: its keys set nothing; the file of a preset begins with {header}")


def _name_replaced(error: UserError, own: Path) -> UserError:
    """The error, with the user's own configs that replace shipped ones: one of them may be meant for something else."""
    replaced = [p for p in sorted(own.rglob("*.yaml")) if (shipped() / p.relative_to(own)).is_file()]
    if not replaced or own.samefile(shipped()):
        return error
    shown = f"{', '.join(map(str, replaced[:3]))}{' …' if len(replaced) > 3 else ''}"
    return UserError(f"{error}\nused in place of the shipped configs of the same names: {shown}")


def _is_group(name: str) -> UserError:
    return UserError(f"'{name}' is a group: choose one of its configs ({name}=NAME) or set its keys ({name}.KEY=VALUE)")


def _unknown_key(name: str, choices: list[str], own: Path) -> UserError:
    """The error for a key that the configs do not have which were chosen."""
    if name == "sweep":
        return UserError("'sweep' is a preset to add: +sweep=NAME, with a plus")
    if name in GROUPS:
        return _is_group(name)
    composed = _compose(choices, own)
    keys = [key for key, _ in flat(composed) if not key.endswith("_target_")]
    group, _, rest = name.partition(".")
    if chosen := [choice for choice in choices if _key(choice) == group]:
        known = [key.partition(".")[2] for key in keys if key.startswith(f"{group}.")]
        error = unknown(f"key of {chosen[-1]}", rest, known, shown=known)
        return UserError(f"{error}{_addable(name, composed)}")
    close = nearest_key(name, keys if "." in name else [*keys, *GROUPS])
    advice = close or ("" if _addable(name, composed) else "; python -m cnnsweep --cfg shows all keys")
    return UserError(f"unknown key '{name}'{advice}{_addable(name, composed)}")


def _addable(name: str, composed: Plain) -> str:
    """How to add a key of one's own to a group that takes such; empty for others."""
    group = name.partition(".")[0]
    target = str((composed.get(group) or {}).get("_target_") if group in SECTIONS else None)
    kind = config_type(group, target) if target.startswith("cnnsweep.") else SECTIONS.get(group)
    takes_own = kind is not None and kind.model_config.get("extra") == "allow"
    return f"; a key of your own is added with a plus: +{name}=VALUE" if takes_own else ""

"""An application with `@hydra.main` as a job: each trial runs it with overrides of its own config."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, cast

from omegaconf import OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer
from pydantic import Field

from cnnsweep.config.components import configured_by, locate
from cnnsweep.config.compose import beside_hydra, flat, quoted
from cnnsweep.config.schema import JobConfig
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import short
from cnnsweep.errors import UserError, unknown
from cnnsweep.search_space.space import Value
from cnnsweep.training.function import Steps, run_call
from cnnsweep.training.own_trial import Trial
from cnnsweep.trial import Discovered, Inspection, TrialSpec


class ApplicationConfig(JobConfig):
    """The config of the job; conf/job/hydra.yaml explains the keys."""

    call: str
    overrides: list[str]
    discover: str | None
    config: Plain = Field(default_factory=dict)
    groups: dict[str, str | None] = Field(default_factory=dict)


@dataclass(frozen=True)
class Application:
    """What `@hydra.main` was given."""

    task: Callable[[Any], Any]
    folder: str | None
    """The absolute path of its configs, or `pkg://`; None where they are all in its code."""
    name: str | None
    base: str | None
    """The version of Hydra that it is written for."""


@configured_by(ApplicationConfig)
def run(spec: TrialSpec) -> Steps:
    """Run the application with the trial's values; what it returns is the objective where it reports nothing."""
    job = spec.config.job.plain()
    chosen = [f"{name}={value}" for name, value in _under("job.groups.", spec.values)]
    searched = [f"{name}={_quoted(value)}" for name, value in _under("job.config.", spec.values)]
    application, overrides = read("job.call", job["call"]), [*job["overrides"], *chosen, *searched]
    return (yield from run_call(spec, lambda trial: _run(application, trial, overrides)))


def _under(prefix: str, values: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """The values whose keys begin so, by the rest of their keys."""
    yield from ((name.removeprefix(prefix), value) for name, value in values.items() if name.startswith(prefix))


def _run(application: Application, trial: Trial, overrides: Sequence[str]) -> object:
    """Call it as its command line does; Hydra writes to `hydra/` in the trial's folder."""
    import hydra

    found: list[Any] = []

    def task(config: object) -> None:
        found.append(application.task(config))

    decorate = hydra.main(version_base=application.base, config_path=application.folder, config_name=application.name)
    own = {"hydra.mode": "RUN", "hydra.job.name": application.task.__module__.rpartition(".")[2],
           "hydra.run.dir": str(trial.folder / "hydra")}  # fmt: skip
    with _as_command([*(f"{key}={_quoted(value)}" for key, value in own.items()), *overrides]):
        decorate(task)()
    return found[-1] if found else None


@contextlib.contextmanager
def _as_command(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads its overrides from the command line, and ends the process at an error unless that is turned off."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *arguments], "1"
    try:
        with beside_hydra(), _registries_kept():
            yield
    finally:
        sys.argv = argv
        del os.environ["HYDRA_FULL_ERROR"]
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full


@contextlib.contextmanager
def _registries_kept() -> Iterator[None]:
    """Forget what the application registers: a resolver that it registers again in the next trial, its log files."""
    resolvers, root = dict(BaseContainer._resolvers), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        BaseContainer._resolvers = resolvers
        for handler in [h for h in root.handlers if h not in handlers]:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def read(key: str, path: str) -> Application:
    """Import an application. Raises UserError where it is none; `key` is the config's, for the error."""
    main = locate(key, path)
    given: Mapping[str, Any] = inspect.getclosurevars(main).nonlocals if inspect.isfunction(main) else {}
    if not {"task_function", "config_path", "config_name"} <= given.keys():
        raise UserError(f"{key}: {path} is no function with @hydra.main; for another function: job=function")
    task, folder = given["task_function"], given["config_path"]
    if folder is not None and not str(folder).startswith("pkg://"):
        folder = str((Path(inspect.getfile(inspect.unwrap(task))).parent / folder).resolve())
    return Application(task, folder, given["config_name"], _base(path))


@functools.cache
def _base(_: str) -> str | None:
    """The version of an application that was just imported: configs that are composed later set another one.

    It counts for the life of the process.
    """
    from hydra import version

    base = version.getbase()
    return str(base) if base else None


def discover(inspection: Inspection) -> Generator[None, bool, Discovered]:
    """A job: the application's own config, composed with `job.overrides` and with each option that is searched."""
    job, searched = inspection.config.job.plain(), (inspection.config.space.get("job") or {}).get("groups") or {}
    try:
        application = read("job.call", job["call"])
        chosen = [f"~{name}" if option is None else f"{name}={option}" for name, option in job["groups"].items()]
        overrides = [*job["overrides"], *chosen]
        overrides += [f"{name}={_quoted(value)}" for name, value in flat(job["config"])]
        with _composing(application) as compose:
            found, groups = compose(overrides)
            options = {n: _options(n, entry, groups) for n, entry in searched.items() if entry is not None}
            trees = {(n, o): compose([*overrides, f"{n}={o}"])[0] for n, each in options.items() for o in each}
    except UserError as error:
        return Discovered(fault=str(error))
    for tree in trees.values():
        found = _joined(found, tree)
    present = {place: {key for key, _ in flat(tree)} for place, tree in trees.items()}
    conditions = {key: _conditions(key, options, present) for key, _ in flat(found)}
    space = {key: {"when": when} for key, when in conditions.items() if when}
    return Discovered({"overrides": overrides, "groups": groups, "config": found}, space)
    yield


Compose = Callable[[Sequence[str]], tuple[Plain, dict[str, str | None]]]


@contextlib.contextmanager
def _composing(application: Application) -> Iterator[Compose]:
    """A function from overrides to the application's config and the options that are chosen in its groups."""
    try:
        with beside_hydra(), _initialized(application):
            yield functools.partial(_compose, application.name)
    except UserError:
        raise
    except Exception as error:  # of many kinds: parser, loader, file system
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UserError(f"job.call: the application's config cannot be composed: {text[:300]}") from error


def _initialized(application: Application) -> contextlib.AbstractContextManager[None]:
    import hydra

    folder, base = application.folder, application.base
    if folder is None:
        return hydra.initialize(None, version_base=base)
    if folder.startswith("pkg://"):
        return hydra.initialize_config_module(folder.removeprefix("pkg://"), version_base=base)
    return hydra.initialize_config_dir(folder, version_base=base)


def _compose(name: str | None, overrides: Sequence[str]) -> tuple[Plain, dict[str, str | None]]:
    import hydra

    config = hydra.compose(name, overrides=list(overrides), return_hydra_config=True)
    chosen = {str(n): option for n, option in config.hydra.runtime.choices.items() if not str(n).startswith("hydra/")}
    with open_dict(config):
        del config["hydra"]
    return cast("Plain", _searchable(OmegaConf.to_container(config, resolve=False, enum_to_str=True))), chosen


def _searchable(value: object) -> object:
    """A config as plain data, without the names of its classes, which are the application's to import."""
    if isinstance(value, dict):
        return {str(name): _searchable(each) for name, each in value.items() if name != "_target_"}
    if isinstance(value, list):
        return [_searchable(each) for each in value]
    return value if isinstance(value, (str, int, float, NoneType)) else str(value)  # a path


def _options(group: str, entry: object, groups: Mapping[str, object]) -> list[str]:
    """The options of a group that are searched. Raises UserError where it has no such group or option."""
    from hydra.core.global_hydra import GlobalHydra

    if group not in groups:
        raise unknown("group of the application", group, groups)
    known = GlobalHydra.instance().config_loader().get_group_options(group.partition("@")[0])
    values = entry["values"] if isinstance(entry, Mapping) and set(entry) == {"values"} else None
    if not isinstance(values, list):
        raise UserError(f"space.job.groups.{group}: expected {{values: [{', '.join(known)}]}}, got '{short(entry)}'")
    for value in values:
        if value not in known:
            raise unknown(f"option of the application's group {group}", value, known)
    return values


def _joined(first: Plain, second: Plain) -> Plain:
    """The keys of both; what both have is the first's."""
    both = {name: _joined(value, second[name]) for name, value in first.items()
            if isinstance(value, dict) and isinstance(second.get(name), dict)}  # fmt: skip
    return {**second, **first, **both}


def _conditions(
    key: str, options: Mapping[str, Sequence[str]], present: Mapping[tuple[str, str], set[str]]
) -> dict[str, list[str]]:
    """The options under which a key is there, of the groups in which it is not there under all."""
    found = {group: [option for option in each if key in present[group, option]] for group, each in options.items()}
    return {f"job.groups.{group}": have for group, have in found.items() if 0 < len(have) < len(options[group])}


def _quoted(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list():
            return f"[{','.join(map(_quoted, value))}]"
        case dict():
            return f"{{{','.join(f'{name}:{_quoted(each)}' for name, each in value.items())}}}"
    return repr(value)

"""An application with `@hydra.main` as a job: each trial runs it with overrides of its own config."""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import logging
import os
import re
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
from cnnsweep.config.compose import beside_hydra, flat
from cnnsweep.config.schema import JobConfig
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import short
from cnnsweep.errors import UserError
from cnnsweep.search_space.space import Value
from cnnsweep.training import application_groups as groups
from cnnsweep.training.application_groups import override_value
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
    more: str | None
    """A folder with more of its configs."""
    base: str | None
    """The version of Hydra that it is written for."""


@configured_by(ApplicationConfig)
def run(spec: TrialSpec) -> Steps:
    """Run the application with the trial's values; what it returns is the objective where it reports nothing."""
    application, overrides = read(spec.config.job.plain())
    overrides += [_choice(name, value) for name, value in _under("job.groups.", spec.values)]
    overrides += [f"{name}={override_value(value)}" for name, value in _under("job.config.", spec.values)]
    return (yield from run_call(spec, lambda trial: _run(application, trial, overrides)))


def _under(prefix: str, values: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """The values whose keys begin so, by the rest of their keys."""
    yield from ((name.removeprefix(prefix), value) for name, value in values.items() if name.startswith(prefix))


def _choice(group: str, option: object) -> str:
    """The override that chooses a group's option, or leaves the group out."""
    return f"~{group}" if option is None else f"{group}={option}"


def _run(application: Application, trial: Trial, overrides: Sequence[str]) -> object:
    """Call it as its command line does; Hydra writes to `hydra/` in the trial's folder."""
    import hydra

    found: list[Any] = []

    def task(config: object) -> None:
        found.append(application.task(config))

    decorate = hydra.main(version_base=application.base, config_path=application.folder, config_name=application.name)
    own = {"hydra.mode": "RUN", "hydra.job.name": application.task.__module__.rpartition(".")[2],
           "hydra.run.dir": str(trial.folder / "hydra")}  # fmt: skip
    options = ["--config-dir", application.more] if application.more else []
    with _as_command([*options, *(f"{key}={override_value(value)}" for key, value in own.items()), *overrides]):
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


def read(job: Plain) -> tuple[Application, list[str]]:
    """Import an application; return it with its configs where `job.overrides` say, and the overrides among these.

    Raises UserError where it is none, or an option among them has no use in a sweep.
    """
    main, (options, overrides) = locate("job.call", job["call"]), _arguments(job["overrides"])
    given: Mapping[str, Any] = inspect.getclosurevars(main).nonlocals if inspect.isfunction(main) else {}
    if not {"task_function", "config_path", "config_name"} <= given.keys():
        raise UserError(f"job.call: {job['call']} is no function with @hydra.main; for another function: job=function")
    task, folder = given["task_function"], options["config_path"] or given["config_path"]
    if folder is not None and not str(folder).startswith("pkg://"):
        folder = str((Path(inspect.getfile(inspect.unwrap(task))).parent / folder).resolve())
    name, more = options["config_name"] or given["config_name"], options["config_dir"]
    if more and not Path(more).is_dir():
        raise UserError(f"job.overrides: --config-dir: there is no directory '{more}'")
    return Application(task, folder, name, more, _base(job["call"])), overrides


def _arguments(given: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Where an application's configs are by the options of its command line, and the overrides among these."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for long, letters in (("--config-name", "-cn"), ("--config-path", "-cp"), ("--config-dir", "-cd")):
        parser.add_argument(letters, long)
    parser.add_argument("overrides", nargs="*")
    try:
        found, others = parser.parse_known_intermixed_args(list(given))
    except argparse.ArgumentError as error:
        raise UserError(f"job.overrides: {error}") from error
    if others:
        known = "of options, only --config-name, --config-path and --config-dir have"
        raise UserError(f"job.overrides: '{short(others[0])}' has no use in a sweep ({known})")
    return vars(found), found.overrides


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
    job, searched = inspection.config.job.plain(), inspection.config.space.get("job") or {}
    try:
        application, overrides = read(job)
        choices = [_choice(name, option) for name, option in job["groups"].items()]
        with _composing(application) as compose:
            found = groups.variants(compose, [*overrides, *choices], searched.get("groups") or {})
            given, found, entries = groups.give(compose, found, dict(flat(job["config"])))
            groups.try_values(compose, found, searched.get("config") or {})
    except UserError as error:
        return Discovered(fault=str(error))
    keys = {key: None for variant in found.values() for key in sorted(variant.keys)}
    space = {key: {"when": when} for key in keys if (when := groups.conditions(key, found))} | entries
    names = groups.searched_names(searched.get("config") or {})
    kept = [*groups.known(found, names), *(key.removeprefix("config.") for key in entries)]
    own = groups.common([variant.config for variant in found.values()], kept)
    chosen = groups.common([variant.groups for variant in found.values()], searched.get("groups") or {})
    return Discovered({"overrides": [*job["overrides"], *choices, *given], "groups": chosen, "config": own}, space)
    yield


@contextlib.contextmanager
def _composing(application: Application) -> Iterator[groups.Compose]:
    """A function from overrides to the application's config and the options that are chosen in its groups."""
    from hydra.core.global_hydra import GlobalHydra

    try:
        with beside_hydra(), _initialized(application):
            if application.more:
                loader = GlobalHydra.instance().config_loader()
                own = f"file://{Path(application.more).resolve()}"
                loader.get_search_path().prepend("command-line", own, anchor="schema")
                loader.repository.initialize_sources(loader.get_search_path())  # type: ignore[attr-defined]
            yield functools.partial(_compose, application.name)
    except UserError:
        raise
    except Exception as error:  # of many kinds: parser, loader, file system
        raise UserError(f"job.call: the application's config cannot be composed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first line of Hydra's error, with what it says only to those who know its parser."""
    from hydra.errors import OverrideParseException

    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, OverrideParseException):
        return f"'{short(error.override)}' is no override, such as KEY=VALUE"
    if match := re.match(r"Could not override '([^']+)'", text):
        return f"it has no '{match[1]}' (in job.overrides, '+{match[1]}=VALUE' adds one)"
    if text.startswith("Error merging override"):
        return f"{text}: {str(error.__cause__ or '').splitlines()[0]}" if error.__cause__ else text
    if text.startswith("Ambiguous value"):
        return f"{text} (a list is [a,b]; to search a key: space.job.config.KEY.values=[a,b])"
    return text[:300]


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

"""An application with `@hydra.main` as a job: each trial runs it with overrides of its own config."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field

from cnnsweep.config.components import configured_by, locate
from cnnsweep.config.schema import JobConfig
from cnnsweep.config.section import Plain
from cnnsweep.errors import UserError
from cnnsweep.training.function import Steps, run_call
from cnnsweep.training.own_trial import Trial
from cnnsweep.trial import Discovered, Inspection, TrialSpec


class ApplicationConfig(JobConfig):
    """The config of the job; conf/job/hydra.yaml explains the keys."""

    call: str
    overrides: list[str]
    discover: str | None
    config: Plain = Field(default_factory=dict)


@dataclass(frozen=True)
class Application:
    """What `@hydra.main` was given."""

    task: Callable[[Any], Any]
    folder: str | None
    """The absolute path of its configs, or `pkg://`; None where they are all in its code."""
    name: str | None


@configured_by(ApplicationConfig)
def run(spec: TrialSpec) -> Steps:
    """Run the application with the trial's values; what it returns is the objective where it reports nothing."""
    job = spec.config.job.plain()
    prefix = "job.config."
    searched = [
        f"{name.removeprefix(prefix)}={_quoted(v)}" for name, v in spec.values.items() if name.startswith(prefix)
    ]
    application = read("job.call", job["call"])
    return (yield from run_call(spec, lambda trial: _run(application, trial, [*job["overrides"], *searched])))


def _run(application: Application, trial: Trial, overrides: Sequence[str]) -> object:
    """Call it as its command line does; Hydra writes to `hydra/` in the trial's folder."""
    import hydra
    from hydra import version

    found: list[Any] = []

    def task(config: object) -> None:
        found.append(application.task(config))

    base = version.getbase()
    decorate = hydra.main(
        version_base=str(base) if base else None, config_path=application.folder, config_name=application.name
    )
    name = application.task.__module__.rpartition(".")[2]
    with _as_command([f"hydra.job.name={name}", f"hydra.run.dir='{trial.folder / 'hydra'}'", *overrides]):
        decorate(task)()
    return found[-1] if found else None


@contextlib.contextmanager
def _as_command(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads its overrides from the command line, and ends the process at an error unless that is turned off."""
    from hydra.core.global_hydra import GlobalHydra

    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *arguments], "1"
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]


def read(key: str, path: str) -> Application:
    """Import an application. Raises UserError where it is none; `key` is the config's, for the error."""
    main = locate(key, path)
    given: Mapping[str, Any] = inspect.getclosurevars(main).nonlocals if inspect.isfunction(main) else {}
    if not {"task_function", "config_path", "config_name"} <= given.keys():
        raise UserError(f"{key}: {path} is no function with @hydra.main; for another function: job=function")
    task, folder = given["task_function"], given["config_path"]
    if folder is not None and not str(folder).startswith("pkg://"):
        folder = str((Path(inspect.getfile(task)).parent / folder).resolve())
    return Application(task, folder, given["config_name"])


def discover(inspection: Inspection) -> Generator[None, bool, Discovered]:
    """A job: the application's own config, composed with `job.overrides`."""
    job = inspection.config.job.plain()
    try:
        return Discovered(_compose(read("job.call", job["call"]), job["overrides"]))
    except UserError as error:
        return Discovered(fault=str(error))
    yield


def _compose(application: Application, overrides: Sequence[str]) -> Plain:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    folder = application.folder
    try:
        begin: contextlib.AbstractContextManager[None]
        if folder is None:
            begin = hydra.initialize(None, version_base="1.3")
        elif folder.startswith("pkg://"):
            begin = hydra.initialize_config_module(folder.removeprefix("pkg://"), version_base="1.3")
        else:
            begin = hydra.initialize_config_dir(folder, version_base="1.3")
        with begin:
            config = hydra.compose(application.name, overrides=list(overrides))
    except Exception as error:  # of many kinds: parser, loader, file system
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UserError(f"job.call: the application's config cannot be composed: {text[:300]}") from error
    found = OmegaConf.to_container(config, resolve=False)
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def _quoted(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

"""A training function of the user's own, in any framework, as a job: it gets its config and a `Trial`."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import threading
import typing
from collections.abc import Callable, Generator, Mapping
from queue import SimpleQueue
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnsweep.config.components import configured_by, locate
from cnnsweep.config.schema import JobConfig
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import extremes, parse_space
from cnnsweep.training import own_checkpoints as checkpoints
from cnnsweep.training import own_trial
from cnnsweep.training.early_stopping import stopped_after
from cnnsweep.training.own_trial import Trial, TrialStopped
from cnnsweep.trial import EpochReport, Inspection, TrialResult, TrialSpec

Steps = Generator[EpochReport, bool, TrialResult]


class FunctionConfig(JobConfig, extra="allow"):
    """The function; all other keys are its config."""

    call: str


@configured_by(FunctionConfig)
def run(spec: TrialSpec) -> Steps:
    """Call the function and pass on what it reports, from its last checkpoint or from the start.

    Reports that the driver has not seen come first.
    """
    function = locate("job.call", spec.config.job.plain()["call"])
    argument = config_for(function, spec.config.job.own)
    return (yield from run_call(spec, lambda trial: function(argument, trial)))


def run_call(spec: TrialSpec, call: Callable[[Trial], object]) -> Steps:
    """Run a call that reports to a trial, in a thread of its own; what it returns counts where it reports nothing."""
    if spec.initial_epoch >= spec.epochs:  # the driver died before it learned of the end
        return TrialResult(spec.number, "completed", None, spec.initial_epoch)
    if not spec.initial_epoch:
        checkpoints.prune(spec.folder)
    found = checkpoints.last(spec.folder)
    rows = found[1].epochs if found else []
    for epoch in range(spec.initial_epoch + 1, min(len(rows), spec.epochs) + 1):
        keep_on = yield EpochReport(spec.number, epoch, rows[epoch - 1])
        if not keep_on or epoch == spec.epochs:
            reason = None if keep_on else stopped_after(epoch)
            return TrialResult(spec.number, "completed" if keep_on else "pruned", reason, epoch)
    reports: SimpleQueue[EpochReport | BaseException | None] = SimpleQueue()
    answers: SimpleQueue[bool | None] = SimpleQueue()

    def send(report: EpochReport) -> bool:
        reports.put(report)
        if (answer := answers.get()) is None:
            raise TrialStopped
        return answer

    trial = Trial(spec, send)
    threading.Thread(target=_call, args=(call, trial, reports), name=f"trial-{spec.number}", daemon=True).start()
    try:
        while isinstance(report := reports.get(), EpochReport):
            answers.put((yield report))
    finally:
        answers.put(None)  # where the job is closed, the function waits for it
    if trial.fault:
        return TrialResult(spec.number, "failed", trial.fault, trial.done)
    if report is not None:
        raise report
    summary = {"trial_seconds": trial.seconds}
    if trial.stopped:
        return TrialResult(spec.number, "pruned", stopped_after(trial.done), trial.done, summary)
    if not trial.done:
        return TrialResult(spec.number, "failed", f"{spec.config.job.plain().get('call')} returned without a report "
                           "(trial.report(epoch, METRIC=value)) and without a value")  # fmt: skip
    return TrialResult(spec.number, "completed", None, trial.done, summary)


def _call(
    call: Callable[[Trial], object], trial: Trial, reports: SimpleQueue[EpochReport | BaseException | None]
) -> None:
    end: BaseException | None = None
    own_trial._current[:] = [trial]
    try:
        with contextlib.chdir("."):  # the worker's next trial starts in the same folder
            value = call(trial)
        if value is not None and not trial.done and not trial.fault:
            trial._report(
                1, typing.cast("Mapping[str, typing.SupportsFloat]", _metrics(value, trial))
            )  # it checks them
    except TrialStopped:
        pass
    except SystemExit as error:  # of the trial, not of the worker
        if error.code not in (None, 0):
            trial.fault = f"SystemExit: {error.code}"
    except BaseException as error:  # the trial must not end without a reason
        end = error
    own_trial._current.clear()
    reports.put(end)


def _metrics(value: object, trial: Trial) -> Mapping[str, object]:
    """What a function returned as metrics: a number is the objective, several numbers are those that are searched."""
    if isinstance(value, Mapping):
        return value
    names = trial.objective.metrics
    several = isinstance(value, (tuple, list)) and 1 < len(names) == len(value)
    return dict(zip(names, typing.cast("tuple[object, ...]", value), strict=True)) if several else {names[0]: value}


def config_for(function: Callable[..., object], own: Mapping[str, Any]) -> Any:
    """The function's first argument: its config, read-only, as OmegaConf's mapping, whose keys are attributes too.

    It is of the dataclass that annotates the argument, where one does. Raises UserError where the keys do not fit it.
    """
    config = OmegaConf.create(dict(own))
    kind = _annotation(function)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        OmegaConf.set_readonly(config, True)
        OmegaConf.set_struct(config, True)
        return config
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    except OmegaConfBaseException as error:
        raise UserError(f"job.{error.full_key or ''}: {str(error).splitlines()[0]}") from error


def _annotation(function: Callable[..., object]) -> object:
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None:
        return None
    try:
        return typing.get_type_hints(function).get(first.name)
    except Exception:  # an annotation that is no expression, or of a module that is not there
        return first.annotation


def check(inspection: Inspection) -> Generator[None, bool, list[str]]:
    """A job: what is wrong with the function, found by importing it, without calling it."""
    job = inspection.config.job
    call = job.plain()["call"]
    try:
        function = locate("job.call", call)
        inspect.signature(function).bind("config", "trial")
        config_for(function, job.own)
        for p in parse_space(inspection.config).parameters:
            for value in extremes(p):
                config_for(function, inspection.config.with_values({p.name: value}).job.own)
    except UserError as error:
        return [str(error)]
    except TypeError:
        return [f"job.call: {call}{inspect.signature(function)} cannot be called with (config, trial)"]
    except ValueError:  # a function in C has no signature
        pass
    return []
    yield

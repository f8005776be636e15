"""Resuming a sweep: its journal is replayed for a new search and a new state, then the loop goes on."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnsweep.config.components import program
from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Budget, Config
from cnnsweep.config.section import Plain
from cnnsweep.config.trust import expect_trusted, trust_option, trusted_by
from cnnsweep.data import loading
from cnnsweep.errors import UserError, unknown
from cnnsweep.formatting import counted
from cnnsweep.journal import journal
from cnnsweep.journal.events import (
    EpochEnded,
    Event,
    SweepResumed,
    SweepStarted,
    SweepStopped,
    TrialEnded,
    TrialStarted,
)
from cnnsweep.journal.state import SweepState, replay
from cnnsweep.search.oracle import Oracle
from cnnsweep.sweep import catalog, session
from cnnsweep.sweep.limits import UNTESTED, go_on, spent
from cnnsweep.tracking.credentials import redact, shown
from cnnsweep.tracking.locations import with_store_at
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.tracking.tracker import Tracker, read_progress

CHANGEABLE = ("budget", "executor", "tracking.dir", "tracking.uri")


def resume(
    names: Sequence[str],
    overrides: Sequence[str],
    watcher: session.Watcher,
    command: Sequence[str] = (),
    config_dir: str | None = None,
    failed: bool = False,
    trust: bool = False,
) -> session.Outcome | None:
    """Go on with a sweep, the last unfinished one where none is named; None where it is finished, which is shown.

    With `failed`, trials that failed are trained again; with `trust`, the journal may name code that no config of today
    names. Raises UserError before any training where something does not fit, such as data that have changed.
    """
    folder, changes = _find(names, overrides, config_dir, failed)
    path = folder / journal.FILE
    with contextlib.ExitStack() as stack:
        stack.enter_context(catalog.hold(folder))
        if mended := journal.mend(path):
            watcher.say(mended)
        events = journal.read(path)
        opening, config = _opening(events, path), _changed(events, changes, config_dir)
        if not trust:
            expect_trusted(f"the journal of {folder.name}", config.plain(), trusted_by(None, config_dir, overrides))
        if _is_finished(events, config, failed):
            _say_finished(events, config, folder, watcher)
            return None
        _check_runs(config, folder, watcher)
        data = _same_data(opening, config, folder)
        started_with = config.replace(budget=Budget(**opening.config["budget"]))
        parts = session.assemble(started_with, folder, watcher, stack, data, opening.earlier)
        state = SweepState(parts.search.objective)
        pending = rebuild(parts.search, state, events, path)
        pending |= {trial.number: True for trial in state.with_status("failed") if failed}
        pending |= dict.fromkeys(go_on(config.budget, state), True)
        parts.search.max_trials, config = config.budget.trials, redact(config)
        watcher.say(f"resuming {folder.name}: {_progress(state, pending)}")
        parts = replace(parts, problem=replace(parts.problem, config=config))
        return session.conduct(parts, state, pending, watcher, stack, _resumed(config, command), events)


def _find(
    names: Sequence[str], overrides: Sequence[str], config_dir: str | None, failed: bool
) -> tuple[Path, list[str]]:
    """The sweep's folder, and the overrides with the tracking.dir as the last of them."""
    for override in overrides:
        name = override.split("=")[0]
        if "=" not in override or not (name in CHANGEABLE or name.startswith(("budget.", "executor."))):
            raise UserError(
                f"resume: cannot use '{override}': a sweep goes on with the config it was started with; only budget.*, "
                "executor.*, tracking.dir (where it is) and tracking.uri may be given"
            )
        if name.startswith("budget.") and name[7:] not in (known := list(Budget.model_fields)):
            raise unknown("key", name, [f"budget.{n}" for n in known])
        if name.startswith("budget.") and re.match(r"\s*[+-]", override.partition("=")[2]):
            raise UserError(
                f"resume: cannot use '{override}': a budget is a total, what is done already included; give it without "
                "a sign"
            )
    where = [o for o in overrides if o.startswith("tracking.dir=")]
    directory = compose(where, config_dir).tracking.dir
    root = Path(directory).absolute()
    larger = failed or any(o.startswith("budget") for o in overrides)
    folder = catalog.find(root, names[0] if names else None, larger)
    return folder, [*(o for o in overrides if o not in where), f"tracking.dir={directory}"]


def _opening(events: Sequence[Event], path: Path) -> SweepStarted:
    opening = events[0]
    if not isinstance(opening, SweepStarted) or "data" not in opening.provenance:
        raise journal.damaged(path, 1, "it has no provenance of the data")
    return opening


def _resumed(config: Config, command: Sequence[str]) -> SweepResumed:
    return SweepResumed(budget=config.budget.plain(), executor=config.executor.plain(), **session.driver(command))


def rebuild(search: Oracle, state: SweepState, events: Sequence[Event], path: Path) -> dict[int, bool]:
    """Bring a new search and a new state to the end of a journal, without training anything.

    Returns the trials that were running or interrupted, and whether the search wanted to see more of each. Raises
    UserError, naming the journal's line.
    """
    pending: dict[int, bool] = {}
    proposals: set[str] = set()
    for line, event in enumerate(events, start=1):
        try:
            match event:
                case TrialStarted() if event.proposal not in proposals:
                    _repeat(search, state, event)
                    proposals.add(event.proposal)
                    pending[event.trial] = True
                case TrialStarted() if state.trials[event.trial].has_ended:
                    search.reopen(event.proposal)
                    pending[event.trial] = True
                case EpochEnded():
                    proposal = state.trials[event.trial].proposal
                    pending[event.trial] = search.report(proposal, event.epoch, event.metrics)
                case TrialEnded() if event.status != "interrupted":
                    del pending[event.trial]
                    trial = state.trials[event.trial]
                    succeeded = trial.succeeded(event.status, state.objective)
                    search.end(trial.proposal, succeeded, event.status == "completed")
                case SweepResumed():
                    search.max_trials = event.budget["trials"]
            state.apply(event)
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise journal.damaged(path, line, f"its event does not fit those before it ({error!r})") from error
    return pending


def _repeat(search: Oracle, state: SweepState, event: TrialStarted) -> None:
    before = state.trials.get(event.trial)
    continues = before.proposal if before else None
    proposal = search.repeat(event.proposal, event.values, continues)
    if proposal is None or proposal.continues != continues:
        raise UserError(
            f"trial {event.trial} cannot be followed: the search would have gone on otherwise. Was the sweep made with "
            "another version of cnnsweep or of its packages? provenance in the journal's first line says which"
        )


def _changed(events: Sequence[Event], changes: Sequence[str], config_dir: str | None) -> Config:
    """The config that the sweep was started with, with what was changed since and is changed now."""
    config: Plain = {}
    for event in events:
        match event:
            case SweepStarted():
                config |= event.config
            case SweepResumed():
                config |= {"budget": event.budget, "executor": event.executor}
    config["tracking"] = dict(config["tracking"])
    for group in ("budget", "executor"):
        ours = [o for o in changes if o.split("=")[0].partition(".")[0] == group]
        if any(o.startswith(f"{group}=") for o in ours):
            config[group] = compose(ours, config_dir).plain()[group]
        elif ours:
            config[group] = _override(config[group], ours)
    for change in changes:
        name, _, value = change.partition("=")
        if name == "tracking.dir":
            config = with_store_at(config, value)
        elif name == "tracking.uri":
            config["tracking"]["uri"] = value
    return Config.from_plain(config)


def _is_finished(events: Sequence[Event], config: Config, failed: bool = False) -> bool:
    """Whether there is nothing to go on with: it ended by itself, and the budget asks for no more.

    `failed`: trials that failed are to be trained again.
    """
    last = events[-1]
    if not isinstance(last, SweepStopped) or last.status == "interrupted":
        return False
    if failed and last.summary.get("trials_failed"):
        return False
    runs = [event for event in events if isinstance(event, (SweepStarted, SweepResumed))]
    budget = runs[-1].budget if isinstance(runs[-1], SweepResumed) else runs[-1].config["budget"]
    if budget == config.budget.plain():
        return last.status == "completed" and UNTESTED not in (last.reason or "")
    state = replay(events, Objective.of(config.objective))
    is_spent = spent(config.budget, state, state.last) is not None and not go_on(config.budget, state)
    return is_spent and not state.missing_replicates(config.budget)


def _override(group: Mapping[str, Any], overrides: Sequence[str]) -> Plain:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        merged = OmegaConf.merge(dict(group), OmegaConf.from_dotlist([o.partition(".")[2] for o in overrides]))
        return OmegaConf.to_container(merged)  # type: ignore[return-value]
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise UserError(f"resume: cannot read {' '.join(overrides)}: {str(error).splitlines()[0]}") from error


def _same_data(opening: SweepStarted, config: Config, folder: Path) -> loading.Dataset:
    """Load the data again and compare; where they are not available any more, the sweep's own copy will do."""
    was = opening.provenance["data"]
    try:
        data = loading.load(config.data, config.seed, config.task)
    except UserError:
        with contextlib.suppress(UserError):
            data = loading.open_saved(folder / "data")
            if data.digest == was["digest"]:
                return data
        raise
    loading.refuse_other(data, was, f"{folder.name} began")
    return data


def _check_runs(config: Config, folder: Path, watcher: session.Watcher) -> None:
    """Notice runs that someone deleted: MLflow takes nothing more for them."""
    _, runs = read_progress(folder / "tracking.jsonl")
    if not runs:
        return
    uri = open_store(config.tracking)
    client = connect(uri)
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    try:
        parent = client.get_run(runs[None]) if None in runs else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        watcher.say(f"the MLflow store {shown(uri)} does not know this sweep's run: everything is sent again")
        return
    if parent is not None and parent.info.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow run of {folder.name} ({runs[None]}) was deleted: restore it "
            f"(mlflow runs restore --run-id {runs[None]}, with MLFLOW_TRACKING_URI={shown(uri)}) and resume again"
        )
    wanted = f"tags.`cnnsweep.sweep` = '{folder.name}'"
    if parent and (gone := client.search_runs([parent.info.experiment_id], wanted, ViewType.DELETED_ONLY)):
        names = ", ".join(run.info.run_name or run.info.run_id for run in gone[:3])
        watcher.say(f"nothing more is sent to {counted(len(gone), 'deleted MLflow run')}: {names}")


def _say_finished(events: Sequence[Event], config: Config, folder: Path, watcher: session.Watcher) -> None:
    if waiting := catalog.unsent(folder, len(events)):
        uri = open_store(config.tracking)
        tracker = Tracker(uri, config.tracking.experiment, folder, config.tracking.tags)
        tracker.catch_up(events)
        left, trouble = tracker.flush(session.FLUSH_SECONDS), tracker.trouble
        tracker.close(session.HURRIED_SECONDS)
        watcher.say(trouble or f"sent to MLflow: {counted(waiting - left, 'missing event')}")
    last = events[-1]
    assert isinstance(last, SweepStopped)
    trials = len({e.trial for e in events if isinstance(e, TrialStarted)})
    where = "" if config.tracking.dir == "mlruns" else f" {shlex.quote(f'tracking.dir={config.tracking.dir}')}"
    if last.status == "completed":  # it may have been killed since
        shutil.rmtree(folder / "data", ignore_errors=True)
        if config.tracking.report and not (folder / "report").exists():
            at = f" tracking=server {shlex.quote(f'tracking.uri={shown(url)}')}" if (url := config.tracking.uri) else ""
            watcher.say(f"its report is missing; to make it: {program()} report {folder.name}{at}{where}")
    where += trust_option(config)
    more = f"{program()} resume {folder.name} budget.trials={2 * trials}{where}"
    watcher.say(f"{folder.name} is finished ({last.status}: {last.reason}); to go on with it: {more}")
    if failures := last.summary.get("trials_failed"):
        again = f"{program()} resume {folder.name} --failed{where}"
        watcher.say(f"{failures:.0f} of its trials failed; to train them again: {again}")


def _progress(state: SweepState, pending: Mapping[int, bool]) -> str:
    ended = len(state.trials) - len(pending)
    done = f"{counted(ended, 'trial')} done"
    if not pending:
        return done
    epochs = [f"{n:03d} after epoch {state.trials[n].done}" for n in pending]
    return f"{done}, {len(epochs)} to go on: {', '.join(epochs[:4])}{' …' if len(epochs) > 4 else ''}"

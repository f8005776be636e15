"""Going on with a sweep from its journal, whatever ended it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from cnnsweep.config import schema
from cnnsweep.config.components import program
from cnnsweep.config.compose import check, compose
from cnnsweep.config.objective import Objective
from cnnsweep.data import loading as datasets
from cnnsweep.errors import UserError, unknown
from cnnsweep.journal import journal, replay
from cnnsweep.journal import state as ledger
from cnnsweep.sweep import catalog as standing
from cnnsweep.sweep import lock, session
from cnnsweep.sweep.budget import spent
from cnnsweep.terminal.summary import where_kept
from cnnsweep.tracking.credentials import redact
from cnnsweep.tracking.store import connect
from cnnsweep.tracking.tracker import Progress, Tracker, open_store

GROUPS = ("budget", "executor")
CHANGEABLE = ("budget", "executor", "tracking.dir", "tracking.uri")


@dataclass(frozen=True)
class Wish:
    """Which sweep to go on with, and what to change."""

    folder: Path
    directory: str
    """The tracking.dir, as it is given."""
    overrides: Sequence[str]
    config_dir: str | None = None


def read(named: Sequence[str], overrides: Sequence[str], config_dir: str | None = None) -> Wish:
    """Find the sweep. Raises UserError for one that is not there, and for what cannot be changed."""
    for override in overrides:
        name = override.split("=")[0]
        if "=" not in override or not (name in CHANGEABLE or name.startswith(("budget.", "executor."))):
            raise UserError(
                f"resume: cannot use '{override}': a sweep goes on with the config it was started with; only "
                f"{', '.join(f'{g}.*' for g in GROUPS)}, tracking.dir (where it is) and tracking.uri may be given"
            )
        if name.startswith("budget.") and name[7:] not in (names := [f.name for f in fields(schema.Budget)]):
            raise unknown("key", name, [f"budget.{n}" for n in names])
    where = [o for o in overrides if o.startswith("tracking.dir=")]
    directory = compose(where, config_dir)["tracking"]["dir"]
    root = Path(directory).absolute()
    folder = standing.find(root, named[0]) if named else _last_unfinished(root, any("budget" in o for o in overrides))
    return Wish(folder, directory, [o for o in overrides if o not in where], config_dir)


def resume(wish: Wish, watcher: session.Watcher, command: Sequence[str] = ()) -> session.Outcome | None:
    """Go on with a sweep; None where it was finished, which is said.

    Raises UserError before any training: where another process drives the sweep, the journal is damaged, the data
    changed, or the MLflow run was deleted.
    """
    folder = wish.folder
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.hold(folder))
        path = folder / journal.FILE
        if mended := journal.mend(path):
            watcher.say(mended)
        events = journal.read(path)
        if missing := [key for key in ("config", "facts") if key not in events[0]]:
            raise journal.damaged(path, 1, f"it has no {' and no '.join(missing)}")
        config = changed(events, wish)
        if is_finished(events, config):
            _say_finished(events, config, folder, watcher)
            return None
        _check_runs(config, folder, watcher)
        data = _same_data(events[0], config, folder)
        started_with = {**config, "budget": events[0]["config"]["budget"]}
        parts = session.assemble(started_with, folder, watcher, stack, data, events[0].get("earlier", ()))
        before = replay.replay(parts.search, ledger.SweepState(parts.objective), events, path)
        parts.search.extend(config["budget"]["trials"])
        now = redact(config)
        parts = replace(parts, config=now, problem=replace(parts.problem, config=now))
        watcher.say(f"resuming {folder.name}: {_progress(before)}")
        told = {group: config[group] for group in GROUPS}
        told["command"] = redact(list(command))
        return session.conduct(parts, before, watcher, stack, "resume", told, events)


def changed(events: Sequence[Mapping[str, Any]], wish: Wish) -> dict[str, Any]:
    """The config that the sweep was started with, with what was changed since and is changed now."""
    config = {**events[0]["config"]}
    for event in events:
        if event["event"] == "resume":
            config |= {group: event[group] for group in GROUPS}
    config["tracking"] = {**config["tracking"], "dir": wish.directory}
    for group in GROUPS:
        ours = [o for o in wish.overrides if o.split("=")[0].partition(".")[0] == group]
        if any(o.startswith(f"{group}=") for o in ours):
            config[group] = compose(ours, wish.config_dir)[group]
        elif ours:
            config[group] = _override(config[group], ours)
    for override in wish.overrides:
        if override.startswith("tracking.uri="):
            config["tracking"]["uri"] = override.partition("=")[2]
    return check(config)


def is_finished(events: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> bool:
    """Whether there is nothing to go on with: it ended by itself, and the budget is no larger."""
    last = events[-1]
    if last["event"] != "stop" or last["status"] == "interrupted":
        return False
    held = next((e["budget"] for e in reversed(events) if e["event"] == "resume"), events[0]["config"]["budget"])
    if held == config["budget"]:
        return last["status"] == "completed"
    return spent(config["budget"], ledger.replay(events, Objective.of(config["objective"]))) is not None


def _override(group: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        merged = OmegaConf.merge(dict(group), OmegaConf.from_dotlist([o.partition(".")[2] for o in overrides]))
        return OmegaConf.to_container(merged)  # type: ignore[return-value]
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise UserError(f"resume: cannot read {' '.join(overrides)}: {str(error).splitlines()[0]}") from error


def _last_unfinished(root: Path, larger: bool) -> Path:
    """The sweep that was last at work among those to go on with; with a larger budget, finished ones too."""
    told: list[tuple[standing.Standing, Path]] = []
    for folder in standing.folders(root):
        with contextlib.suppress(UserError):  # a damaged one is for those who name it
            told.append((standing.read(folder), folder))
    if not told:
        raise UserError(f"nothing to resume: there are no sweeps in {root / 'sweeps'} (tracking.dir=DIR: elsewhere)")
    latest = [folder for _, folder in sorted(told, key=lambda item: item[0].last, reverse=True)]
    stands = {folder: (standing.state(folder, one), one) for one, folder in told}
    for wanted in ("interrupted", "unsent", "any"):
        for folder in latest:
            state, one = stands[folder]
            unsent = wanted == "unsent" and state != "running" and not larger
            if state == wanted or (unsent and standing.unsent(folder, one.events)):
                return folder
            if wanted == "any" and state != "running":
                return folder
    raise UserError(f"nothing to resume: {latest[0].name} is still running")


def _same_data(opening: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> datasets.Dataset:
    """Load the data again and compare; where it cannot be had any more, the sweep's own copy will do."""
    was = opening["facts"]["data"]
    try:
        data = datasets.load(config["data"], config["seed"])
    except UserError:
        with contextlib.suppress(UserError):
            data = datasets.open_saved(folder / "data")
            if data.digest == was["digest"]:
                return data
        raise
    if data.digest != was["digest"]:
        sizes = [
            (was[k], len(x)) for k, x in (("train", data.x_train), ("validation", data.x_val), ("test", data.x_test))
        ]
        counts = ", ".join(f"{a:,} → {b:,}" for a, b in sizes)
        raise UserError(
            f"the data have changed since {folder.name} began (digest {was['digest']} → {data.digest}; training, "
            f"validation and test images: {counts}; {data.source}): its trials cannot be compared with new ones. "
            "Put the old files back, or start a new sweep"
        )
    return data


def _check_runs(config: Mapping[str, Any], folder: Path, watcher: session.Watcher) -> None:
    """Notice runs that someone deleted: MLflow takes nothing more for them."""
    runs = Progress.known(folder / "tracking.jsonl")
    if not runs:
        return
    uri = open_store(config["tracking"])
    client = connect(uri)
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    try:
        parent = client.get_run(runs[None]) if None in runs else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        watcher.say(f"the MLflow store {redact(uri)} does not know this sweep's run: everything is sent again")
        return
    if parent is not None and parent.info.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow run of {folder.name} ({runs[None]}) was deleted: restore it "
            f"(mlflow runs restore --run-id {runs[None]}, with MLFLOW_TRACKING_URI={redact(uri)}) and resume again"
        )
    wanted = f"tags.`cnnsweep.sweep` = '{folder.name}'"
    experiments = [parent.info.experiment_id] if parent else []
    gone = client.search_runs(experiments, wanted, ViewType.DELETED_ONLY) if experiments else []
    if gone:
        names = ", ".join(run.info.run_name or run.info.run_id for run in gone[:3])
        watcher.say(f"{len(gone)} MLflow runs were deleted and get nothing more: {names}")


def _say_finished(
    events: Sequence[Mapping[str, Any]], config: Mapping[str, Any], folder: Path, watcher: session.Watcher
) -> None:
    if waiting := standing.unsent(folder, len(events)):
        uri = open_store(config["tracking"])
        tracker = Tracker(uri, config["tracking"]["experiment"], folder, config["tracking"]["tags"])
        tracker.catch_up(events)
        left = tracker.flush(session.FLUSH_SECONDS)
        trouble = tracker.trouble
        tracker.close(session.HURRIED_SECONDS)
        watcher.say(trouble or f"sent to MLflow: {waiting - left} events that it had not got")
    last = events[-1]
    trials = len({e["trial"] for e in events if e["event"] == "trial"})
    more = f"{program()} resume {folder.name} budget.trials={2 * trials}{where_kept(config)}"
    watcher.say(f"{folder.name} is finished ({last['status']}: {last['reason']}); to go on with it: {more}")


def _progress(before: replay.Replayed) -> str:
    ended = len(before.ledger.entries) - len(before.pending)
    if not before.pending:
        return f"{ended} trials are done"
    epochs = [f"{n:03d} after epoch {len(before.ledger.entries[n].curve)}" for n in before.pending]
    return f"{ended} trials are done, {len(epochs)} go on: {', '.join(epochs[:4])}{' …' if len(epochs) > 4 else ''}"

"""The updates that each event of the journal makes to MLflow runs: plain values, without MLflow.

A key that a trial does not use (`model.filters.3` of a network with two blocks) is logged as `none`: MLflow
then gives it a place of its own on the key's axis; a run without the param is drawn just above the largest value.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cnnsweep.config.components import short_name
from cnnsweep.config.compose import flat
from cnnsweep.config.objective import Objective
from cnnsweep.config.own_code import NETWORKS
from cnnsweep.config.schema import Config
from cnnsweep.journal import events
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.statistics import Ranking
from cnnsweep.tracking.credentials import redact
from cnnsweep.trial import Status

Point = tuple[str, float, int, int]
"""A metric's name, value, time (milliseconds since 1970) and step."""
ABSENT = "none"
MLFLOW_STATUS: Mapping[Status, str] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
PARAM_LENGTH = 6000
_YAML = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class RunUpdate:
    """Values for the run of a trial, or the sweep's own where `trial` is None. Sending one again changes nothing.

    Times are milliseconds since 1970. `name` is set where the run starts or starts again (at `start`, else `time`),
    `status` is MLflow's word. Artifacts are `texts` by file name and the content of `folders`; `curves` are the columns
    of the learning curves to draw, `data` describes the data, and `model` is a folder in MLflow's model format.
    """

    trial: int | None
    time: int
    name: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Point] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()
    curves: Mapping[str, list[float]] | None = None
    data: Mapping[str, object] | None = None
    model: Path | None = None
    status: str | None = None
    start: int | None = None


def combine(updates: Sequence[RunUpdate]) -> RunUpdate:
    """Return one run's updates as one: of a param the first value, of everything else the last."""
    latest = updates[::-1]
    return RunUpdate(
        updates[0].trial,
        updates[-1].time,
        next((u.name for u in updates if u.name), None),
        {key: value for u in latest for key, value in u.params.items()},
        [point for u in updates for point in u.metrics],
        {key: value for u in updates for key, value in u.tags.items()},
        {name: content for u in updates for name, content in u.texts.items()},
        list(dict.fromkeys(folder for u in updates for folder in u.folders)),
        next((u.curves for u in latest if u.curves), None),
        next((u.data for u in latest if u.data), None),
        next((u.model for u in latest if u.model), None),
        next((u.status for u in latest if u.status), None),
        updates[0].start or updates[0].time,
    )


def by_run(updates: Iterable[RunUpdate]) -> list[list[RunUpdate]]:
    """Group updates by run, the run that is updated first before the others."""
    groups: dict[int | None, list[RunUpdate]] = {}
    for update in updates:
        groups.setdefault(update.trial, []).append(update)
    return list(groups.values())


class RunUpdates:
    """Turns events into updates, in order; it knows only the events before."""

    def __init__(self, folder: Path, tags: Mapping[str, object]) -> None:
        self._folder = folder
        self._tags = {str(key): text(value) for key, value in tags.items()}
        self._sweep = ""
        self._objective = Objective.of("val_accuracy")
        self._searched: tuple[str, ...] = ()
        self._params: dict[int | None, dict[str, str]] = {}
        self._epochs: dict[int, dict[int, Mapping[str, float]]] = {}
        self._status: dict[int | None, Status] = {}
        self._counts: Counter[Status] = Counter()
        self._with_reason: set[int | None] = set()
        self._ends = 0
        self._ranking: Ranking[int] = Ranking()
        self._no_winner: dict[str, str] = {}  # tags of a sweep that goes on: it has none until it ends again

    def of(self, event: events.Event) -> Iterator[RunUpdate]:
        """Yield the updates that an event makes."""
        time = round(event.time * 1000)
        match event:
            case events.SweepStarted():
                yield self._sweep_started(event, time)
            case events.TrialStarted():
                yield from self._trial_started(event, time)
            case events.EpochEnded():
                yield from self._epoch_ended(event, time)
            case events.TrialEnded():
                yield from self._trial_ended(event, time)
            case events.ReplicateEnded() if event.value is not None:
                metrics = {f"replicate_{self._objective.metric}": event.value}
                yield RunUpdate(event.trial, time, metrics=_points(metrics, time, event.replicate))
            case events.WinnerChosen():
                yield from self._winner_chosen(event, time)
            case events.BestTested():
                artifacts, model = (self._folder / event.folder / name for name in ("artifacts", "mlflow_model"))
                tags = {"cnnsweep.best_trial": str(event.trial), "cnnsweep.best_epoch": str(event.epoch)}
                tags["cnnsweep.final"] = str(time)
                points = _points(event.metrics, time, 0)
                yield RunUpdate(None, time, metrics=points, tags=tags, folders=[artifacts], model=model)
            case events.GalleryDrawn():  # with the folder around it, so that the pictures are in a folder in MLflow too
                yield RunUpdate(event.trial, time, folders=[(self._folder / event.folder).parent])
            case events.SweepStopped():
                yield from self._sweep_stopped(event, time)
            case events.SweepResumed():
                _, changed = self._settle(None, dict(flat({"budget": event.budget})))
                yield self._sweep_running(time, changed | self._no_winner)

    def _sweep_started(self, event: events.SweepStarted, time: int) -> RunUpdate:
        config = event.config
        self._sweep, self._objective = event.id, Objective.of(config["objective"])
        self._searched = tuple(p.name for p in parse_space(Config.from_plain(config)).parameters)
        provenance, command = redact(event.provenance), shlex.join(redact(event.command))
        tags = self._marks(None, "sweep", "running")
        tags |= {f"cnnsweep.{key}": text(value) for key, value in flat(provenance) if value != {}}
        if commit := provenance.get("git", {}).get("commit"):
            tags["mlflow.source.git.commit"] = str(commit)
        tags |= {"cnnsweep.command": command, "mlflow.source.name": command}
        if event.earlier:
            tags["cnnsweep.learned_from_trials"] = str(len(event.earlier))
        texts = {"config.yaml": _yaml(config), **({"facts.yaml": _yaml(provenance)} if provenance else {})}
        params, _ = self._settle(None, _essentials(config))
        data = provenance.get("data", {})
        data = data if data.get("train") else None
        return RunUpdate(None, time, event.id, params, tags=tags, texts=texts, data=data, status="RUNNING")

    def _sweep_running(self, time: int, tags: dict[str, str]) -> RunUpdate:
        return RunUpdate(None, time, self._sweep, tags=self._marks(None, "sweep", "running") | tags, status="RUNNING")

    def _trial_started(self, event: events.TrialStarted, time: int) -> Iterator[RunUpdate]:
        if self._status.get(None) != "running":  # a sweep that had stopped goes on
            yield self._sweep_running(time, {})
        if self._status.get(event.trial) == "failed":  # it begins again
            self._epochs.pop(event.trial, None)
        values = {key: event.values.get(key) for key in (*event.values, *self._searched)}
        params, changed = self._settle(event.trial, values)
        tags = self._marks(event.trial, "trial", "running") | {"cnnsweep.trial": str(event.trial), **changed}
        tags |= {"cnnsweep.seed": str(event.seed), "cnnsweep.epochs": str(event.epochs)}
        tags |= {"cnnsweep.worker": event.worker, **({"cnnsweep.retry": event.retry} if event.retry else {})}
        texts = {"config.yaml": _yaml(event.config)}
        yield RunUpdate(event.trial, time, event.title, params, tags=tags, texts=texts, status="RUNNING")

    def _epoch_ended(self, event: events.EpochEnded, time: int) -> Iterator[RunUpdate]:
        epochs = self._epochs.setdefault(event.trial, {})
        if event.epoch not in epochs:  # else it is repeated after a crash: the first report stands
            epochs[event.epoch] = event.metrics
            yield RunUpdate(event.trial, time, metrics=_points(event.metrics, time, event.epoch))

    def _trial_ended(self, event: events.TrialEnded, time: int) -> Iterator[RunUpdate]:
        summary = {**self._best_epoch(event.trial), **event.summary}
        artifacts = self._folder / "trials" / f"{event.trial:03d}" / "artifacts"
        drawn = (artifacts / "curves.png").exists()  # by the worker, unless it was lost
        yield RunUpdate(
            event.trial,
            time,
            metrics=_points(summary, time, 0),  # at step 0 alone MLflow draws bars, else a line of one point
            tags=self._marks(event.trial, "trial", event.status, event.reason),
            folders=[artifacts],
            curves=None if drawn else self._curves(event.trial),
            status=MLFLOW_STATUS[event.status],
        )
        if event.status != "interrupted":
            yield self._progress(event.trial, summary, time)

    def _progress(self, trial: int, summary: Mapping[str, float], time: int) -> RunUpdate:
        """The sweep's own curves. Its step counts trials as they end, a promoted trial each time it ends."""
        self._ends += 1
        best = f"best_{self._objective.metric}"
        value = None if self._status[trial] == "failed" else summary.get(best)
        self._ranking.put(trial, None if value is None else self._objective.sign * value)
        metrics = {f"trials_{status}": float(self._counts[status]) for status in ("completed", "pruned", "failed")}
        if leaders := self._ranking.first(1):
            metrics[best] = self._best_epoch(leaders[0])[best]
        metrics |= {name: summary[name] for name in ("predicted_seconds", "actual_seconds") if name in summary}
        return RunUpdate(None, time, metrics=_points(metrics, time, self._ends))

    def _winner_chosen(self, event: events.WinnerChosen, time: int) -> Iterator[RunUpdate]:
        for number, result in event.results.items():
            metrics = {f"{key}_{self._objective.metric}": result[key] for key in ("mean", "std")}
            yield RunUpdate(int(number), time, metrics=_points(metrics | {"replicates": result["count"]}, time, 0))
            if int(number) == event.trial:
                tags = {"cnnsweep.winner": number, "cnnsweep.finalists": ", ".join(event.results)}
                self._no_winner = dict.fromkeys(tags, "")
                yield RunUpdate(None, time, metrics=_points(metrics, time, 0), tags=tags)

    def _sweep_stopped(self, event: events.SweepStopped, time: int) -> Iterator[RunUpdate]:
        tags = self._marks(None, "sweep", event.status, event.reason)
        if event.front:
            tags["cnnsweep.front"] = ", ".join(str(number) for number in event.front)
            for number in [n for n in self._status if n is not None]:
                yield RunUpdate(number, time, tags={"cnnsweep.pareto": text(number in event.front)})
        status = MLFLOW_STATUS[event.status]
        yield RunUpdate(None, time, metrics=_points(event.summary, time, 0), tags=tags, status=status)

    def _marks(self, trial: int | None, kind: str, status: Status, reason: str | None = None) -> dict[str, str]:
        if trial is not None:
            if trial in self._status:
                self._counts[self._status[trial]] -= 1
            self._counts[status] += 1
        self._status[trial] = status
        tags = self._tags | {"cnnsweep.kind": kind, "cnnsweep.sweep": self._sweep, "cnnsweep.status": status}
        if reason or trial in self._with_reason:  # an old reason must not outlive its failure
            self._with_reason.add(trial)
            tags["cnnsweep.reason"] = text(redact(reason or ""))
        return tags

    def _settle(self, trial: int | None, values: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the params, and as tags those that changed since: MLflow never changes a param."""
        new = {key: text(redact(value))[:PARAM_LENGTH] for key, value in values.items()}
        first = self._params.setdefault(trial, new)
        changed = {f"cnnsweep.changed.{k}": v for k, v in new.items() if k in first and first[k] != v}
        first |= {key: value for key, value in new.items() if key not in first}
        return dict(first), changed

    def _best_epoch(self, trial: int) -> dict[str, float]:
        epochs, metric = self._epochs.get(trial, {}), self._objective.metric
        values = [metrics.get(metric, math.nan) for metrics in epochs.values()]
        index = self._objective.best(values)
        if index is None:
            return {}
        epoch = list(epochs)[index]
        others = {f"best_{m}": epochs[epoch][m] for m in self._objective.metrics[1:] if m in epochs[epoch]}
        return {f"best_{metric}": values[index], "best_epoch": epoch, **others}

    def _curves(self, trial: int) -> dict[str, list[float]] | None:
        epochs = self._epochs.get(trial, {})
        keys = dict.fromkeys(key for metrics in epochs.values() for key in metrics)
        columns = {key: [metrics.get(key, math.nan) for metrics in epochs.values()] for key in keys}
        return {"epoch": [float(epoch) for epoch in epochs], **columns} if epochs else None


def text(value: object) -> str:
    """Write a value as MLflow is to show it: numbers as Python does, truth as YAML does, None as `none`.

    >>> [text(v) for v in (32, 0.001, True, None, "same", [1, 2])]
    ['32', '0.001', 'true', 'none', 'same', '[1, 2]']
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)


def _points(metrics: Mapping[str, float], time: int, step: int) -> list[Point]:
    return [(key, float(value), time, step) for key, value in metrics.items() if isinstance(value, (int, float))]


def _yaml(tree: Mapping[str, object]) -> str:
    return yaml.dump(redact(tree), Dumper=_YAML, sort_keys=False, allow_unicode=True)


def _essentials(config: Mapping[str, object]) -> dict[str, object]:
    """The part of a config by which sweeps differ. A component of ours goes by its short name."""
    found: dict[str, object] = {}
    own = [] if config["job"]["_target_"] == NETWORKS else ["job"]  # type: ignore[index]
    keys = ("name", "task", "objective", "seed", "backend", *own, "data", "search", "budget", "limits")
    for name, value in flat({key: config[key] for key in keys if key in config}):
        if name.endswith("._target_"):
            found[name.removesuffix("._target_")] = short_name(str(value))
        else:
            found[re.sub(r"[^/\w.\- :]|//+", "_", name)[:250]] = value  # as MLflow takes them: a component may have any
    return found

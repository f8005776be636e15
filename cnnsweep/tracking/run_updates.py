"""What each event of the journal puts on which MLflow run: plain values, worked out without MLflow.

A key that a trial does not use (`model.filters.3` of a network with two blocks) is logged as `none`: MLflow
then gives it a place of its own on the key's axis; a run without the param is drawn just above the largest value.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnnsweep.config.compose import flat
from cnnsweep.config.objective import Objective
from cnnsweep.search_space import space
from cnnsweep.tracking.credentials import redact

Event = Mapping[str, Any]
Point = tuple[str, float, int, int]
ABSENT = "none"
MLFLOW_STATUS = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_TAG_LENGTH = 5000
TIMES = ("predicted_seconds", "actual_seconds")
"""Of a trial's summary, what the sweep's run shows trial by trial."""
_PARAM_LENGTH = 6000
_YAML = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class Write:
    """What one run is to receive. Sending it again changes nothing."""

    trial: int | None
    """The trial's number; None is the sweep's own run."""
    began: int
    """Milliseconds since 1970, as all times here."""
    ended: int
    name: str | None = None
    """Set where the run begins or begins again."""
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Point] = field(default_factory=list)
    """(name, value, time, step)"""
    tags: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Artifacts: file name and content."""
    folders: list[Path] = field(default_factory=list)
    """What these folders hold becomes artifacts."""
    curves: Mapping[str, list[float]] | None = None
    """Columns of the learning curves to draw."""
    data: Mapping[str, Any] | None = None
    model: Path | None = None
    """A folder in MLflow's model format."""
    status: str | None = None
    """In MLflow's words."""

    def then(self, later: Write) -> Write:
        """Return both in one; what comes later wins."""
        return Write(
            self.trial,
            self.began,
            later.ended,
            self.name or later.name,
            {**later.params, **self.params},
            self.metrics + later.metrics,
            {**self.tags, **later.tags},
            {**self.texts, **later.texts},
            self.folders + [f for f in later.folders if f not in self.folders],
            later.curves or self.curves,
            later.data or self.data,
            later.model or self.model,
            later.status or self.status,
        )


class Records:
    """Turns events into writes, in order; it knows only what the events before said."""

    def __init__(self, folder: Path, tags: Mapping[str, Any]) -> None:
        self.objective = "val_accuracy"
        self.sweep = ""
        self._folder = folder
        self._tags = {str(key): text(value) for key, value in tags.items()}
        self._searched: tuple[str, ...] = ()
        self._params: dict[int | None, dict[str, str]] = {}
        self._epochs: dict[int, dict[str, list[float]]] = {}
        self._status: dict[int | None, str] = {}
        self._counts: Counter[str] = Counter()
        """How many trials have each status."""
        self._reasons: set[int | None] = set()
        self._ends = 0
        self._best = math.nan

    def writes(self, event: Event) -> list[Write]:
        """Return what `event` puts on the runs; an event of another kind puts nothing."""
        kinds = {
            "sweep": self._sweep,
            "trial": self._trial,
            "epoch": self._epoch,
            "end": self._end,
            "final": self._final,
            "replicate": self._replicate,
            "winner": self._winner,
            "gallery": self._gallery,
            "stop": self._stop,
            "resume": self._resume,
        }
        return list(kinds[event["event"]](event, _milliseconds(event))) if event["event"] in kinds else []

    def _sweep(self, event: Event, time: int) -> Iterator[Write]:
        config = event["config"]
        self.sweep, self.objective = event["id"], Objective.of(config["objective"]).metric
        self._searched = tuple(p.name for p in space.read(config).parameters) if "space" in config else ()
        facts = redact(event.get("facts") or {})
        tags = {f"cnnsweep.{key}": text(value) for key, value in flat(facts) if value != {}}
        if commit := (facts.get("git") or {}).get("commit"):
            tags["mlflow.source.git.commit"] = str(commit)
        command = event.get("command") or ""
        command = command if isinstance(command, str) else " ".join(command)
        tags |= {"cnnsweep.command": redact(command), "mlflow.source.name": redact(command)}
        texts = {"config.yaml": _dump(config), **({"facts.yaml": _dump(facts)} if facts else {})}
        params, changed = self._settle(None, _essentials(config))
        if "earlier" in event:
            tags["cnnsweep.learned_from_trials"] = str(len(event["earlier"]))
        yield Write(
            None,
            time,
            time,
            self.sweep,
            params,
            [],
            self._marks(None, "sweep", "running") | tags | changed,
            texts,
            data=facts.get("data"),
            status="RUNNING",
        )

    def _trial(self, event: Event, time: int) -> Iterator[Write]:
        number = event["trial"]
        if self._status.get(None) != "running":  # a sweep that had stopped goes on
            yield Write(None, time, time, self.sweep, tags=self._marks(None, "sweep", "running"), status="RUNNING")
        values = {key: event["values"].get(key) for key in (*event["values"], *self._searched)}
        params, changed = self._settle(number, values)
        tags = self._marks(number, "trial", "running") | {"cnnsweep.trial": str(number), **changed}
        tags |= {f"cnnsweep.{key}": text(event[key]) for key in ("seed", "epochs", "worker", "retry") if key in event}
        yield Write(
            number,
            time,
            time,
            event["name"],
            params,
            [],
            tags,
            {"config.yaml": _dump(event["config"])},
            status="RUNNING",
        )

    def _resume(self, event: Event, time: int) -> Iterator[Write]:
        _, changed = self._settle(None, dict(flat({"budget": event["budget"]})))
        tags = self._marks(None, "sweep", "running") | changed
        yield Write(None, time, time, self.sweep, tags=tags, status="RUNNING")

    def _epoch(self, event: Event, time: int) -> Iterator[Write]:
        columns = self._epochs.setdefault(event["trial"], {"epoch": []})
        if event["epoch"] in columns["epoch"]:  # repeated after a crash: the first report stands
            return
        done = len(columns["epoch"])
        row = {"epoch": event["epoch"], **event["metrics"]}
        for key in {**columns, **row}:
            columns.setdefault(key, [math.nan] * done).append(row.get(key, math.nan))
        yield Write(event["trial"], time, time, metrics=_points(event["metrics"], time, event["epoch"]))

    def _end(self, event: Event, time: int) -> Iterator[Write]:
        number, status = event["trial"], event["status"]
        columns = self._epochs.get(number, {"epoch": []})
        summary = {**self._best_epoch(columns), **(event.get("summary") or {})}
        artifacts = self._folder / "trials" / f"{number:03d}" / "artifacts"
        yield Write(
            number,
            time,
            time,
            metrics=_points(summary, time, 0),  # at step 0 alone MLflow draws bars, else a line of one point
            tags=self._marks(number, "trial", status, event.get("reason")),
            folders=[artifacts],
            curves=None if _is_drawn(artifacts, columns) else {k: list(v) for k, v in columns.items()},
            status=MLFLOW_STATUS[status],
        )
        if status != "interrupted":
            yield self._progress(summary, time)

    def _progress(self, summary: Mapping[str, float], time: int) -> Write:
        """The sweep's own curves. Its step counts trials as they end, a promoted trial each time it ends."""
        self._ends += 1
        value = summary.get(f"best_{self.objective}", math.nan)
        if not math.isnan(value) and (math.isnan(self._best) or self._better(value, self._best)):
            self._best = value
        metrics = {f"trials_{status}": float(self._counts[status]) for status in ("completed", "pruned", "failed")}
        if not math.isnan(self._best):
            metrics[f"best_{self.objective}"] = self._best
        metrics |= {name: summary[name] for name in TIMES if name in summary}
        return Write(None, time, time, metrics=_points(metrics, time, self._ends))

    def _final(self, event: Event, time: int) -> Iterator[Write]:
        folder = Path(event["folder"])
        metrics = {k if k.startswith("test_") else f"test_{k}": v for k, v in event["metrics"].items()}
        yield Write(
            None,
            time,
            time,
            metrics=_points(metrics, time, 0),
            tags={"cnnsweep.best_trial": str(event["trial"]), "cnnsweep.final": str(time)},
            folders=[folder / "artifacts"],
            model=folder / "mlflow_model",
        )

    def _replicate(self, event: Event, time: int) -> Iterator[Write]:
        if event["value"] is not None:
            points = [(f"replicate_{self.objective}", float(event["value"]), time, int(event["replicate"]))]
            yield Write(event["trial"], time, time, metrics=points)

    def _winner(self, event: Event, time: int) -> Iterator[Write]:
        for number, told in event["results"].items():
            named = {f"{key}_{self.objective}": told[key] for key in ("mean", "std")}
            count = {"replicates": float(told["count"])}
            yield Write(int(number), time, time, metrics=_points(named | count, time, 0))
            if int(number) == event["trial"]:
                tags = {"cnnsweep.winner": number, "cnnsweep.finalists": ", ".join(event["results"])}
                yield Write(None, time, time, metrics=_points(named, time, 0), tags=tags)

    def _gallery(self, event: Event, time: int) -> Iterator[Write]:
        # Sent with the folder around it, so that the pictures stand in a folder among the artifacts too.
        yield Write(event["trial"], time, time, folders=[Path(event["folder"]).parent])

    def _stop(self, event: Event, time: int) -> Iterator[Write]:
        tags = self._marks(None, "sweep", event["status"], event.get("reason"))
        if "front" in event:
            tags["cnnsweep.front"] = ", ".join(str(number) for number in event["front"])
            for number in [n for n in self._status if n is not None]:
                marks = {"cnnsweep.pareto": text(number in event["front"])}
                yield Write(number, time, time, tags=marks)
        yield Write(
            None,
            time,
            time,
            metrics=_points(event.get("summary") or {}, time, 0),
            tags=tags,
            status=MLFLOW_STATUS[event["status"]],
        )

    def _marks(self, trial: int | None, kind: str, status: str, reason: str | None = None) -> dict[str, str]:
        if trial is not None:
            self._counts.subtract([self._status.get(trial, "")])
            self._counts[status] += 1
        self._status[trial] = status
        tags = self._tags | {"cnnsweep.kind": kind, "cnnsweep.sweep": self.sweep, "cnnsweep.status": status}
        if reason or trial in self._reasons:  # an old reason must not outlive its failure
            self._reasons.add(trial)
            tags["cnnsweep.reason"] = text(redact(reason or ""))[:_TAG_LENGTH]
        return tags

    def _settle(self, trial: int | None, values: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the params, and as tags those that changed since: MLflow never changes a param."""
        new = {key: text(redact(value))[:_PARAM_LENGTH] for key, value in values.items()}
        first = self._params.setdefault(trial, new)
        changed = {f"cnnsweep.changed.{k}": v for k, v in new.items() if k in first and first[k] != v}
        first |= {key: value for key, value in new.items() if key not in first}
        return dict(first), changed

    def _better(self, value: float, than: float) -> bool:
        return value < than if "loss" in self.objective else value > than

    def _best_epoch(self, columns: Mapping[str, list[float]]) -> dict[str, float]:
        seen = (
            [
                (v, e)
                for v, e in zip(columns.get(self.objective, []), columns["epoch"], strict=True)
                if not math.isnan(v)
            ]
            if self.objective in columns
            else []
        )
        if not seen:
            return {}
        value, epoch = min(seen, key=lambda s: (s[0] if "loss" in self.objective else -s[0], s[1]))
        return {f"best_{self.objective}": value, "best_epoch": epoch}


def merge(writes: Iterable[Write]) -> list[list[Write]]:
    """Group writes by run, in the order in which the runs are first written to."""
    groups: dict[int | None, list[Write]] = {}
    for write in writes:
        groups.setdefault(write.trial, []).append(write)
    return list(groups.values())


def text(value: Any) -> str:
    """Write a value as MLflow is to show it: numbers as Python does, truth as YAML does, None as `none`.

    >>> [text(v) for v in (32, 0.001, True, None, "same", [1, 2])]
    ['32', '0.001', 'true', 'none', 'same', '[1, 2]']
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)


def _is_drawn(artifacts: Path, columns: Mapping[str, list[float]]) -> bool:
    """A worker draws the curves itself, unless it was lost."""
    return not columns["epoch"] or (artifacts / "curves.png").exists()


def _milliseconds(event: Event) -> int:
    return round(event["time"] * 1000)


def _points(metrics: Mapping[str, Any], time: int, step: int) -> list[Point]:
    numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
    return [(key, float(value), time, step) for key, value in numbers.items()]


def _dump(tree: Mapping[str, Any]) -> str:
    return yaml.dump(redact(tree), Dumper=_YAML, sort_keys=False, allow_unicode=True)


def _essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config by which sweeps differ. A component of ours goes by its module's name."""
    found: dict[str, Any] = {}
    for key in ("name", "objective", "seed", "backend", "data", "search", "budget", "limits"):
        group = config.get(key, {})
        for name, value in flat({key: group}):
            if name.endswith("._target_"):
                ours = value.startswith("cnnsweep.")
                found[name.removesuffix("._target_")] = value.split(".")[-2] if ours else value
            else:
                found[name] = value
    return found

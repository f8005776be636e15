"""Reading runs and their files back from the MLflow store in bulk: by SQL from a database, by requests from a server.

MLflow's own client takes a request for each metric of each run: minutes for thousands of trials.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import yaml

from cnnsweep.config.schema import Tracking
from cnnsweep.errors import UserError, nearest
from cnnsweep.tracking.credentials import brief, shown
from cnnsweep.tracking.locations import artifacts_at, local_folder
from cnnsweep.tracking.store import connect, find_store, is_server

if TYPE_CHECKING:
    from mlflow.entities import Run

RUNS_PER_PAGE, ROWS_PER_CHUNK, THREADS = 5000, 100_000, 4
RUNS_PER_REQUEST, POINTS_PER_REQUEST = 100, 25_000
"""Limits of a server's bulk route: runs asked for, and points returned."""
EVERY_EPOCH = ("loss", "epoch_seconds")
"""Metrics that have a value an epoch, for any data."""
RUN_COLUMNS = ["run_id", "run_name", "start_time", "end_time", "artifact_uri"]
Row = tuple[Any, ...]


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(c) for c in ("run_uuid", *columns)))


RUNS = _table("runs", "name", "start_time", "end_time", "artifact_uri", "experiment_id", "status", "lifecycle_stage")
TAGS, PARAMS = _table("tags", "key", "value"), _table("params", "key", "value")
LATEST = _table("latest_metrics", "key", "value", "step", "is_nan")
METRICS = _table("metrics", "key", "value", "step", "is_nan", "timestamp")


@dataclass(frozen=True)
class SweepRun:
    """A sweep's own run; it started at `started` milliseconds since 1970."""

    id: str
    name: str
    run: str
    experiment: str
    started: int
    status: str


@dataclass(frozen=True)
class Rows:
    """The runs of a sweep, its own included, as the store has them: one row a run, indexed by run id.

    `params` and `tags` are texts, `metrics` the latest values, `steps` the last epochs, `by_epoch` metrics of epochs.
    """

    runs: pd.DataFrame
    params: pd.DataFrame
    tags: pd.DataFrame
    metrics: pd.DataFrame
    steps: pd.Series
    by_epoch: frozenset[str]


def open_reader(tracking: Tracking) -> Reader:
    """Return a reader of the store. Raises UserError where there is none."""
    uri = find_store(tracking)
    return RestReader(uri) if is_server(uri) else SqlReader(uri)


def find_sweep(reader: Reader, wanted: str | None) -> SweepRun:
    """Return the sweep with this id, else the latest with this name, or the latest of all where None.

    Raises UserError with the nearest match.
    """
    sweeps = reader.sweeps()
    if not sweeps:
        raise UserError(f"there is no sweep in the MLflow store {shown(reader.uri)}{_deleted(reader.uri)}")
    if wanted is None:
        return sweeps[-1]
    found = [s for s in sweeps if s.id == wanted] or [s for s in sweeps if s.name == wanted]
    if not found:
        close = nearest(wanted, [s.id for s in sweeps]) or nearest(wanted, {s.name for s in sweeps})
        names = list(dict.fromkeys(s.name for s in reversed(sweeps)))
        more = ", …" if len(names) > 8 else ""
        raise UserError(f"there is no sweep '{wanted}'{close} (in the store: {', '.join(names[:8])}{more})")
    return found[-1]


def _deleted(uri: str) -> str:
    """Why a store may have no sweep."""
    from mlflow.entities import ViewType

    names = [f"'{e.name}'" for e in connect(uri).search_experiments(ViewType.DELETED_ONLY)]
    return f": the MLflow experiment {', '.join(names)} was deleted; restore it" if names else " yet"


def read_yaml(uri: str, location: str) -> Mapping[str, Any]:
    """Read the `config.yaml` among a run's files; empty where there is none. Raises UserError where it is no config."""
    from mlflow.exceptions import MlflowException

    local, name = local_folder(uri, location), "config.yaml"
    try:
        if local is not None:
            content = (local / name).read_text(encoding="utf-8")
        else:
            with tempfile.TemporaryDirectory() as folder:
                content = Path(artifacts_at(uri, location).download_artifacts(name, folder)).read_text(encoding="utf-8")
    except (OSError, MlflowException):
        return {}
    try:
        found = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:  # or a tag that would have made an object of some class
        raise UserError(
            f"{name} in {location} is no plain YAML, and nothing of it was used: {brief(error, 300)}"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{name} in {location} is no config but a {type(found).__name__}")
    return found


class SqlReader:
    """Reads MLflow's tables, and changes nothing."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._engine = sa.create_engine(uri)

    def sweeps(self) -> list[SweepRun]:
        """All sweeps, the oldest first."""
        run, kind, id_, name = RUNS.c, TAGS.alias("kind"), TAGS.alias("id"), PARAMS.alias("name")
        joined = (
            RUNS.join(kind, (kind.c.run_uuid == run.run_uuid) & (kind.c.key == "cnnsweep.kind"))
            .join(id_, (id_.c.run_uuid == run.run_uuid) & (id_.c.key == "cnnsweep.sweep"))
            .outerjoin(name, (name.c.run_uuid == run.run_uuid) & (name.c.key == "name"))
        )
        query = (
            sa.select(id_.c.value, name.c.value, run.run_uuid, run.experiment_id, run.start_time, run.status)
            .select_from(joined)
            .where(kind.c.value == "sweep", run.lifecycle_stage == "active")
            .order_by(run.start_time, id_.c.value)
        )
        return [SweepRun(i, n or _name_of(i), r, str(e), s or 0, t) for i, n, r, e, s, t in self._fetch(query)]

    def rows(self, sweep: SweepRun) -> Rows:
        run, members = RUNS.c, _members(sweep)
        query = sa.select(run.run_uuid, run.name, run.start_time, run.end_time, run.artifact_uri)
        frame = pd.DataFrame(self._fetch(query.where(run.run_uuid.in_(members))), columns=RUN_COLUMNS)
        frame = frame.set_index("run_id")
        params, tags = (_wide(self._values_of(table, members), frame.index) for table in (PARAMS, TAGS))
        latest = self._values_of(LATEST, members, LATEST.c.step, LATEST.c.is_nan)
        metrics = _wide([(id_, key, np.nan if bad else value) for id_, key, value, _, bad in latest], frame.index)
        steps = {id_: step for id_, key, _, step, _ in latest if key in EVERY_EPOCH}
        by_epoch = frozenset(key for id_, key, _, step, _ in latest if step and id_ != sweep.run)
        return Rows(frame, params, tags, metrics, _steps(steps, frame.index), by_epoch)

    def history(self, sweep: SweepRun, keys: Sequence[str]) -> pd.DataFrame:
        """The trials' metrics whenever they were logged, in any order: run_id, step, time (ms), and a column a key."""
        m = METRICS.c
        # Turned into columns by the database: a sixth of the rows to transfer.
        values = [sa.func.max(sa.case(((m.key == key) & (m.is_nan == sa.false()), m.value))) for key in keys]
        query = (
            sa.select(m.run_uuid, m.step, m.timestamp, *values)
            .where(m.run_uuid.in_(_members(sweep, "trial")), m.key.in_(keys))
            .group_by(m.run_uuid, m.step, m.timestamp)
        )
        columns = ["run_id", "step", "time", *keys]
        parts = [dict(zip(columns, zip(*chunk, strict=True), strict=True)) for chunk in self._chunks(query)]
        frame = pd.concat(map(pd.DataFrame, parts), ignore_index=True) if parts else pd.DataFrame(columns=columns)
        return frame.astype(dict.fromkeys(keys, float))

    def _values_of(self, table: sa.TableClause, members: sa.Select, *more: sa.ColumnElement) -> list[Row]:
        c = table.c
        return self._fetch(sa.select(c.run_uuid, c.key, c.value, *more).where(c.run_uuid.in_(members)))

    def _fetch(self, query: sa.Select) -> list[Row]:
        return [row for chunk in self._chunks(query) for row in chunk]

    def _chunks(self, query: sa.Select) -> Iterator[list[Row]]:
        with self._engine.connect() as connection:
            # The driver's own cursor: SQLAlchemy's rows take three times as long, and there may be millions.
            cursor = connection.execute(query).cursor
            while cursor is not None and (chunk := cursor.fetchmany(ROWS_PER_CHUNK)):
                yield list(chunk)


def _members(sweep: SweepRun, kind: str | None = None) -> sa.Select:
    """The run ids of a sweep, all or those of one kind."""
    other, of_sweep = TAGS.alias("other"), TAGS.c
    active = sa.select(RUNS.c.run_uuid).where(RUNS.c.lifecycle_stage == "active")
    query = sa.select(of_sweep.run_uuid).where(of_sweep.key == "cnnsweep.sweep", of_sweep.value == sweep.id)
    query = query.where(of_sweep.run_uuid.in_(active))
    if kind is None:
        return query
    of_kind = sa.select(other.c.run_uuid).where(other.c.key == "cnnsweep.kind", other.c.value == kind)
    return query.where(of_sweep.run_uuid.in_(of_kind))


class RestReader:
    """Reads the same from a tracking server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = connect(uri)

    def sweeps(self) -> list[SweepRun]:
        from mlflow.utils import get_results_from_paginated_fn as every_page

        search = self._client.search_experiments
        experiments = every_page(lambda n, page: search(max_results=n, page_token=page), 1000)
        found = self._search([e.experiment_id for e in experiments], "tags.`cnnsweep.kind` = 'sweep'")
        sweeps = []
        for run in found:
            id_, info = run.data.tags["cnnsweep.sweep"], run.info
            name = run.data.params.get("name") or _name_of(id_)
            sweeps.append(SweepRun(id_, name, info.run_id, info.experiment_id, info.start_time or 0, info.status))
        return sorted(sweeps, key=lambda s: (s.started, s.id))

    def rows(self, sweep: SweepRun) -> Rows:
        found = self._search([sweep.experiment], f"tags.`cnnsweep.sweep` = '{sweep.id}'")
        runs = pd.DataFrame([[getattr(r.info, c) for c in RUN_COLUMNS] for r in found], columns=RUN_COLUMNS)
        runs = runs.set_index("run_id")
        steps = {r.info.run_id: m.step for r in found for m in r.data._metric_objs if m.key in EVERY_EPOCH}
        by_epoch = frozenset(m.key for r in found for m in r.data._metric_objs if m.step and r.info.run_id != sweep.run)
        params, tags, metrics = (
            pd.DataFrame({r.info.run_id: getattr(r.data, part) for r in found}).T.reindex(runs.index)
            for part in ("params", "tags", "metrics")
        )
        return Rows(runs, params, tags, metrics.astype(float), _steps(steps, runs.index), by_epoch)

    def history(self, sweep: SweepRun, keys: Sequence[str]) -> pd.DataFrame:
        wanted = f"tags.`cnnsweep.sweep` = '{sweep.id}' AND tags.`cnnsweep.kind` = 'trial'"
        runs = [r.info.run_id for r in self._search([sweep.experiment], wanted)]
        groups = [runs[i : i + RUNS_PER_REQUEST] for i in range(0, len(runs), RUNS_PER_REQUEST)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda pair: list(self._bulk(*pair)), [(g, k) for k in keys for g in groups])
            points = [point for part in found for point in part]
        frame = pd.DataFrame(points, columns=["run_id", "key", "step", "time", "value"])
        wide = frame.pivot_table(index=["run_id", "step", "time"], columns="key", values="value", aggfunc="max")
        return wide.reindex(columns=list(keys)).astype(float).reset_index()

    def _bulk(self, runs: list[str], key: str) -> Iterator[Row]:
        """One metric of many runs; where the answer was cut off, in halves."""
        from mlflow.utils.rest_utils import http_request_safe

        creds = self._client._tracking_client.store.get_host_creds()
        query = {"run_id": runs, "metric_key": key, "max_results": POINTS_PER_REQUEST}
        route = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
        points = http_request_safe(creds, route, "GET", params=query).json()["metrics"]
        if len(points) < POINTS_PER_REQUEST:
            for p in points:
                value = np.nan if p["value"] is None else float(p["value"])
                yield p["run_id"], key, p["step"], p["timestamp"], value
        elif len(runs) > 1:
            yield from self._bulk(runs[::2], key)
            yield from self._bulk(runs[1::2], key)
        else:
            for metric in self._client.get_metric_history(runs[0], key):
                yield runs[0], key, metric.step, metric.timestamp, metric.value

    def _search(self, experiments: list[str], wanted: str) -> list[Run]:
        from mlflow.utils import get_results_from_paginated_fn as every_page

        search = self._client.search_runs
        if not experiments:
            return []
        return list(every_page(lambda n, page: search(experiments, wanted, 1, n, page_token=page), RUNS_PER_PAGE))


Reader = SqlReader | RestReader


def _wide(triples: Iterable[Row], index: pd.Index) -> pd.DataFrame:
    columns: dict[str, dict[str, object]] = {}
    for run, key, value in triples:
        columns.setdefault(key, {})[run] = value
    return pd.DataFrame({key: pd.Series(values) for key, values in columns.items()}).reindex(index)


def _steps(steps: dict[str, int], index: pd.Index) -> pd.Series:
    return pd.Series(steps, dtype="Int64").reindex(index)


def _name_of(id_: str) -> str:
    """
    >>> [_name_of(f"digits-20261122-144758{rest}") for rest in ("", "-2", "-0f6b3c", "-0f6b3c-2")]
    ['digits', 'digits', 'digits', 'digits']
    """
    return re.sub(r"-\d{8}-\d{6}(-[0-9a-f]+){0,2}$", "", id_)

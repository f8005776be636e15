"""Reading sweeps back from the MLflow store in bulk: by SQL from a database, by requests from a server.

MLflow's own client takes a request for each metric of each run: minutes for thousands of trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cnnsweep.errors import UserError, nearest
from cnnsweep.tracking.store import connect, find_store

PAGE = 5000
RUNS_PER_REQUEST, POINTS_PER_REQUEST = 100, 25_000
"""What a server's bulk route takes and gives at most."""
THREADS = 4
RUN_COLUMNS = ["run_id", "run_name", "status", "start_time", "end_time", "experiment_id", "artifact_uri"]


@dataclass(frozen=True)
class SweepRun:
    """A sweep's own run."""

    id: str
    name: str
    run: str
    experiment: str
    started: int
    """Milliseconds since 1970."""
    status: str


@dataclass(frozen=True)
class Rows:
    """What the store holds of a sweep, the parent's run included; one row a run, indexed by run id."""

    runs: pd.DataFrame
    params: pd.DataFrame
    """Text, a column a key; absent where a run does not have it."""
    tags: pd.DataFrame
    metrics: pd.DataFrame
    """The latest value of each metric."""
    steps: pd.Series
    """The last step of each run's `loss`."""


class Reader(Protocol):
    """A store to read from."""

    uri: str

    def sweeps(self) -> list[SweepRun]:
        """All sweeps, the oldest first."""

    def rows(self, sweep: SweepRun) -> Rows: ...

    def history(self, sweep: SweepRun, keys: Sequence[str]) -> pd.DataFrame:
        """The trials' metrics whenever they were logged, in any order: run_id, step, time (ms), and a column a key."""


def open_reader(tracking: Mapping[str, Any]) -> Reader:
    """Find the store of a `tracking` config. Raises UserError."""
    uri = find_store(tracking)
    return RestReader(uri) if uri.startswith(("http://", "https://")) else SqlReader(uri)


def find_sweep(reader: Reader, wanted: str | None) -> SweepRun:
    """Return the sweep with this id, else the latest with this name, or the latest of all where None.

    Raises UserError with the nearest match.
    """
    sweeps = reader.sweeps()
    if not sweeps:
        raise UserError(f"there is no sweep in the MLflow store {reader.uri} yet")
    if wanted is None:
        return sweeps[-1]
    found = [s for s in sweeps if s.id == wanted] or [s for s in sweeps if s.name == wanted]
    if not found:
        close = nearest(wanted, [s.id for s in sweeps]) or nearest(wanted, {s.name for s in sweeps})
        names = list(dict.fromkeys(s.name for s in reversed(sweeps)))
        more = ", …" if len(names) > 8 else ""
        raise UserError(f"there is no sweep '{wanted}'{close} (in the store: {', '.join(names[:8])}{more})")
    return found[-1]


class SqlReader:
    """Reads MLflow's tables, and changes nothing."""

    def __init__(self, uri: str) -> None:
        import sqlalchemy as sa

        self.uri = uri
        self._engine = sa.create_engine(uri)
        self._sa = sa
        keyed = ("key", "value", "run_uuid")
        self._runs = self._table(
            "runs",
            "run_uuid",
            "name",
            "status",
            "start_time",
            "end_time",
            "experiment_id",
            "artifact_uri",
            "lifecycle_stage",
        )
        self._tags, self._params = self._table("tags", *keyed), self._table("params", *keyed)
        self._latest = self._table("latest_metrics", *keyed, "step", "is_nan")
        self._metrics = self._table("metrics", *keyed, "step", "timestamp", "is_nan")

    def sweeps(self) -> list[SweepRun]:
        runs, tags, params = self._runs.c, self._tags, self._params
        kind, id_, name = tags.alias("kind"), tags.alias("id"), params.alias("name")
        joined = (
            self._runs.join(kind, (kind.c.run_uuid == runs.run_uuid) & (kind.c.key == "cnnsweep.kind"))
            .join(id_, (id_.c.run_uuid == runs.run_uuid) & (id_.c.key == "cnnsweep.sweep"))
            .outerjoin(name, (name.c.run_uuid == runs.run_uuid) & (name.c.key == "name"))
        )
        query = (
            self._sa.select(id_.c.value, name.c.value, runs.run_uuid, runs.experiment_id, runs.start_time, runs.status)
            .select_from(joined)
            .where(kind.c.value == "sweep", runs.lifecycle_stage == "active")
            .order_by(runs.start_time, id_.c.value)
        )
        return [SweepRun(i, n or _name_of(i), r, str(e), s or 0, t) for i, n, r, e, s, t in self._fetch(query)]

    def rows(self, sweep: SweepRun) -> Rows:
        runs, members = self._runs.c, self._members(sweep)
        chosen = self._sa.select(
            runs.run_uuid, runs.name, runs.status, runs.start_time, runs.end_time, runs.experiment_id, runs.artifact_uri
        ).where(runs.run_uuid.in_(members))
        frame = pd.DataFrame(list(self._fetch(chosen)), columns=RUN_COLUMNS).set_index("run_id")
        latest = self._latest.c
        values = list(
            self._fetch(
                self._sa.select(latest.run_uuid, latest.key, latest.value, latest.step, latest.is_nan).where(
                    latest.run_uuid.in_(members)
                )
            )
        )
        metrics = [(run, key, np.nan if bad else value) for run, key, value, _, bad in values]
        steps = {run: step for run, key, _, step, _ in values if key == "loss"}
        return Rows(
            frame,
            _wide(self._pairs(self._params, members), frame.index),
            _wide(self._pairs(self._tags, members), frame.index),
            _wide(metrics, frame.index),
            pd.Series(steps, dtype="Int64").reindex(frame.index),
        )

    def history(self, sweep: SweepRun, keys: Sequence[str]) -> pd.DataFrame:
        sa, m = self._sa, self._metrics.c
        # Turned into columns by the database: a sixth of the rows to carry over.
        values = [sa.func.max(sa.case(((m.key == key) & (m.is_nan == sa.false()), m.value))) for key in keys]
        query = (
            sa.select(m.run_uuid, m.step, m.timestamp, *values)
            .where(m.run_uuid.in_(self._members(sweep, "trial")), m.key.in_(keys))
            .group_by(m.run_uuid, m.step, m.timestamp)
        )
        columns = ["run_id", "step", "time", *keys]
        parts = [
            pd.DataFrame(dict(zip(columns, zip(*chunk, strict=True), strict=True))) for chunk in self._chunks(query)
        ]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        return frame.astype(dict.fromkeys(keys, float))

    def _table(self, name: str, *columns: str) -> Any:
        return self._sa.table(name, *(self._sa.column(c) for c in columns))

    def _members(self, sweep: SweepRun, kind: str | None = None) -> Any:
        tags = self._tags.c
        chosen = self._sa.select(tags.run_uuid).where(tags.key == "cnnsweep.sweep", tags.value == sweep.id)
        active = self._sa.select(self._runs.c.run_uuid).where(self._runs.c.lifecycle_stage == "active")
        chosen = chosen.where(tags.run_uuid.in_(active))
        if kind:
            other = self._tags.alias("other")
            of_kind = self._sa.select(other.c.run_uuid).where(other.c.key == "cnnsweep.kind", other.c.value == kind)
            chosen = chosen.where(tags.run_uuid.in_(of_kind))
        return chosen

    def _pairs(self, table: Any, members: Any) -> list[tuple[str, str, Any]]:
        c = table.c
        return list(self._fetch(self._sa.select(c.run_uuid, c.key, c.value).where(c.run_uuid.in_(members))))

    def _fetch(self, query: Any) -> Iterator[tuple[Any, ...]]:
        for chunk in self._chunks(query):
            yield from chunk

    def _chunks(self, query: Any, size: int = 100_000) -> Iterator[list[tuple[Any, ...]]]:
        with self._engine.connect() as connection:
            # The driver's own cursor: SQLAlchemy's rows take three times as long, and there may be millions.
            cursor = connection.execute(query).cursor
            while cursor is not None and (chunk := cursor.fetchmany(size)):
                yield list(chunk)


class RestReader:
    """Reads from a tracking server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client = connect(uri)

    def sweeps(self) -> list[SweepRun]:
        experiments = [e.experiment_id for e in self._pages(self._client.search_experiments)]
        found = self._search(experiments, "tags.`cnnsweep.kind` = 'sweep'") if experiments else []
        sweeps = [
            SweepRun(
                id_ := r.data.tags["cnnsweep.sweep"],
                r.data.params.get("name") or _name_of(id_),
                r.info.run_id,
                r.info.experiment_id,
                r.info.start_time or 0,
                r.info.status,
            )
            for r in found
        ]
        return sorted(sweeps, key=lambda s: (s.started, s.id))

    def rows(self, sweep: SweepRun) -> Rows:
        found = self._search([sweep.experiment], f"tags.`cnnsweep.sweep` = '{sweep.id}'")
        infos = [
            (
                r.info.run_id,
                r.info.run_name,
                r.info.status,
                r.info.start_time,
                r.info.end_time,
                r.info.experiment_id,
                r.info.artifact_uri,
            )
            for r in found
        ]
        frame = pd.DataFrame(infos, columns=RUN_COLUMNS).set_index("run_id")
        steps = {r.info.run_id: m.step for r in found for m in r.data._metric_objs if m.key == "loss"}
        params, tags, metrics = (
            pd.DataFrame({r.info.run_id: getattr(r.data, part) for r in found}).T.reindex(frame.index)
            for part in ("params", "tags", "metrics")
        )
        return Rows(frame, params, tags, metrics.astype(float), pd.Series(steps, dtype="Int64").reindex(frame.index))

    def history(self, sweep: SweepRun, keys: Sequence[str]) -> pd.DataFrame:
        wanted = f"tags.`cnnsweep.sweep` = '{sweep.id}' AND tags.`cnnsweep.kind` = 'trial'"
        runs = [r.info.run_id for r in self._search([sweep.experiment], wanted)]
        groups = [runs[i : i + RUNS_PER_REQUEST] for i in range(0, len(runs), RUNS_PER_REQUEST)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda pair: list(self._bulk(*pair)), [(g, k) for k in keys for g in groups])
            points = pd.DataFrame(
                [p for part in found for p in part], columns=["run_id", "key", "step", "time", "value"]
            )
        wide = points.pivot_table(index=["run_id", "step", "time"], columns="key", values="value", aggfunc="max")
        return wide.reindex(columns=list(keys)).astype(float).reset_index()

    def _bulk(self, runs: list[str], key: str) -> Iterator[tuple[Any, ...]]:
        """One metric of many runs; where the answer was cut off, in halves."""
        from mlflow.utils.rest_utils import http_request_safe

        store: Any = self._client._tracking_client.store
        route = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
        query = {"run_id": runs, "metric_key": key, "max_results": POINTS_PER_REQUEST}
        points = http_request_safe(store.get_host_creds(), route, "GET", params=query).json()["metrics"]
        if len(points) < POINTS_PER_REQUEST:
            for p in points:
                yield p["run_id"], key, p["step"], p["timestamp"], _number(p["value"])
        elif len(runs) > 1:
            yield from self._bulk(runs[::2], key)
            yield from self._bulk(runs[1::2], key)
        else:
            for metric in self._client.get_metric_history(runs[0], key):
                yield runs[0], key, metric.step, metric.timestamp, metric.value

    def _search(self, experiments: list[str], wanted: str) -> list[Any]:
        return list(self._pages(lambda **page: self._client.search_runs(experiments, wanted, max_results=PAGE, **page)))

    def _pages(self, ask: Any) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = ask(page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _wide(triples: Iterable[tuple[str, str, Any]], index: pd.Index) -> pd.DataFrame:
    """A frame with a row a run and a column a key."""
    columns: dict[str, dict[str, Any]] = {}
    for run, key, value in triples:
        columns.setdefault(key, {})[run] = value
    return pd.DataFrame({key: pd.Series(values) for key, values in columns.items()}).reindex(index)


def _name_of(id_: str) -> str:
    """
    >>> [_name_of(f"digits-20261122-144758{rest}") for rest in ("", "-2", "-0f6b3c", "-0f6b3c-2")]
    ['digits', 'digits', 'digits', 'digits']
    """
    import re

    return re.sub(r"-\d{8}-\d{6}(-[0-9a-f]+){0,2}$", "", id_)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)

"""Where MLflow keeps the runs: a SQLite file of our own, or a server, checked before any training."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsweep.errors import UserError
from cnnsweep.tracking.credentials import redact, without_credentials
from cnnsweep.tracking.server_check import expect_artifacts, expect_server

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it prints two lines for every run that ends on a server, in the middle of ours.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The follower retries by itself; MLflow's own seven retries would make a dead server cost minutes a call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
DRIVER = 'for PostgreSQL: pip install "cnnsweep[server]", and write postgresql+psycopg2://USER:PASSWORD@HOST/NAME'
_log = logging.getLogger("cnnsweep.mlflow")


def open_store(tracking: Mapping[str, Any]) -> str:
    """Create or reach the store and its experiment; return its URI.

    Raises UserError where the directory cannot be written, the server does not answer, lets us not in or has no place
    for files that we can reach, or the experiment was deleted.
    """
    folder = _writable(Path(tracking["dir"]).absolute())
    if tracking["uri"] is None:
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        with _alone(folder / ".mlflow.lock"):
            _open_experiment(uri, tracking["experiment"], (folder / "artifacts").as_uri())
        return uri
    uri = without_credentials(tracking["uri"])
    served = uri.startswith(("http://", "https://"))
    if served:
        _prepare()
        expect_server(uri, tracking["experiment"])
    elif not uri.startswith("sqlite"):
        _expect_database(uri)
    location = _open_experiment(uri, tracking["experiment"], None)
    if served:
        expect_artifacts(uri, location)
    return uri


def find_store(tracking: Mapping[str, Any]) -> str:
    """Return the URI of a store that exists already, creating nothing.

    Raises UserError where there is none, it is no MLflow store, its schema is of another MLflow version, or the
    server does not answer.
    """
    if tracking["uri"] is None:
        path = Path(tracking["dir"]).absolute() / "mlflow.db"
        if not path.is_file():
            advice = "run a sweep first, or say where it is: tracking.dir=DIR, or tracking=server tracking.uri=URL"
            raise UserError(f"there is no MLflow store at {path}: {advice}")
        uri = f"sqlite:///{path}"
    else:
        uri = without_credentials(tracking["uri"])
    if uri.startswith(("http://", "https://")):
        _prepare()
        expect_server(uri, tracking["experiment"])
    else:
        _check_schema(uri)
    return uri


def _check_schema(uri: str) -> None:
    """MLflow itself would put its tables into any database that it is pointed at."""
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    _prepare()
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.version import VERSION

    engine = sa.create_engine(uri)
    try:
        with engine.connect() as connection:
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    except SQLAlchemyError as error:
        reason = redact(str(getattr(error, "orig", None) or error)).splitlines()[0][:200]
        raise UserError(f"{redact(uri)} is no MLflow store ({reason})") from None
    finally:
        engine.dispose()
    if found != (expected := _get_latest_schema_revision()):
        raise UserError(
            f"the MLflow store {redact(uri)} has the schema {found}; MLflow {VERSION} reads {expected}. Install the "
            f"MLflow that wrote it, or make a copy of it and bring it up to date: mlflow db upgrade {redact(uri)}"
        )


def connect(uri: str) -> MlflowClient:
    """Return a client of the store, with MLflow's telemetry off and its messages sent to the log."""
    _prepare()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def find_experiment(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment that `open_store` has made."""
    found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise UserError(f"the MLflow experiment '{name}' was deleted: restore it, or set tracking.experiment")
    return str(found.experiment_id)


class _Demoted(logging.Handler):
    """Hands a library's records on as our own informational ones: to the log file, not to the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.info("%s: %s", record.name, redact(record.getMessage()))


def _prepare() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401  (it sets up its loggers when it is imported)

    for name in ("mlflow", "alembic", "sqlalchemy.engine", "huey", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        logger.handlers = [_Demoted()]
        logger.propagate = False


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"tracking.dir: {folder} cannot be written ({error.strerror}); set another") from None
    return folder


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock between processes. SQLite's own: it is portable, and gone when its holder dies."""
    lock = sqlite3.connect(path, timeout=120, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


def _expect_database(uri: str) -> None:
    """MLflow itself would try for 100 seconds, whatever is wrong."""
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = sa.create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(uri, error) from None


def _unusable(uri: str, error: Exception) -> UserError:
    lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
    advice = f"\n{DRIVER}" if isinstance(error, ImportError) else ""
    return UserError(f"the MLflow store {redact(uri)} cannot be used: {lines[0][:300]}{advice}")


def _open_experiment(uri: str, name: str, artifacts: str | None) -> str:
    """Find or create the experiment; return where it keeps its files."""
    from sqlalchemy.exc import SQLAlchemyError

    _prepare()
    from mlflow.exceptions import MlflowException

    try:
        client = connect(uri)
        if client.get_experiment_by_name(name) is None:
            try:
                location = artifacts and f"{artifacts}/{_file_name(name)}"
                client.create_experiment(name, artifact_location=location)
            except MlflowException:
                if client.get_experiment_by_name(name) is None:  # else another process made it in between
                    raise
        return str(client.get_experiment(find_experiment(client, name)).artifact_location)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise _unusable(uri, error) from None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "experiment"

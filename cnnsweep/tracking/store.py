"""The MLflow store and the files of its runs: a SQLite file, a database or a server, tested before any training."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
import urllib.parse
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsweep.config.schema import Tracking
from cnnsweep.errors import UserError
from cnnsweep.tracking.credentials import brief, redact, shown, without_credentials
from cnnsweep.tracking.locations import FOLDER, artifacts_at, database_file, local_folder, settle
from cnnsweep.tracking.sqlite import alone, connect_once, create_tables, database, expect_finished

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from requests import Response

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it prints two lines for every run that ends on a server, in the middle of ours.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The tracker retries by itself; MLflow's own seven retries would make a dead server cost minutes a call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
ANSWER_SECONDS, ARTIFACT_SECONDS = 5, 30
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write http://USER:PASSWORD@HOST:PORT"
DATABASE_CREDENTIALS = (
    "no password is stored: write it into the address (tracking.uri=…), set MLFLOW_TRACKING_URI to that address, "
    "or set PGUSER and PGPASSWORD"
)
DRIVER = 'for PostgreSQL: pip install "cnnsweep[server]", and write postgresql+psycopg2://USER:PASSWORD@HOST/NAME'
LOSING = (301, 302, 303)
"""Redirects after which what was to be written is only read, by all clients."""
TEST_FILE = "cnnsweep.txt"
"""A small file beside the runs' folders. It stays: not every store lets its users remove files."""
_log = logging.getLogger("cnnsweep.mlflow")


def open_store(tracking: Tracking) -> str:
    """Create or reach the store and its experiment; return its URI.

    Raises UserError where the directory cannot be written, the server does not answer, denies access or keeps its
    files where this machine cannot write, or the experiment was deleted.
    """
    folder = Path(tracking.dir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"tracking.dir: {folder} cannot be written ({error.strerror}); set another") from None
    if tracking.uri is None:
        uri = database(folder)
        with alone(folder / ".mlflow.lock"):
            settle(uri, _open_experiment(uri, tracking.experiment, (folder / FOLDER).as_uri()))
        return uri
    uri = without_credentials(tracking.uri)
    if is_server(uri):
        _expect_server(uri, tracking.experiment)
        expect_artifacts(uri, _open_experiment(uri, tracking.experiment))
    else:
        file = database_file(uri)
        with alone(file.parent / ".mlflow.lock") if file and file.parent.is_dir() else contextlib.nullcontext():
            _open_experiment(uri, tracking.experiment, (folder / FOLDER).as_uri())
        settle(uri)
    return uri


def find_store(tracking: Tracking) -> str:
    """Return the URI of a store that exists already, creating nothing.

    Raises UserError where there is none, it is no MLflow store, its schema is of another MLflow version, or the
    server does not answer.
    """
    path = Path(tracking.dir).absolute() / "mlflow.db"
    if tracking.uri is None and not path.is_file():
        advice = "run a sweep first, or say where it is: tracking.dir=DIR, or tracking=server tracking.uri=URL"
        raise UserError(f"there is no MLflow store at {path}: {advice}")
    uri = database(path.parent) if tracking.uri is None else without_credentials(tracking.uri)
    if is_server(uri):
        _expect_server(uri, tracking.experiment)
    else:
        _check_schema(uri)
        settle(uri)
    return uri


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


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


def expect_artifacts(uri: str, location: str) -> None:
    """Raise UserError unless files can be written where the experiment's runs keep theirs; writes one."""
    advice = "start the server with --artifacts-destination PLACE, then it passes the files on (for new experiments)"
    local = local_folder(uri, location)
    if local and not local.is_dir() and urllib.parse.urlsplit(uri).hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(
            f"tracking.uri: {uri} wants the files of its runs in {local}, a folder that this machine does not have\n"
            f"mount it here, or {advice}; an experiment keeps its place: set tracking.experiment to a new one"
        )
    written: Future[None] = Future()
    # Not by a pool, whose threads Python waits for at its end: the stores' own libraries try for minutes.
    threading.Thread(target=_write_test_file, args=(uri, location, written), daemon=True).start()
    try:
        written.result(ARTIFACT_SECONDS)
    except Exception as error:
        reason = f"no answer within {ARTIFACT_SECONDS:g} s" if not written.done() else brief(error)
        raise UserError(
            f"tracking.uri: {uri} keeps the files of its runs in {redact(location)}, where none can be put ({reason})\n"
            f"{advice}; or install and configure on this machine what {urllib.parse.urlsplit(location).scheme}: needs"
        ) from None


def _write_test_file(uri: str, location: str, written: Future[None]) -> None:
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, TEST_FILE)
            file.write_text("Written before a sweep begins, to see whether files can be put here.\n", encoding="utf-8")
            artifacts_at(uri, location).log_artifact(str(file))
        written.set_result(None)
    except Exception as error:
        written.set_exception(error)


def _open_experiment(uri: str, name: str, artifacts: str | None = None) -> str:
    """Find or create the experiment; return the location of its files."""
    from sqlalchemy.exc import SQLAlchemyError

    _prepare()
    from mlflow.exceptions import MlflowException

    try:
        if artifacts:
            create_tables(uri, artifacts)
        client = connect(uri)
        if client.get_experiment_by_name(name) is None:
            folder = re.sub(r"[^\w.-]+", "_", name).strip(".")[:80] or "experiment"  # a file's name has 255 bytes
            try:
                client.create_experiment(name, artifact_location=artifacts and f"{artifacts}/{folder}")
            except MlflowException:
                if client.get_experiment_by_name(name) is None:  # else another process made it in between
                    raise
        return str(client.get_experiment(find_experiment(client, name)).artifact_location)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise UserError(
            f"the MLflow store {shown(uri)} cannot be used: {brief(error, 300)}{_advice(uri, error)}"
        ) from None


def _advice(uri: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"\n{DRIVER}"
    return f"\n{DATABASE_CREDENTIALS}" if uri.startswith("postgresql") and shown(uri) == uri else ""


class _Demoted(logging.Handler):
    """Passes a library's records on as our own informational ones: to the log file, not to the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.info("%s: %s", record.name, redact(record.getMessage()))


def _prepare() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401  (it sets up its loggers when it is imported)

    for name in ("mlflow", "alembic", "sqlalchemy.engine", "huey", "urllib3.connectionpool", "matplotlib"):
        logger = logging.getLogger(name)
        logger.handlers = [_Demoted()]
        logger.propagate = False


def _check_schema(uri: str) -> None:
    """Raise UserError for another schema; MLflow itself would put its tables into any database."""
    import sqlalchemy as sa
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    _prepare()
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.version import VERSION

    try:
        expect_finished(uri)
        with connect_once(uri) as connection:
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    except SQLAlchemyError as error:
        reason = brief(error.orig if isinstance(error, DBAPIError) and error.orig else error)
        raise UserError(f"{shown(uri)} is no MLflow store ({reason}){_advice(uri, error)}") from None
    if found != (expected := _get_latest_schema_revision()):
        raise UserError(
            f"the MLflow store {shown(uri)} has the schema {found}; MLflow {VERSION} reads {expected}. Install the "
            f"MLflow that wrote it, or make a copy of it and bring it up to date: mlflow db upgrade {shown(uri)}"
        )


def _expect_server(uri: str, experiment: str) -> None:
    """Raise UserError unless an MLflow server answers at `uri` and grants access."""
    _prepare()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/get-by-name",
            "GET",
            max_retries=0,
            raise_on_status=False,
            timeout=ANSWER_SECONDS,
            params={"experiment_name": experiment},
        )
    except (MlflowException, OSError) as error:
        raise UserError(
            f"tracking.uri: no answer from {uri} within {ANSWER_SECONDS} s ({brief(error)})\n"
            f"start it (mlflow server), correct the address, or use tracking=local{_through_proxy(uri)}"
        ) from None
    content: object = None
    with contextlib.suppress(ValueError):
        content = answer.json()
    content = content if isinstance(content, dict) else {}
    known = answer.status_code == 200 and "experiment" in content
    missing = answer.status_code == 404 and content.get("error_code") == "RESOURCE_DOES_NOT_EXIST"
    if not known and not missing:
        raise UserError(f"tracking.uri: {_refusal(uri, answer, content.get('message'))}{_through_proxy(uri)}")
    if any(step.status_code in LOSING for step in answer.history):
        target = shown(answer.url.partition("/api/2.0/")[0])
        raise UserError(f"tracking.uri: {uri} sends its clients on to {target}; set tracking.uri={target}")


def _through_proxy(uri: str) -> str:
    """A hint where a server is asked through a proxy, which often does not know those of its own network."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(uri, get_environ_proxies(uri))
    host = urllib.parse.urlsplit(uri).hostname
    return f"\nit was asked through the proxy {shown(proxy)}; no_proxy={host} asks it directly" if proxy else ""


def _refusal(uri: str, answer: Response, message: object) -> str:
    if answer.status_code == 401:
        return f"{uri} does not accept the user name and password (401)\n{CREDENTIALS}"
    if answer.status_code == 403 and "Host header" in answer.text:
        host = urllib.parse.urlsplit(uri).netloc
        return (
            f"{uri} does not know itself by that name (403)\n"
            f"start it with --allowed-hosts '{host}' among the others (and --cors-allowed-origins '{uri}' for its page)"
        )
    if answer.status_code == 403:
        return f"{uri} forbids this user to read experiments (403)\n{CREDENTIALS}"
    if message:
        return f"{uri} answers with an error ({answer.status_code}): {brief(message)}"
    return f"what answers at {uri} is no MLflow server (status {answer.status_code}); correct the host, port or path"

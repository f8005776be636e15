"""SQLite stores: the URI, the lock and the tables."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cnnsweep.errors import UserError
from cnnsweep.tracking.locations import database_file

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK_SECONDS = 120
UNFINISHED = ".mlflow.new-"
"""How the names of the folders begin in which stores are created."""


def database(folder: Path) -> str:
    """The URI of the SQLite store in a folder of any name."""
    return _address(str(folder / "mlflow.db"))


def _address(path: str) -> str:
    from sqlalchemy import make_url

    # Quoted altogether, since MLflow makes the folder that it reads in the URI without decoding it: here, none.
    for uri in (f"sqlite:///{path}", f"sqlite:///{urllib.parse.quote(path, safe='', errors='surrogateescape')}"):
        if make_url(uri).database == path.encode(errors="ignore").decode():
            return uri
    raise UserError(f"tracking.dir: {path!a} cannot be the path of a database, or not in this locale; set another")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock: two processes cannot both create the tables. Raises UserError where it cannot be had."""
    try:
        lock = FileLock(path, LOCK_SECONDS).acquire()
    except Timeout:
        advice = "end the process that holds it, or set another folder"
        raise UserError(f"tracking.dir: {path} is still locked after {LOCK_SECONDS} s; {advice}") from None
    except (OSError, NotImplementedError) as error:  # a folder, say, or a file system without locks
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"tracking.dir: {path} cannot be locked ({reason}); remove it, or set another folder") from None
    with lock:
        yield


def connect_once(uri: str) -> Connection:
    """A connection that keeps nothing open once it is closed."""
    import sqlalchemy as sa

    return sa.create_engine(uri, poolclass=sa.NullPool).connect()


def create_tables(uri: str, artifacts: str) -> None:
    """Create what a new store needs.

    Raises UserError for a SQLite file that cannot be written, or whose tables were not all created.

    Left to itself, MLflow writes the working folder into an SQL statement, as it is, for its Default experiment.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = database_file(uri)
    if file and file.exists() and not os.access(file, os.W_OK):
        raise UserError(f"the MLflow store {file} cannot be written: its owner can let the group, by chmod g+w {file}")
    if file and file.parent.is_dir() and (not file.exists() or (file.is_file() and not file.stat().st_size)):
        _create_file(os.path.realpath(file), artifacts)
    connect_once(uri).close()  # MLflow itself would try for 100 seconds
    expect_finished(uri)
    SqlAlchemyStore(uri, artifacts)


def _create_file(path: str, artifacts: str) -> None:
    """Create a SQLite file with its tables in a folder beside it first: what MLflow begins cannot be continued."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    parent, name = os.path.split(path)
    for left in Path(parent).glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=parent, ignore_cleanup_errors=True) as folder:
        new = os.path.join(folder, name)
        Path(new).touch()  # SQLite's own has mode 0644 under any umask: no store for a group
        connect_once(_address(new)).close()
        SqlAlchemyStore(_address(new), artifacts).engine.dispose()
        for ending in ("-journal", "-wal", "-shm"):  # of an earlier file; SQLite would apply them
            Path(path + ending).unlink(missing_ok=True)
        os.replace(new, path)


def expect_finished(uri: str) -> None:
    """Raise UserError for a SQLite file in which MLflow was stopped before it had created all tables."""
    import sqlalchemy as sa
    from mlflow.store.db.utils import _get_latest_schema_revision

    file = database_file(uri)
    if file is None:
        return
    with connect_once(uri) as connection:
        tables = set(sa.inspect(connection).get_table_names())
        if not tables & {"experiments", "_alembic_tmp_experiments"}:
            return
        if "experiments" in tables and connection.scalar(sa.text("SELECT 1 FROM experiments")):
            return  # MLflow's last step is the Default one
        version = "alembic_version" in tables and connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if version != _get_latest_schema_revision():
        raise UserError(f"the MLflow store {file} was never finished and has no runs: remove it and start again")

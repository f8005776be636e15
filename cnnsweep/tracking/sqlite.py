"""The SQLite store in a folder: its URI, its lock and its tables."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cnnsweep.errors import UserError

LOCK_SECONDS = 120


def database(folder: Path) -> str:
    """The URI of the SQLite store in a folder of any name."""
    from sqlalchemy import make_url

    path = str(folder / "mlflow.db")
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


def create_tables(uri: str, artifacts: str) -> None:
    """Create what a new store needs.

    Left to itself, MLflow writes the working folder into an SQL statement, as it is, for its Default experiment.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, artifacts)

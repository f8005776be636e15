"""Locations of the files of runs. Those of a SQLite store are in `artifacts/` beside it, wherever it was moved to.

MLflow records them as absolute paths, so that a store that was moved, or copied, would read and write the old ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

FOLDER = "artifacts"
RECORDED = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The tables and columns in which MLflow keeps locations."""
_OURS = re.compile(rf"(.*/{FOLDER})/([^/]+)((?:/models)?/[^/]+/{FOLDER})?/?")
"""The location of an experiment, a run or a model."""


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other store."""
    import sqlalchemy as sa

    database = sa.make_url(uri).database if uri.startswith("sqlite") else None
    if not database or database == ":memory:":
        return None
    return Path(url2pathname(urllib.parse.urlsplit(database).path) if database.startswith("file:") else database)


def present(uri: str, location: str) -> str:
    """Return where the files of a recorded location are now: beside their store, if that has a folder for them."""
    found, file = _OURS.fullmatch(location), database_file(uri)
    if not found or file is None or urllib.parse.urlsplit(location).scheme not in ("", "file"):
        return location
    before, experiment, rest = found.groups()
    now = (file.absolute().parent / FOLDER).as_uri()
    here, there = _path(f"{now}/{experiment}"), _path(f"{before}/{experiment}")
    if not here.is_dir() or here == there or (there.is_dir() and os.path.samefile(here, there)):
        return location
    return f"{now}/{experiment}{rest or ''}"


def settle(uri: str, experiment: str | None = None) -> None:
    """Record the present locations in a SQLite store that was moved, for MLflow's own page and commands.

    `experiment` is the location of one whose files are to be beside the store, be there any yet or not. A store that
    cannot be written keeps what it has: what reads and writes here looks beside it anyway.
    """
    import sqlalchemy as sa

    file = database_file(uri)
    if file is None:
        return
    if experiment and (found := _OURS.fullmatch(experiment)):
        _path(f"{(file.absolute().parent / FOLDER).as_uri()}/{found[2]}").mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(uri, poolclass=sa.NullPool)
    known = sa.text("SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL")
    with contextlib.suppress(sa.exc.OperationalError):  # it may be read-only
        with engine.connect() as connection:
            moved = {old: new for (old,) in connection.execute(known) if (new := present(uri, old)) != old}
        for old, new in moved.items():
            with engine.begin() as connection:
                for table, column in RECORDED:
                    change = f"UPDATE {table} SET {column} = :new || substr({column}, :length + 1)"
                    where = f"WHERE {column} = :old OR substr({column}, 1, :length + 1) = :old || '/'"
                    connection.execute(sa.text(f"{change} {where}"), {"old": old, "new": new, "length": len(old)})


def artifacts_at(uri: str, location: str) -> ArtifactRepository:
    """Return the files at a location of the store with this URI."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(present(uri, location), tracking_uri=uri)


def local_folder(uri: str, location: str) -> Path | None:
    """Return the folder of a location of a store, where it is on this machine.

    >>> print(local_folder("http://host", "file:///srv/a"), local_folder("http://host", "mlflow-artifacts:/1/2"))
    /srv/a None
    """
    parts = urllib.parse.urlsplit(location)
    return _path(present(uri, location)) if parts.scheme in ("", "file") else None


def with_store_at(config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return a stored plain config with `tracking.dir` at a folder, and the caches that it has there by default.

    >>> stored = {"tracking": {"dir": "/old"}, "model": {"cache": "/old/cache", "weights": "/old/weights"}, "data": {}}
    >>> with_store_at(stored, "/new")["model"]
    {'cache': '/new/cache', 'weights': '/old/weights'}
    """
    moved = {"tracking": {**config["tracking"], "dir": folder}}
    for name in ("data", "model"):
        if config[name].get("cache") == f"{config['tracking']['dir']}/cache":
            moved[name] = {**config[name], "cache": f"{folder}/cache"}
    return {**config, **moved}


def _path(location: str) -> Path:
    return Path(url2pathname(urllib.parse.urlsplit(location).path))

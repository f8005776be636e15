"""A SQLite store with its tables, made once and copied: MLflow's migrations take seconds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from cnnsweep.tracking import sqlite, store
from cnnsweep.tracking.locations import database_file


@functools.cache
def template() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store._prepare()
        sqlite.create_tables(sqlite.database(Path(folder)), (Path(folder) / "artifacts").as_uri())
        return (Path(folder) / "mlflow.db").read_bytes()


def put(file: Path) -> None:
    """Copy the template to a file that is not there, or empty."""
    if not file.exists() or not file.stat().st_size:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(template())


def create_tables(uri: str, artifacts: str) -> None:
    """In place of the function of this name."""
    if (file := database_file(uri)) is not None:
        put(file)
    sqlite.create_tables(uri, artifacts)

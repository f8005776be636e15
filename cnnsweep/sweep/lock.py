"""One driver a sweep: a lock on its folder that is gone when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cnnsweep.errors import UserError

FILE = "driver.lock"
PATIENCE = 2.0
"""Seconds: longer than anyone who only looks (`is_held`) keeps a lock."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the driver of the sweep in `folder`. Raises UserError where another process is."""
    # SQLite's lock: it is portable, no process that we start inherits it, and none outlives its holder.
    connection = sqlite3.connect(folder / FILE, timeout=PATIENCE, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise UserError(
                f"sweep {folder.name} is still running in another process, or its folder cannot be locked ({error}); "
                "stop it there (Ctrl-C) before you resume it here"
            ) from error
        yield
    finally:
        connection.close()


def is_held(folder: Path) -> bool:
    """Whether a living process drives the sweep."""
    if not (folder / FILE).exists():
        return False
    try:
        connection = sqlite3.connect(f"{(folder / FILE).absolute().as_uri()}?mode=ro", uri=True, timeout=0)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    return False

"""A store that cannot be locked or opened is told in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tracked_sweeps import settings

from cnnsweep.errors import UserError
from cnnsweep.tracking import sqlite, store

HOLD = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda folder: (folder / ".mlflow.lock").mkdir(), r".mlflow.lock cannot be locked \(Is a directory\)"),
    "a circle of links": (
        lambda folder: (folder / ".mlflow.lock").symlink_to(folder / ".mlflow.lock"),
        r".mlflow.lock cannot be locked \(Too many levels of symbolic links\)",
    ),
    "a database that is a folder": (
        lambda folder: (folder / "mlflow.db").mkdir(),
        r"mlflow.db cannot be used: .*unable to open database file",
    ),
    "a damaged database": (
        lambda folder: (folder / "mlflow.db").write_bytes(b"junk" * 1000),
        r"mlflow.db cannot be used: .*file is not a database",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_store_that_cannot_be_used(kind: str, tmp_path: Path) -> None:
    make, message = UNUSABLE[kind]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        store.open_store(settings(tmp_path))
    assert "\n" not in str(error.value)


def test_a_lock_that_is_held_by_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.1)
    lock = tmp_path / ".mlflow.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=f"^tracking.dir: {lock} is still locked after 0.1 s; end the process"):
            store.open_store(settings(tmp_path))
        other.communicate(b"\n")


def test_what_a_lock_holds_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(store, "_open_experiment", lambda uri, *_: opened.append(uri))
    (tmp_path / ".mlflow.lock").write_bytes(b"\0\xff")
    assert opened == [store.open_store(settings(tmp_path))]

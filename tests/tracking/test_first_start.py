"""Stores whose first start is killed while MLflow creates the tables, and who may write those that it made."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracked_sweeps import settings

from cnnsweep.errors import UserError
from cnnsweep.tracking.store import connect, find_store, open_store

OPEN = """
import sys
from types import SimpleNamespace
from cnnsweep.tracking.store import open_store
open_store(SimpleNamespace(dir=sys.argv[1], uri=sys.argv[2] or None, experiment="tests"))
"""
BY_MLFLOW = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(f"sqlite:///{sys.argv[1]}/mlflow.db", sys.argv[1])
"""
# Each start imports MLflow.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def largest(folder: Path) -> int:
    try:
        return max((p.stat().st_size for p in folder.rglob("*.db*")), default=0)
    except FileNotFoundError:  # a journal that is gone
        return 0


def kill_at(size: int, code: str, folder: Path, uri: str = "") -> None:
    """Run code and kill it once a database has so many bytes."""
    with subprocess.Popen([sys.executable, "-c", code, str(folder), uri]) as process:
        while process.poll() is None and largest(folder) < size:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -9, "it was not killed"


@pytest.mark.parametrize("name", [None, "other.db"])
def test_a_store_whose_first_starts_were_killed(tmp_path: Path, name: str | None) -> None:
    uri = f"sqlite:///{tmp_path / name}" if name else None
    for size in (100_000, 250_000):
        kill_at(size, OPEN, tmp_path, uri or "")
    opened = open_store(settings(tmp_path, uri))
    assert connect(opened).get_experiment_by_name("tests") is not None
    assert {p.name for p in tmp_path.iterdir()} - {"artifacts"} == {name or "mlflow.db", ".mlflow.lock"}


def test_a_disk_that_is_full_at_the_first_start(tmp_path: Path, small_disk: Callable[[Path, str], None]) -> None:
    small_disk(tmp_path, "size=300k")
    with pytest.raises(UserError, match="database or disk is full"):
        open_store(settings(tmp_path))
    small_disk(tmp_path, "remount,size=20m")
    assert open_store(settings(tmp_path)) == find_store(settings(tmp_path))


def test_a_store_that_mlflow_itself_did_not_finish(tmp_path: Path) -> None:
    kill_at(250_000, BY_MLFLOW, tmp_path)
    for use in (open_store, find_store):
        with pytest.raises(UserError, match=r"mlflow\.db was never finished and has no runs: remove it") as error:
            use(settings(tmp_path))
        assert "\n" not in str(error.value)
    (tmp_path / "mlflow.db").unlink()
    assert open_store(settings(tmp_path)) == find_store(settings(tmp_path))


def test_a_store_can_be_written_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        open_store(settings(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode) == 0o664


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    open_store(settings(tmp_path))
    file = tmp_path / "mlflow.db"
    file.chmod(0o444)
    as_others = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    command = [*as_others, sys.executable, "-c", OPEN, str(tmp_path), ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"UserError: the MLflow store {file} cannot be written" in done.stderr
    assert f"chmod g+w {file}" in done.stderr

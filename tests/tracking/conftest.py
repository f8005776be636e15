"""Stores whose tables MLflow makes, and small disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnsweep.tracking import sqlite, store


@pytest.fixture(autouse=True)
def _tables_made_by_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "create_tables", sqlite.create_tables)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], None]]:
    """Mount a disk in memory at a folder, with the options of `mount -o`."""
    mounted: set[Path] = set()

    def mount(folder: Path, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        mounted.add(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)

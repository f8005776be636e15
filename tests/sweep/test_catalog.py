"""The lock of a sweep: one driver at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cnnsweep.errors import UserError
from cnnsweep.sweep import catalog


def hold_with_a_child(folder: Path, pipe: Connection) -> None:
    """Hold the lock; a process that is forked meanwhile sleeps on."""
    with catalog.hold(folder):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        pipe.send(child)
        pipe.recv()


def test_a_sweep_has_one_driver_and_a_dead_one_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PATIENCE", 0.1)
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold_with_a_child, args=(tmp_path, theirs))
    other.start()
    child = ours.recv()
    assert catalog.is_held(tmp_path)
    with pytest.raises(UserError, match="still running in another process"), catalog.hold(tmp_path):
        pass
    other.kill()
    other.join()
    try:
        assert not catalog.is_held(tmp_path), "a forked process inherited the lock"
        with catalog.hold(tmp_path):
            assert catalog.is_held(tmp_path)
        assert not catalog.is_held(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_looking_at_a_lock_makes_none(tmp_path: Path) -> None:
    assert not catalog.is_held(tmp_path)
    assert not list(tmp_path.iterdir())

"""The lock of a sweep: one driver at a time."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.journal.events import EpochEnded, Event, SweepStarted, TrialEnded, TrialStarted
from cnnsweep.journal.journal import FILE, FORMAT, Journal
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


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    message = r"cannot be locked \(No locks available\); set tracking.dir to one on a file system with locks$"
    with pytest.raises(UserError, match=message), catalog.hold(tmp_path):
        pass


def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlruns").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=f"is a link to '{tmp_path / 'unmounted'}', which is not there"):
        catalog.new_id(compose([f"tracking.dir={tmp_path / 'mlruns'}"]).tracking, "smoke")


def test_looking_at_a_lock_makes_none(tmp_path: Path) -> None:
    assert not catalog.is_held(tmp_path)
    assert not list(tmp_path.iterdir())


def events(metric: str, *runs: tuple[float, str]) -> list[Event]:
    """One trial that was trained so often, for an epoch each: the value and the status at the end."""
    config = {"objective": {metric: "max"}}
    found: list[Event] = [SweepStarted(id="s", sweep="s", format=FORMAT, config=config)]
    for value, status in runs:
        found += [
            TrialStarted(trial=1, title="1", values={}, seed=1, epochs=1, proposal="0", worker="a", config={}),
            EpochEnded(trial=1, epoch=1, metrics={"loss": 9.0, metric: value}),
            TrialEnded(trial=1, status=status, epochs=1),  # type: ignore[arg-type]
        ]
    return found


@pytest.mark.parametrize("metric", ["score", "time", "trial", "event", "güte"])
def test_the_best_value_is_the_objectives_whatever_its_name(tmp_path: Path, metric: str) -> None:
    """The journal has keys of these names; letters beyond ASCII are escaped there."""
    journal = Journal(tmp_path / FILE)
    for event in events(metric, (0.25, "completed")):
        journal.append(event)
    journal.close()
    assert catalog.read(tmp_path).best == 0.25


def test_what_a_trial_had_before_it_failed_is_not_the_best_once_it_was_trained_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FILE)
    for event in events("score", (0.9, "failed"), (0.2, "completed")):
        journal.append(event)
    journal.close()
    assert catalog.read(tmp_path).best == 0.2

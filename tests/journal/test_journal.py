"""What is read back from a journal that something happened to, and the lock that keeps it to one driver."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import pytest

from cnnsweep.errors import UserError
from cnnsweep.journal import journal
from cnnsweep.journal.journal import CannotWriteError, Journal
from cnnsweep.sweep import lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep-1" / journal.FILE
    written = Journal(path)
    written.append("sweep", id="sweep-1", format=journal.FORMAT)
    written.append("epoch", trial=1, epoch=1, metrics={"loss": float("nan")})
    written.append("stop", status="completed")
    written.close()
    return path


def kinds(path: Path) -> list[str]:
    return [event["event"] for event in journal.read(path)]


@pytest.mark.parametrize("kept", range(1, 9))
def test_a_half_written_last_line_is_cut_off_and_that_is_said(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: len(whole) - len(last) + len(last) * kept // 9])
    assert kinds(path) == ["sweep", "epoch"]
    said = journal.mend(path)
    assert said is not None
    assert str(path) in said
    assert "half written" in said
    assert kinds(path) == ["sweep", "epoch"]
    assert journal.mend(path) is None


def test_zeros_that_a_power_cut_left_are_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(100))
    assert "100 bytes" in (journal.mend(path) or "")
    assert kinds(path) == ["sweep", "epoch", "stop"]


@pytest.mark.parametrize(
    "damage", [b"\0\0\0\n", b'{"event":"ep\n', b"[]\n", b'{"event":1,"time":2}\n', b"\xff\xfe\n", b"\n"]
)
def test_damage_elsewhere_is_refused_with_its_place(path: Path, damage: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + lines[2])
    with pytest.raises(UserError, match=rf"{path}, line 2 is damaged"):
        journal.read(path)


def test_a_newer_format_is_refused_with_its_version(path: Path) -> None:
    head, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps({**json.loads(head), "format": 7}) + "\n" + "".join(rest))
    with pytest.raises(UserError, match=r"has format 7, written by a newer cnnsweep.*reads format 1"):
        journal.read(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds no event"), (b"{", "holds no event"), (b"{}\n", "line 1")]
)
def test_a_file_that_is_no_journal_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        journal.read(path)


def test_an_event_that_does_not_fit_on_the_disk_leaves_the_journal_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    written = Journal(path)

    def half(line: bytes, lasting: bool) -> None:
        written._file.write(line[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(written, "_write", half)
        with pytest.raises(CannotWriteError, match="No space left on device"):
            written.append("stop", status="failed")
    assert path.read_bytes() == before
    written.append("resume")
    written.close()
    assert kinds(path)[-1] == "resume"


def hold_until(folder: Path, pipe) -> None:  # type: ignore[no-untyped-def]
    with lock.hold(folder):
        pipe.send("held")
        pipe.recv()


def test_a_sweep_has_one_driver_and_a_dead_one_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=hold_until, args=(tmp_path, theirs))
    other.start()
    assert ours.recv() == "held"
    assert lock.is_held(tmp_path)
    with pytest.raises(UserError, match="still running in another process"), lock.hold(tmp_path):
        pass
    other.kill()
    other.join()
    assert not lock.is_held(tmp_path)
    with lock.hold(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)


def test_journaling_an_epoch_costs_less_than_two_milliseconds(path: Path) -> None:
    written, took = Journal(path), []
    metrics = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds"), 0.123456789)
    for epoch in range(300):
        began = time.perf_counter()
        written.append("epoch", trial=1, epoch=epoch, metrics=metrics)
        took.append(time.perf_counter() - began)
    written.close()
    assert statistics.median(took) < 0.002

"""Journals that are cut off, damaged, or written to a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import statistics
import time
from pathlib import Path

import pytest

from cnnsweep.errors import UserError
from cnnsweep.journal import journal
from cnnsweep.journal.events import EpochEnded, SweepResumed, SweepStarted, SweepStopped
from cnnsweep.journal.journal import CannotWriteError, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep-1" / journal.FILE
    with contextlib.closing(Journal(path)) as written:
        written.append(SweepStarted(id="sweep-1", sweep="sweep", format=journal.FORMAT, config={}))
        written.append(EpochEnded(trial=1, epoch=1, metrics={"loss": float("nan")}))
        written.append(SweepStopped(status="completed"))
    return path


def kinds(path: Path) -> list[str]:
    return [event.name for event in journal.read(path)]


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


def test_a_journal_that_a_crash_cut_off_goes_on(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"event":"tri')
    with contextlib.closing(Journal(path)) as written:
        written.append(SweepResumed(budget={}, executor={}))
    assert kinds(path) == ["sweep", "epoch", "stop", "resume"]


@pytest.mark.parametrize(
    "damage",
    [b"\0\0\0", b'{"event":"ep', b"[]", b'{"event":1,"time":2}', b'{"event":"odd","time":2}', b"\xff\xfe", b""],
)
def test_damage_elsewhere_is_refused_with_its_place(path: Path, damage: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + b"\n" + lines[2])
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


def test_nobody_is_told_to_delete_or_cut_off_what_was_trained(path: Path) -> None:
    whole = path.read_bytes()
    (path.parent / "best").mkdir()
    for content in (b"", b"xx\n" + whole.partition(b"\n")[2]):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            journal.read(path)
        assert str(caught.value).endswith("from a copy")
    path.write_bytes(whole.replace(b"\n", b"\nxx\n", 1))
    with pytest.raises(UserError, match=r"line 2 is damaged: .*\n.*from a copy, or cut it off before this line"):
        journal.read(path)


def test_an_event_that_does_not_fit_on_the_disk_leaves_the_journal_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    written = Journal(path)

    def half(line: bytes, flush: bool) -> None:
        written._file.write(line[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(written, "_write", half)
        with pytest.raises(CannotWriteError, match="No space left on device"):
            written.append(SweepStopped(status="failed"))
    assert path.read_bytes() == before
    written.append(SweepResumed(budget={}, executor={}))
    written.close()
    assert kinds(path)[-1] == "resume"


def test_journaling_an_epoch_costs_less_than_two_milliseconds(path: Path) -> None:
    written, took = Journal(path), []
    metrics = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds"), 0.123456789)
    for epoch in range(300):
        began = time.perf_counter()
        written.append(EpochEnded(trial=1, epoch=epoch, metrics=metrics))
        took.append(time.perf_counter() - began)
    written.close()
    assert statistics.median(took) < 0.002

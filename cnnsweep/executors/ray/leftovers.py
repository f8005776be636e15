"""Folders on a node that belong to drivers; those of a driver or a cluster that was killed are removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import BinaryIO

PREFIX, MARK = "cnnsweep-", "in_use"
"""Of the folders' names, and the file in each that is locked while a process of its driver lives."""


def occupy(folder: Path) -> BinaryIO:
    """Make a folder that is in use until the file that is returned is closed, or its process dies, however it dies."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            file = (folder / MARK).open("ab")
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file.fileno()), (folder / MARK).stat()):
                return file


def remove_abandoned(place: Path) -> None:
    """Remove this user's folders in a place that is no longer in use."""
    for mark in place.glob(f"{PREFIX}*/{MARK}"):
        with contextlib.suppress(OSError), mark.open("rb") as file:  # in use, or another user's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mark.stat().st_uid == os.getuid():
                shutil.rmtree(mark.parent, ignore_errors=True)

"""The folder of the sockets by which the driver speaks to its fork server."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

MOST = 70
"""Bytes of a folder's path, so that two random names have room in the 107 of a socket's path."""


def make_socket_folder() -> None:
    """Have multiprocessing make its temporary folder, which it keeps, where a socket's path is not too long."""
    given = tempfile.tempdir
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if len(os.fsencode(folder)) <= MOST:
            tempfile.tempdir = folder
            try:
                multiprocessing.util.get_temp_dir()
                return
            except OSError:
                continue
            finally:
                tempfile.tempdir = given

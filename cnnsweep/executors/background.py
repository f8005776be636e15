"""Processes that leave signals and the terminal to the command that started them, and end with it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1
_LARGER = 500  # thousandths of the memory: files that are mapped make the other count as the larger one
_TERM = (signal.SIGTERM,)


def become_background(log: str) -> None:
    """Leave signals and the terminal to the driver: all output goes to the log, or nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a cluster signals the whole group; the driver decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    faulthandler.enable(file=2)


def be_killed_first() -> None:
    """Have the kernel (Linux), where memory runs out, kill this process and not the one that it is forked from."""
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/self/oom_score_adj")
        path.write_text(str(min(1000, int(path.read_text(encoding="ascii")) + _LARGER)), encoding="ascii")


def let_children_be_terminated() -> None:
    """Ignore SIGTERM by a handler, which programs that are started do not inherit, and forked processes put back.

    One that inherits SIG_IGN ends by no `terminate()`, and whoever joins it waits for ever. The signal is blocked
    during a fork: CPython drops one that comes before the child has its own handler.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _TERM),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _TERM),
        after_in_child=_accept_termination,
    )


def _accept_termination() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERM)


def end_with_parent() -> None:
    """Have the kernel (Linux) kill this process when its parent ends, even if native code holds the GIL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def end_with_driver() -> None:
    """Wait for the driver, and end."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)

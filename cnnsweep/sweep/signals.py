"""Ctrl-C and SIGTERM: once, the sweep ends after the running epochs; twice, or when the grace is over, at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from cnnsweep.sweep.loop import Sweep


@contextlib.contextmanager
def interruptible(sweep: Sweep, grace: float) -> Iterator[None]:
    """Turn signals into `sweep.interrupt` and `sweep.abandon`; `grace`: seconds from a SIGTERM to the end."""
    # A second signal to ourselves: the sweep may be training inline, where only a signal gets through.
    timer = threading.Timer(grace, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True

    def on_signal(number: int, frame: Any) -> None:  # noqa: ARG001
        if sweep.interrupted:
            sweep.abandon()
        else:
            sweep.interrupt()
            if number == signal.SIGTERM:
                timer.start()

    try:
        before = {s: signal.signal(s, on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: a notebook's or a test's own affair
        yield
        return
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)

"""Standard output and error as extras: work goes on where they are closed, full or cannot show a letter."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TextIO


class Output(io.TextIOBase):
    """A text stream whose reader may go: what cannot be written is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="replace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: it is closed
                self._drop()
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._drop()

    def _drop(self) -> None:
        """Let what is waiting, and what native code and other processes write, go nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return
        self._stream = None


def protect() -> None:
    """Make sys.stdout and sys.stderr such streams, and open those that are closed: a file would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)


def outlive_terminal() -> None:
    """Go on when the terminal is closed, and so do the processes that are started from now on."""
    if hasattr(signal, "SIGHUP"):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

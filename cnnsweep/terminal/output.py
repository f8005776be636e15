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

    fault: str | None = None
    """Why something was dropped, other than that the reader went."""
    extra = False
    """Whether the work of this process matters more than what it writes."""

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
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Let what is waiting, and what native code and other processes write, go nowhere."""
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            self.fault = error.strerror
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


def lost() -> str | None:
    """Why standard output was not written, where it is the result of the command."""
    sys.stdout.flush()
    return None if Output.extra else getattr(sys.stdout, "fault", None)


def outlive_terminal() -> None:
    """Go on when the terminal is closed, and so do the processes that are started from now on."""
    Output.extra = True
    if hasattr(signal, "SIGHUP"):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

"""Keras' cache of data sets, and its download, which gives up at once where there is no route."""

from __future__ import annotations

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnsweep.data.arrays import Array
from cnnsweep.errors import UserError

ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
ANSWER_SECONDS = 6.0
STALL_SECONDS = 30.0


def cache_folders() -> list[Path]:
    """Where Keras keeps data sets, found without importing it; the first is where people put them."""
    spare = Path("/tmp/.keras")
    home = Path(os.path.expanduser("~"))
    default = home / ".keras" if os.access(home, os.W_OK) else spare
    base = Path(os.path.expanduser(os.environ["KERAS_HOME"])) if "KERAS_HOME" in os.environ else default
    # Keras itself looks into its spare folder only where it cannot write to the first.
    bases = [base] if os.access(base, os.W_OK) or base == spare else [base, spare]
    return [folder / "datasets" for folder in bases]


def download(module: str, file: str) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Let `keras.datasets.<module>` download and read its files, of which `file` is one.

    Raises UserError within seconds where the server cannot be reached.
    """
    reason = find_obstacle(ORIGIN + file)
    if reason:
        raise UserError(f"no answer from {ORIGIN}{file}: {reason}")
    import keras

    try:
        with stall_limit(STALL_SECONDS):
            return getattr(keras.datasets, module).load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise UserError(f"the download failed: {error}") from error


def find_obstacle(url: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """Why no server answers at `url`, or None where one does, whatever it says. Honours proxy settings."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            outcome.append(None)
        except Exception as error:  # whatever went wrong, it is the reason
            outcome.append(str(getattr(error, "reason", error)))

    # In a thread, because a name server that does not answer is outside any socket's timeout.
    thread = threading.Thread(target=ask, name="cnnsweep-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"none within {seconds:g} s"


@contextmanager
def stall_limit(seconds: float = STALL_SECONDS) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

"""Real Ray clusters of several nodes on this machine, for tests."""

from __future__ import annotations

import dataclasses
import gc
import logging
import warnings
from pathlib import Path
from typing import Any

from cnnsweep.executors import cluster
from cnnsweep.executors.cargo import Place
from cnnsweep.executors.manifest import Manifest

SMALL: dict[str, Any] = {
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
    "log_to_driver": False,
    "configure_logging": False,
    "logging_level": logging.ERROR,
}
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 4}
"""A dead node is noticed within a second or two, rather than fifteen."""

ray = cluster.load()


def place_elsewhere(self: Manifest, path: Path, written: bool) -> Place:
    """In place of `Manifest.place`: nodes take the driver's folders for another machine's."""
    found = _place(self, path, written)
    stamps = {name: (size, time + 1) for name, (size, time) in found.stamps.items()}
    return dataclasses.replace(found, mark=None, stamps=stamps)


_place = Manifest.place


def leave() -> None:
    """End what this process started; Ray kills its servers and forgets to wait for them."""
    cluster.leave()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()

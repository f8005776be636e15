"""Real Ray clusters of several nodes on this machine, for tests."""

from __future__ import annotations

import logging
from typing import Any

from cnnsweep.executors import cluster

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

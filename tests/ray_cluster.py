"""Real Ray clusters of several nodes on this machine, for tests."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import executor_jobs
import real_sweeps

from cnnsweep.executors.base import Executor, run_all
from cnnsweep.executors.ray import cluster
from cnnsweep.executors.ray.executor import RayExecutor

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


@contextlib.contextmanager
def two_cores() -> Iterator[Executor]:
    """An executor on a cluster of two cores that this process has joined, its workers ready."""
    ray.init("local", **SMALL, num_cpus=2)
    with contextlib.closing(RayExecutor()) as executor:
        run_all(executor, [(executor_jobs.instant, None)] * len(executor.workers))
        yield executor
        executor.close()
    leave()


@contextlib.contextmanager
def served() -> Iterator[str]:
    """A cluster of one core; yields the address of its server for clients."""
    from ray.cluster_utils import Cluster

    port = real_sweeps.free_port()
    store = {"object_store_memory": SMALL["object_store_memory"], "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "ray_client_server_port": port, **store})
    real_sweeps.wait_for(lambda: real_sweeps.listens(port), "the server for clients")
    yield f"ray://127.0.0.1:{port}"
    leave()
    made.shutdown()


def leave() -> None:
    """End what this process started; Ray kills its servers and forgets to wait for them."""
    cluster.leave()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()

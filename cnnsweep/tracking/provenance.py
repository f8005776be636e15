"""The provenance of a sweep's numbers: code, packages, machine and data."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess

from cnnsweep.data.loading import Dataset
from cnnsweep.executors.devices import cores, visible_gpus

PACKAGES = ("cnnsweep", "keras", "keras-tuner", "tensorflow", "jax", "torch", "mlflow", "hydra-core", "numpy", "optuna")


def gather(data: Dataset, workers: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Describe where a sweep runs, as plain values; what is unknown is missing, and nothing here fails a sweep."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "git": _git(),
        "packages": _packages(),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "processor": platform.machine(),
            "cores": cores(),
            "memory_gib": round(memory / 2**30, 1),
            "gpus": [gpu.name for gpu in visible_gpus()],
            "workers": list(workers),
        },
        "data": data.facts(),
    }


def _git() -> dict[str, object]:
    """Commit and state of the checkout that the sweep is started in; empty where there is none."""
    commit = _output("git", "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "commit": commit,
        "branch": _output("git", "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, check=False)
        return done.stdout.decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _packages() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found

"""What a sweep's record says of where its numbers come from: code, packages, machine, data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from cnnsweep.data.loading import Dataset
from cnnsweep.executors.devices import cores, visible_gpus

PACKAGES = ("cnnsweep", "keras", "keras-tuner", "tensorflow", "jax", "torch", "mlflow", "hydra-core", "numpy", "optuna")


def gather(data: Dataset, workers: tuple[str, ...]) -> dict[str, Any]:
    """Collect facts, as plain values. Nothing here may fail a sweep: what cannot be had is left out."""
    return {
        "git": _git(),
        "packages": _packages(),
        "machine": _machine() | {"workers": list(workers)},
        "data": {
            "name": data.name,
            "digest": data.digest,
            "source": data.source,
            "train": len(data.x_train),
            "validation": len(data.x_val),
            "test": len(data.x_test),
        },
    }


def _git() -> dict[str, Any]:
    """Commit and state of the checkout that the sweep is started in; empty where there is none."""
    commit = _ask("git", "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "commit": commit,
        "branch": _ask("git", "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(_ask("git", "status", "--porcelain", "--untracked-files=no")),
    }


def _ask(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": cores(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": [gpu.name for gpu in visible_gpus()],
    }

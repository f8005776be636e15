"""Experiment-tracked hyperparameter sweeps for convolutional networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsweep.api import Result, curves, run, trials

__version__ = "0.1.0"
__all__ = ["Result", "__version__", "curves", "run", "trials"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: the workers and --help import this package too.
    if name in __all__:
        return getattr(importlib.import_module("cnnsweep.api"), name)
    raise AttributeError(f"module 'cnnsweep' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

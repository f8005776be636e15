"""Experiment-tracked hyperparameter sweeps for convolutional networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsweep.api import Result, curves, run, trials
    from cnnsweep.training.own_trial import Trial, current_trial

__version__ = "0.1.0"
__all__ = ["Result", "Trial", "__version__", "current_trial", "curves", "run", "trials"]
_OF_TRIALS = ("Trial", "current_trial")


def __getattr__(name: str) -> Any:
    # Loaded when first used: the workers and --help import this package too.
    if name in __all__:
        module = "cnnsweep.training.own_trial" if name in _OF_TRIALS else "cnnsweep.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'cnnsweep' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

"""Experiment-tracked hyperparameter sweeps for convolutional networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsweep.api import Result, curves, run, trials

__all__ = ["Result", "__version__", "curves", "run", "trials"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when first used: the workers and --help import this package too.
    if name in __all__:
        from cnnsweep import api

        return getattr(api, name)
    raise AttributeError(f"module 'cnnsweep' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

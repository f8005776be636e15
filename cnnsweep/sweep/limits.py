"""Limits of a sweep and of its trials: the budget, time limits, and failures that the sweep itself answers."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cnnsweep.config.schema import Budget, Config, Training
from cnnsweep.journal.journal import FILE, FULL
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.models.fine_tuning import total_epochs
from cnnsweep.search.oracle import Proposal
from cnnsweep.search_space.space import Values
from cnnsweep.training.cost_model import TrialForecaster

GRACE = 0.1
"""The share of budget.minutes by which running trials may go beyond it, to reach their next rung or their end."""
ALL_TRIED = "every valid configuration was tried"
UNTESTED = "the best model could not be evaluated"
FULL_DISK = "the disk is full; free some of it, then resume"
GONE = "the sweep's folder was moved or removed; resume it where it is now"
OUT_OF_MEMORY = ("OOM", "out of memory", "RESOURCE_EXHAUSTED", "ResourceExhausted", "MemoryError", "OutOfMemory")
"""In the errors of TensorFlow, JAX, PyTorch and Python, and of a worker that the kernel killed for its memory."""
LEAST_FREE = 1 << 20
"""Bytes: with less, not even a checkpoint can be written, and a worker may die without a message."""


def spent(budget: Budget, state: SweepState, now: float, promotes: bool = False) -> tuple[str, bool] | None:
    """Return which limit is reached, and whether running trials are to stop too; None while there is some left.

    `promotes`: the search stops proposing new configurations by itself, and then finishes its rungs.
    """
    if budget.minutes and now - state.began >= 60 * budget.minutes:
        return f"budget.minutes ({budget.minutes:g}) is spent", True
    if budget.epochs and state.epochs >= budget.epochs:
        return f"budget.epochs ({budget.epochs}) is spent", True
    if budget.trials and len(state.trials) >= budget.trials and not promotes:
        return f"budget.trials ({budget.trials}) is reached", False
    return None


def used_up(budget: Budget, configurations: int) -> str:
    """Why a search proposes nothing more after so many configurations, where no limit stopped it.

    One that promotes finishes its rungs after the last new configuration.
    """
    reached = budget.trials and configurations >= budget.trials
    return f"budget.trials ({budget.trials}) is reached" if reached else ALL_TRIED


def seconds_left(budget: Budget, state: SweepState, now: float) -> float:
    """Seconds until budget.minutes are spent; infinite without such a limit."""
    return state.began + 60 * budget.minutes - now if budget.minutes else math.inf


def reaches_rung(trial: TrialState, rung: float, budget: Budget, state: SweepState, now: float) -> bool:
    """Whether a trial reaches its next rung, or its end, soon enough after budget.minutes were spent."""
    if not budget.minutes or not trial.curve or seconds_left(budget, state, now) > 0:
        return False
    epochs = min(rung, trial.target) - len(trial.curve)
    seconds = epochs * trial.curve[-1].get("epoch_seconds", math.inf) if epochs > 0 else 0.0
    return now + seconds <= state.began + 60 * budget.minutes * (1 + GRACE)


def cut_off(trial: TrialState) -> bool:
    """Whether a budget ended a trial before its last epoch, or that of its rung, which it reaches with a larger one.

    With a search that promotes it has the status pruned.
    """
    is_cut = trial.status in ("completed", "pruned") and len(trial.curve) < trial.target
    return is_cut and any(f"budget.{limit} (" in (trial.reason or "") for limit in ("minutes", "epochs"))


def go_on(budget: Budget, state: SweepState) -> list[int]:
    """The trials that an earlier budget cut off and that this one goes on with."""
    reached = spent(budget, state, state.last)
    is_over = reached is not None and reached[1]
    return [] if is_over else [trial.number for trial in state.with_status("completed", "pruned") if cut_off(trial)]


def too_late(
    proposal: Proposal, forecaster: TrialForecaster | None, config: Config, state: SweepState, now: float
) -> str | None:
    """Why a proposal is not started, and nothing after it: less than half of an epoch fits; None where more does."""
    if not config.budget.minutes or forecaster is None or not state.ended:
        return None
    seconds, left = forecaster.seconds(proposal.values, 1), seconds_left(config.budget, state, now)
    if seconds is None or seconds <= 2 * left:
        return None
    budget = f"budget.minutes ({config.budget.minutes:g})"
    return f"{budget} is spent: the next epoch would take {seconds:.0f} s, {max(0.0, left):.0f} s are left"


def fitting(
    rungs: Sequence[int], forecaster: TrialForecaster | None, config: Config, state: SweepState, now: float
) -> Callable[[Values], bool]:
    """A test whether a configuration reaches its first rung, or its end, in the time left."""
    left = seconds_left(config.budget, state, now)
    if math.isinf(left) or forecaster is None or not state.ended:
        return lambda _: True

    def fits(values: Values) -> bool:
        epochs = rungs[0] if rungs else total_epochs(config.with_values(values).training)
        seconds = forecaster.seconds(values, epochs)
        return seconds is None or seconds <= left

    return fits


def is_out_of_memory(reason: str) -> bool:
    """
    >>> is_out_of_memory("ResourceExhaustedError: OOM when allocating tensor with shape[4096,64,28,28]")
    True
    >>> is_out_of_memory("killed by SIGSEGV (signal 11): native code crashed")
    False
    """
    return any(word in reason for word in OUT_OF_MEMORY)


def may_retry(training: Training, reason: str) -> bool:
    """Whether a lost trial is to be tried again with half the batch."""
    return training.retry_smaller_batch and training.batch_size > 1 and is_out_of_memory(reason)


def no_room(reason: str | None, folder: Path) -> str | None:
    """Why no trial can write to a sweep's `folder` any more, where one was lost to that; None where it can."""
    if not (folder / FILE).exists():  # the driver's own files are open, so they are written wherever they are now
        return GONE
    if any(os.strerror(code) in (reason or "") for code in FULL):
        return f"{FULL_DISK} ({reason})"
    try:
        return f"{FULL_DISK} ({reason})" if shutil.disk_usage(folder).free < LEAST_FREE else None
    except OSError:
        return None

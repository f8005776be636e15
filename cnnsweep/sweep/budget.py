"""When a sweep has had enough."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cnnsweep.journal.state import SweepState


def spent(budget: Mapping[str, Any], ledger: SweepState, promotes: bool = False) -> tuple[str, bool] | None:
    """Return which limit is reached, and whether running trials are to stop too; None while there is some left.

    `promotes`: the search stops proposing new configurations by itself, and then finishes its rungs.
    """
    if budget["minutes"] and time.time() - ledger.began >= 60 * budget["minutes"]:
        return f"budget.minutes ({budget['minutes']:g}) is spent", True
    if budget["epochs"] and ledger.epochs >= budget["epochs"]:
        return f"budget.epochs ({budget['epochs']}) is spent", True
    if budget["trials"] and len(ledger.entries) >= budget["trials"] and not promotes:
        return f"budget.trials ({budget['trials']}) is reached", False
    return None


def used_up(budget: Mapping[str, Any], configurations: int) -> str:
    """Why a search proposes nothing more after so many configurations, where no limit stopped it.

    One that promotes finishes its rungs after the last new configuration.
    """
    reached = budget["trials"] and configurations >= budget["trials"]
    return f"budget.trials ({budget['trials']}) is reached" if reached else "every valid configuration was tried"

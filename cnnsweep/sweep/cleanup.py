"""Removing what a sweep no longer needs: checkpoints of trials that can neither win nor be promoted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsweep.journal.state import SweepState
from cnnsweep.search.search import Search
from cnnsweep.training import checkpoint

ENDED = ("completed", "pruned", "failed")
SHARE = 10
"""One in so many trials that hold files may have ended since all were looked at."""


class Housekeeper:
    """Follows a sweep's events; after each end of a trial only needed checkpoints are left.

    The `keep` best ended trials keep their best epoch's, trials that the search may promote keep both files, and so
    do those that are running or interrupted. Where many trials hold files, one in ten more may until all are looked at
    again, so that an end costs the same however many there are.
    """

    def __init__(self, folder: Path, ledger: SweepState, search: Search, keep: int) -> None:
        self._folder = folder
        self._ledger = ledger
        self._search = search
        self._keep = max(1, keep)
        self._ends = 0
        found = (folder / "trials").glob("*/*.npz*")
        self._holding = {int(path.parent.name) for path in found if path.parent.name.isdigit()}

    def log(self, event: Mapping[str, Any]) -> None:
        """Tidy up after an `end`."""
        if event["event"] == "end":
            self._holding.add(event["trial"])
            self._ends += 1
        if (event["event"] == "end" and self._ends * SHARE >= len(self._holding)) or event["event"] == "stop":
            self.tidy()

    def tidy(self) -> None:
        """Remove what is not needed now. Where the disk refuses, it stays."""
        self._ends = 0
        entries = self._ledger.entries
        promotable = self._search.promotable()
        ended = [n for n in self._holding if n in entries and entries[n].status in ENDED]
        best = self._ledger.best_of(ended, self._keep)
        for number in sorted(ended):
            if entries[number].proposal in promotable:
                continue
            winner = number in best
            folder = self._folder / "trials" / f"{number:03d}"
            try:
                checkpoint.clear(folder, (checkpoint.LAST,) if winner else (checkpoint.LAST, checkpoint.BEST))
            except OSError:
                continue
            if not winner:
                self._holding.discard(number)


def forget_data(folder: Path) -> None:
    """Remove a finished sweep's copy of its data; `resume` makes it again."""
    shutil.rmtree(folder / "data", ignore_errors=True)

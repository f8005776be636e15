"""Removing what a sweep no longer needs: checkpoints of trials that can neither win nor be promoted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsweep import checkpoint
from cnnsweep.ledger import Ledger
from cnnsweep.search import Search

ENDED = ("completed", "pruned", "failed")


class Housekeeper:
    """Follows a sweep's events; after each end of a trial only needed checkpoints are left.

    The `keep` best ended trials keep their best epoch's, trials that the search may promote keep both files, and so
    do those that are running or interrupted.
    """

    def __init__(self, folder: Path, ledger: Ledger, search: Search, keep: int) -> None:
        self._folder = folder
        self._ledger = ledger
        self._search = search
        self._keep = max(1, keep)
        found = (folder / "trials").glob("*/*.npz*")
        self._holding = {int(path.parent.name) for path in found if path.parent.name.isdigit()}

    def log(self, event: Mapping[str, Any]) -> None:
        """Tidy up after an `end`."""
        if event["event"] == "end":
            self._holding.add(event["trial"])
            self.tidy()

    def tidy(self) -> None:
        """Remove what is not needed now. Where the disk refuses, it stays."""
        entries = self._ledger.entries
        promotable = self._search.promotable()
        best = [e.number for e in self._ledger.ranked() if e.status in ENDED][: self._keep]
        for number in sorted(self._holding):
            entry = entries.get(number)
            if entry is None or entry.status not in ENDED or entry.proposal in promotable:
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

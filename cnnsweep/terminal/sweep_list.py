"""The table of sweeps that `python -m cnnsweep list` prints."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cnnsweep.config.components import program
from cnnsweep.errors import UserError
from cnnsweep.formatting import age, counted, score
from cnnsweep.sweep import catalog
from cnnsweep.terminal import make_console

STYLES = {"running": "green", "interrupted": "yellow", "failed": "red", "damaged": "red"}


def show(root: Path, console: Console | None = None) -> None:
    """Print every sweep under `root` (a tracking.dir), the latest last."""
    console = console or make_console()
    rows = sorted((_row(folder) for folder in catalog.folders(root)), key=lambda row: row[0])
    if not rows:
        console.print(f"no sweeps in {root / 'sweeps'} (tracking.dir=DIR looks elsewhere)", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("sweep", "state", "trials", "best", "", "age"):
        table.add_column(heading, justify="right" if heading in ("best", "age") else "left", no_wrap=True)
    for _, cells in rows:
        table.add_row(*cells, style=STYLES.get(cells[1].split()[0], ""))
    # Ids are to be copied, so they are whole however narrow the terminal is.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)
    if any(cells[1].startswith("interrupted") for _, cells in rows):
        console.print(f"\ncontinue one:  {program()} resume SWEEP", style="dim")


def _row(folder: Path) -> tuple[float, tuple[str, ...]]:
    """When the sweep was last at work, and its cells."""
    try:
        sweep = catalog.read(folder)
    except UserError as error:
        reason = str(error).splitlines()[0].replace(f"{folder}{os.sep}", "")
        return 0.0, (folder.name, "damaged", reason[:80], "", "", "")
    counts, status = sweep.counts, catalog.state(folder, sweep)
    waiting = 0 if status == "running" else catalog.unsent(folder, sweep.events)
    state = f"{status} ({counted(waiting, 'event')} not in MLflow)" if waiting else status
    trials = f"{counts['completed'] + counts['pruned']} done"
    if counts["failed"]:
        trials += f", {counts['failed']} failed"
    if unfinished := counts["running"] + counts["interrupted"]:
        trials += f", {unfinished} {'running' if status == 'running' else 'to go on'}"
    best = "" if sweep.best is None else score(sweep.best)
    return sweep.last, (folder.name, state, trials, best, sweep.objective.metric, age(time.time() - sweep.last))

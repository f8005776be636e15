"""The table of sweeps that `python -m cnnsweep list` prints."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cnnsweep.config.components import program
from cnnsweep.errors import UserError
from cnnsweep.sweep import catalog as standing

STYLES = {"running": "green", "interrupted": "yellow", "failed": "red", "damaged": "red"}
WIDTH = 140


def show(root: Path, console: Console | None = None) -> None:
    """Print every sweep under `root` (a tracking.dir), the latest last."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    found = standing.folders(root)
    if not found:
        console.print(f"no sweeps in {root / 'sweeps'} (tracking.dir=DIR looks elsewhere)", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("sweep", "state", "trials", "best", "", "age"):
        table.add_column(heading, justify="right" if heading in ("best", "age") else "left", no_wrap=True)
    rows = sorted((_row(folder) for folder in found), key=lambda row: row[0])
    for _, cells in rows:
        table.add_row(*cells, style=STYLES.get(cells[1].split()[0], ""))
    console.print(table)
    if any(cells[1].startswith("interrupted") for _, cells in rows):
        console.print(f"\ngo on with one:  {program()} resume SWEEP", style="dim")


def _row(folder: Path) -> tuple[float, tuple[str, ...]]:
    try:
        told = standing.read(folder)
    except UserError as error:
        return 0.0, (folder.name, "damaged", str(error).splitlines()[0][:80], "", "", "")
    counts = told.counts
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    state = standing.state(folder, told)
    waiting = 0 if state == "running" else standing.unsent(folder, told.events)
    state += f" ({waiting} events not in MLflow)" if waiting else ""
    best = "" if told.best is None else f"{told.best:.4f}"
    trials = f"{counts['completed'] + counts['pruned']} done{failed}"
    if open_ := counts["running"] + counts["interrupted"]:
        trials += f", {open_} {'running' if state == 'running' else 'to go on'}"
    return told.last, (folder.name, state, trials, best, told.metric, age(time.time() - told.last))


def age(seconds: float) -> str:
    """Seconds since something in one unit.

    >>> age(5), age(200), age(7000), age(90000), age(9e6)
    ('5 s', '3 min', '1 h', '1 day', '104 days')
    """
    if seconds < 100:
        return f"{max(0, seconds):.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        hours = int(seconds / 3600)
        return f"{hours} h" if hours < 24 else "1 day"
    return f"{int(seconds / 86400)} days"

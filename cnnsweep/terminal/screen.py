"""A sweep on the screen: a live view on a terminal, sparse lines elsewhere, and the summary at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnsweep.formatting import duration
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.sweep.loop import Sweep
from cnnsweep.sweep.session import Watcher

TOP = 5
PLAIN_WIDTH = 140
MARKS = {"completed": "", "running": "…", "pruned": "pruned", "failed": "failed", "interrupted": "interrupted"}


class Screen(Watcher):
    """Follows the sweep's events."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self._live: Live | None = None
        self._sweep: Sweep | None = None
        self._trouble: Callable[[], str | None] = lambda: None
        self._troubled = False

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def watch(self, sweep: Sweep, trouble: Callable[[], str | None]) -> Iterator[None]:
        self._sweep, self._trouble = sweep, trouble
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._view, console=self.console, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def log(self, event: Mapping[str, Any]) -> None:
        if self._live is None:
            self._say_trouble()
        if event["event"] == "trial" and "retry" in event:
            batch = event["values"]["training.batch_size"]
            self.console.print(f"{event['name']} ran out of memory; once more with batch size {batch}", style="yellow")
        if self._sweep is None or event["event"] != "end":
            return
        ledger = self._sweep.ledger
        entry = ledger.entries[event["trial"]]
        if self._live is None:
            self.console.print(ended_line(entry, self._sweep), soft_wrap=True)
        elif entry.status == "failed":
            self._live.console.print(f"trial {entry.name} failed: {entry.reason}", style="red")

    def _say_trouble(self) -> None:
        """One line when the tracker fails, and one when it works again."""
        trouble = self._trouble()
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            self.console.print(trouble or "MLflow answers again", style="yellow", soft_wrap=True)

    def _view(self) -> RenderableType:
        sweep = self._sweep
        if sweep is None:
            return Text("")
        parts: list[RenderableType] = [_head(sweep), Text(), _running(sweep)]
        if sweep.ledger.ranked(1):
            parts += [Text(), leaderboard(sweep.ledger, TOP)]
        if trouble := self._trouble():
            parts.append(Text(trouble, style="yellow"))
        return Group(*parts)


def ended_line(entry: TrialState, sweep: Sweep) -> str:
    """One line for one ended trial: "[ 31 s] 004 · 32-64 k3 same max  val_accuracy 0.9611  best 0.9722 (002) …"."""
    ledger, objective = sweep.ledger, sweep.ledger.objective
    value, best = entry.best(objective), ledger.ranked(1)
    told = f"{objective.metric} {value:.4f}" if value is not None else ""
    if entry.status != "completed":
        told += f" {entry.status}: {entry.reason or ''}"
    lead = f"  best {best[0].best(objective):.4f} ({best[0].number:03d})" if best else ""
    left = f"  {_left(sweep)}" if not sweep.stopping else ""
    return f"[{duration(time.time() - ledger.began):>6}] {entry.name}  {told}{lead}  {_progress_words(sweep)}{left}"


def leaderboard(ledger: SweepState, count: int, title: str | None = None) -> Table:
    """The best trials, with what they cost."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("trial", no_wrap=True)
    for heading in (ledger.objective.metric, "epoch", "parameters", "mmacs", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    front = ledger.front()
    ahead = {entry.number for entry in front}
    others = [e for e in ledger.ranked(count + len(front)) if e.number not in ahead]
    shown = (front + others)[: max(count, len(front))]
    for place, entry in enumerate(shown, start=1):
        summary = entry.summary
        marks = ["Pareto front"] if entry.number in ahead else []
        if told := ledger.spread(entry):
            marks.append(f"with other seeds: {told['mean']:.4f} ± {told['std']:.4f} ({told['count']:.0f})")
        mark = ", ".join(marks) or MARKS[entry.status]
        table.add_row(
            str(place), entry.name, f"{entry.best(ledger.objective):.4f}", str(entry.best_epoch(ledger.objective)),
            f"{summary['parameters']:,.0f}" if "parameters" in summary else "",
            f"{summary['mmacs']:,.2f}" if "mmacs" in summary else "",
            duration(entry.seconds) if entry.seconds else "", mark,
        )  # fmt: skip
    return table


def _head(sweep: Sweep) -> RenderableType:
    done, total = _done(sweep)
    grid = Table.grid(padding=(0, 2))
    elapsed = duration(time.time() - sweep.ledger.began)
    state = sweep.stopping or _left(sweep)
    grid.add_row(
        Text(sweep.problem.config["name"], style="bold"),
        ProgressBar(total=total, completed=done, width=30),
        _progress_words(sweep),
        elapsed,
        Text(state, style="dim"),
    )
    return grid


def _running(sweep: Sweep) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for entry in sorted(sweep.ledger.with_status("running"), key=lambda e: e.worker):
        metric = sweep.ledger.objective.metric
        notes = getattr(sweep.executor, "notes", {})
        last = f"{metric} {entry.curve[-1][metric]:.4f}" if entry.curve else notes.get(entry.worker, "starting")
        grid.add_row(Text(entry.worker, style="cyan"), entry.name, f"epoch {len(entry.curve)}/{entry.target}", last)
    return grid


def _done(sweep: Sweep) -> tuple[float, float]:
    """How much of the budget is spent: of the limit that is nearest."""
    budget, ledger = sweep.problem.config["budget"], sweep.ledger
    ended = len(ledger.entries) - ledger.counts["running"]
    shares = [
        ended / budget["trials"] if budget["trials"] else 0,
        (time.time() - ledger.began) / (60 * budget["minutes"]) if budget["minutes"] else 0,
        ledger.epochs / budget["epochs"] if budget["epochs"] else 0,
    ]
    return min(1.0, max(shares)), 1.0


def _progress_words(sweep: Sweep) -> str:
    budget, ledger = sweep.problem.config["budget"], sweep.ledger
    ended = len(ledger.entries) - ledger.counts["running"]
    total = f"/{budget['trials']}" if budget["trials"] else ""
    failed = ledger.counts["failed"]
    return f"{ended}{total} trials{f', {failed} failed' if failed else ''}"


def _left(sweep: Sweep) -> str:
    done, total = _done(sweep)
    if done < 0.02:
        return ""
    return f"about {duration((time.time() - sweep.ledger.began) * (total - done) / done)} left"

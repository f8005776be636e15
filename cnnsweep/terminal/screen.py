"""A sweep on the screen: a live view on a terminal, a line for each trial elsewhere, and a summary at the end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnsweep.config.components import program
from cnnsweep.config.trust import trust_option
from cnnsweep.formatting import counted, duration, from_here, plain, score
from cnnsweep.journal.events import BestTested, Event, GalleryDrawn, TrialEnded, TrialStarted
from cnnsweep.journal.state import SweepState, TrialState
from cnnsweep.statistics import wilson
from cnnsweep.sweep.session import Outcome, Watcher
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.terminal import make_console
from cnnsweep.terminal.leaderboard import Leaderboard, best_value
from cnnsweep.training import own_checkpoints


class Screen(Watcher):
    """Follows the sweep's events."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self._live: Live | None = None
        self._sweep: Sweep | None = None
        self._trouble: Callable[[], str | None] = lambda: None
        self._troubled = False

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def watch(self, sweep: Sweep, trouble: Callable[[], str | None]) -> Iterator[None]:
        self._sweep, self._trouble = sweep, trouble
        if not self.console.is_terminal or self.console.is_dumb_terminal:  # there nothing can be drawn again
            yield
            return
        with Live(get_renderable=self._view, console=self.console, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def log(self, event: Event) -> None:
        if self._live is None:
            self._print_trouble()
        match event:
            case TrialStarted(retry=str()):
                batch = event.values["training.batch_size"]
                self.console.print(
                    f"{event.title} ran out of memory; once more with batch size {batch}", style="yellow"
                )
            case GalleryDrawn(missing=dict(missing)):
                for name, reason in missing.items():
                    self.console.print(Text(f"trial {event.trial}, no {name}: {reason}", "yellow"), soft_wrap=True)
            case TrialEnded() if self._sweep is not None:
                trial = self._sweep.state.trials[event.trial]
                if self._live is None:
                    self.console.print(ended_line(trial, self._sweep), soft_wrap=True)
                elif trial.status == "failed":
                    self.console.print(f"trial {trial.name} failed: {trial.reason}", style="red")

    def _print_trouble(self) -> None:
        """Print one line when the tracker fails, and one when it works again."""
        trouble = self._trouble()
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            self.console.print(trouble or "MLflow answers again", style="yellow", soft_wrap=True)

    def _view(self) -> RenderableType:
        sweep = self._sweep
        if sweep is None:
            return Text("")
        parts: list[RenderableType] = [_head(sweep), Text(), _running(sweep)]
        if sweep.state.ranked(1):
            parts += [Text(), Leaderboard(sweep.state, 5)]
        if trouble := self._trouble():
            parts.append(Text(trouble, style="yellow"))
        return Group(*parts)


def ended_line(trial: TrialState, sweep: Sweep) -> str:
    """One line for one ended trial: "[ 31 s] 004 · 32-64 k3 same max  val_accuracy 0.9611  best 0.9722 (002) …"."""
    state, objective = sweep.state, sweep.state.objective
    value, best = best_value(trial, objective), state.ranked(1)
    result = f"{objective.metric} {value}" if value else ""
    if trial.status != "completed":
        result += f" {trial.status}: {trial.reason or ''}"
    lead = f"  best {best_value(best[0], objective)} ({best[0].number:03d})" if best else ""
    left = "" if sweep.stopping else f"  {_time_left(sweep)}"
    return f"[{duration(_elapsed(sweep)):>6}] {trial.name}  {result}{lead}  {_progress(sweep)}{left}".rstrip()


def _head(sweep: Sweep) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(sweep.config.name, style="bold"),
        ProgressBar(total=1.0, completed=_share_spent(sweep), width=30),
        _progress(sweep),
        duration(_elapsed(sweep)),
        Text(sweep.stopping or _time_left(sweep), style="dim"),
    )
    return grid


def _running(sweep: Sweep) -> RenderableType:
    grid, metric = Table.grid(padding=(0, 2)), sweep.state.objective.metric
    for trial in sorted(sweep.state.with_status("running"), key=lambda trial: trial.worker):
        note = sweep.executor.notes.get(trial.worker, "starting")
        last = f"{metric} {score(trial.curve[-1][metric])}" if trial.curve else note
        grid.add_row(Text(trial.worker, style="cyan"), trial.name, f"epoch {len(trial.curve)}/{trial.target}", last)
    return grid


def _elapsed(sweep: Sweep) -> float:
    """Seconds for which the sweep has run."""
    return sweep.now() - sweep.state.began


def _ended(state: SweepState) -> int:
    return len(state.trials) - state.counts["running"]


def _share_spent(sweep: Sweep) -> float:
    """The spent share of the budget that is nearest to its end, from 0 to 1.

    After all of budget.trials a search that promotes goes on with the best, until budget.minutes where there are any.
    """
    budget, state = sweep.config.budget, sweep.state
    ends_later = sweep.search.promotes and budget.minutes
    shares = [
        _ended(state) / budget.trials if budget.trials and not ends_later else 0,
        _elapsed(sweep) / (60 * budget.minutes) if budget.minutes else 0,
        state.epochs / budget.epochs if budget.epochs else 0,
    ]
    return min(1.0, max(shares))


def _progress(sweep: Sweep) -> str:
    total = f"/{sweep.config.budget.trials}" if sweep.config.budget.trials else ""
    failed = f", {sweep.state.counts['failed']} failed" if sweep.state.counts["failed"] else ""
    noun = "trial" if (sweep.config.budget.trials or _ended(sweep.state)) == 1 else "trials"
    return f"{_ended(sweep.state)}{total} {noun}{failed}"


def _time_left(sweep: Sweep) -> str:
    spent = _share_spent(sweep)
    is_known = spent < 1 or not sweep.search.promotes
    return f"about {duration(_elapsed(sweep) * (1 - spent) / spent)} left" if spent >= 0.02 and is_known else ""


def print_outcome(outcome: Outcome, report: Path | None, console: Console) -> None:
    """Print the leaderboard, the best configuration, its test accuracy, and the commands to continue with."""
    state = outcome.state
    console.print()
    console.print(f"{outcome.id}: {outcome.status}", style="bold")
    console.print(_totals(state), soft_wrap=True)
    for trial in state.with_status("failed")[:3]:
        console.print(f"{trial.name} failed: {trial.reason}", style="red", soft_wrap=True)
    if ranked := state.ranked(1):
        console.print()
        console.print(Leaderboard(state, 10))
        console.print()
        _print_best(state, ranked[0], console)
        folder = outcome.folder / "trials" / f"{ranked[0].number:03d}"
        if checkpoint := own_checkpoints.best(folder, state.objective):
            console.print(f"its checkpoint: {from_here(checkpoint)}", soft_wrap=True)
    if tested := state.tested():
        _print_test(tested, outcome, console)
    console.print()
    if outcome.trouble:
        console.print(outcome.trouble, style="yellow", soft_wrap=True)
    _print_commands(outcome, report, console)


def _totals(state: SweepState) -> str:
    counts = {**state.counts, "interrupted": state.counts["interrupted"] + state.counts["running"]}
    statuses = ("completed", "pruned", "failed", "interrupted")
    trials = ", ".join(f"{counts[s]} {s}" for s in statuses if counts.get(s)) or "no trials"
    reason = f" · {state.stop.reason}" if state.stop and state.stop.reason else ""
    return f"{trials} · {counted(state.epochs, 'epoch')} · {duration(state.last - state.began)}{reason}"


def _print_best(state: SweepState, best: TrialState, console: Console) -> None:
    metric = state.objective.metric
    console.print(
        f"best configuration{f' by {metric}' if state.objective.also else ''}: trial {best.name}", style="bold"
    )
    if spread := state.spread(best):
        times = counted(round(spread["count"]), "time")
        finalists = len(state.winner.results) if state.winner else 1
        among = f", the best mean of {finalists} finalists" if finalists > 1 else ""
        console.print(
            f"trained {times} more, each with another seed: {metric} {score(spread['mean'])} ± "
            f"{score(spread['std'])}{among}",
            soft_wrap=True,
        )
    for key, value in best.values.items():
        console.print(f"  {key}: {plain(value)}", soft_wrap=True)


def _print_test(final: BestTested, outcome: Outcome, console: Console) -> None:
    key = outcome.state.objective.tested([*final.metrics])
    value = final.metrics[key]
    more = {name.removeprefix("test_"): v for name, v in final.metrics.items() if name not in (key, "test_loss")}
    others = [f"{name} {score(other)}" for name, other in more.items()]
    interval = f"{', '.join(others)}; " if others else ""
    if key == "test_accuracy" and outcome.config.task == "classification":
        low, high = wilson(value, final.images)
        interval = f"95% interval {score(low)} to {score(high)}; {interval}"
    console.print()
    console.print(Text(f"{key.replace('_', ' ', 1)} {score(value)}", style="bold green"), end="")
    console.print(
        f"  ({interval}{final.images:,} examples that the search never saw, evaluated once, by this network)",
        soft_wrap=True,
    )
    console.print(f"model: {outcome.folder / final.folder}/model.keras", soft_wrap=True)


def _print_commands(outcome: Outcome, report: Path | None, console: Console) -> None:
    tracking = outcome.config.tracking
    folder = "" if tracking.dir == "mlruns" else f" {shlex.quote(f'tracking.dir={tracking.dir}')}"
    store = f" tracking=server {shlex.quote(f'tracking.uri={outcome.uri}')}" if tracking.uri else folder
    resume = f"{program()} resume {outcome.id}{folder}{trust_option(outcome.config)}"
    if outcome.waiting:
        console.print(f"send the rest to MLflow:  {resume}", soft_wrap=True)
    if outcome.status == "interrupted":
        console.print(f"continue the sweep:  {resume}", style="bold", soft_wrap=True)
    elif failures := outcome.state.counts["failed"]:
        console.print(f"train the {failures} that failed again:  {resume} --failed", soft_wrap=True)
    if report:
        console.print(f"report:              {from_here(report)}", soft_wrap=True)
    console.print(f"compare the trials:  {program()} ui {outcome.id}{store}", soft_wrap=True)

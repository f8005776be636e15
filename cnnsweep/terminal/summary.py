"""What the terminal says when a sweep has ended."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from cnnsweep.config.components import program
from cnnsweep.statistics import wilson
from cnnsweep.sweep.session import Outcome
from cnnsweep.terminal.screen import leaderboard

TOP = 10


def print_outcome(outcome: Outcome, console: Console) -> str:
    """Print the leaderboard, the best configuration, its test accuracy, and how to see more; return the status."""
    ledger, stop = outcome.ledger, outcome.ledger.stop or {}
    summary = stop.get("summary", {})
    counts = [
        f"{summary[f'trials_{s}']:.0f} {s}"
        for s in ("completed", "pruned", "failed", "interrupted")
        if summary.get(f"trials_{s}")
    ]
    console.print()
    console.print(Text(f"{outcome.id}: {stop.get('status', 'interrupted')}", style="bold"))
    console.print(
        f"{', '.join(counts) or 'no trials'} · {summary.get('epochs', 0):.0f} epochs · "
        f"{summary.get('sweep_seconds', 0):.0f} s · {stop.get('reason') or ''}",
        soft_wrap=True,
    )
    ranked = ledger.ranked()
    for entry in ledger.with_status("failed")[:3]:
        console.print(f"{entry.name} failed: {entry.reason}", style="red", soft_wrap=True)
    if ranked:
        console.print()
        console.print(leaderboard(ledger, TOP))
        console.print()
        by = f" by {ledger.objective.metric}" if ledger.objective.also else ""
        console.print(Text(f"best configuration{by}: trial {ranked[0].name}", style="bold"))
        if told := ledger.spread(ranked[0]):
            times = f"{told['count']:.0f} time{'s' if told['count'] > 1 else ''}"
            mean = f"{ledger.objective.metric} {told['mean']:.4f} ± {told['std']:.4f}"
            many = len(ledger.winner["results"]) if ledger.winner else 1
            best = f", the best mean of {many} finalists" if many > 1 else ""
            console.print(f"trained {times} more, each with another seed: {mean}{best}", soft_wrap=True)
        for key, value in ranked[0].values.items():
            console.print(f"  {key}: {_plain(value)}", soft_wrap=True)
    if ledger.final:
        _print_test(outcome, console)
    console.print()
    if outcome.trouble:
        console.print(outcome.trouble, style="yellow", soft_wrap=True)
    again = f"{program()} resume {outcome.id}{where_kept(outcome.config)}"
    if outcome.waiting:
        console.print(f"send what MLflow has not got:  {again}", soft_wrap=True)
    if outcome.status == "interrupted":
        console.print(f"go on with it:       {again}", style="bold", soft_wrap=True)
    if outcome.report:
        console.print(f"report:              {os.path.relpath(outcome.report)}", soft_wrap=True)
    console.print(f"compare the trials:  {program()} ui {outcome.id}{_where(outcome)}", soft_wrap=True)
    return outcome.status


def _print_test(outcome: Outcome, console: Console) -> None:
    final = outcome.ledger.final or {}
    count, accuracy = int(final["images"]), final["metrics"]["test_accuracy"]
    low, high = wilson(accuracy, count)
    console.print()
    console.print(Text(f"test accuracy {accuracy:.4f}", style="bold green"), end="")
    console.print(
        f"  (95% interval {low:.4f} to {high:.4f}; {count:,} images that the search never saw, "
        "looked at once, by this network)",
        soft_wrap=True,
    )
    console.print(f"model: {final['folder']}/model.keras", soft_wrap=True)


def _where(outcome: Outcome) -> str:
    tracking = outcome.config["tracking"]
    if tracking["uri"]:
        return f" tracking=server tracking.uri={outcome.uri}"
    return "" if tracking["dir"] == "mlruns" else f" tracking.dir={tracking['dir']}"


def where_kept(config: Mapping[str, Any]) -> str:
    """What a command needs to find the sweep's folder."""
    directory = config["tracking"]["dir"]
    return "" if directory == "mlruns" else f" tracking.dir={directory}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

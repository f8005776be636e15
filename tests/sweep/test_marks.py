"""The Pareto front and the results of replicates, on the terminal, in MLflow, in the table and in the report."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tracked_sweeps import empty_store, events_of, follow, named, results, stop_event, sweep_event, uri

from cnnsweep.config.objective import Objective
from cnnsweep.journal.events import Event, ReplicateEnded
from cnnsweep.journal.state import SweepState, replay
from cnnsweep.report import report
from cnnsweep.report import text as words
from cnnsweep.sweep.finish import choose_winner
from cnnsweep.terminal.leaderboard import leaderboard
from cnnsweep.tracking.store import connect

__all__ = ["empty_store", "uri"]
pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning")
SEVERAL = "objective=[val_accuracy,parameters]"
AGAIN = {5: (0.80, 0.84), 2: (0.60, 0.90)}
"""The values of further trainings, by trial."""


def events_and_state(objective: str, again: Mapping[int, tuple[float, ...]]) -> tuple[list[Event], SweepState]:
    """The events of five trials with these objectives and replicates, and their state."""
    start = named(sweep_event(), "fake", objective)
    events: list[Event] = [start, *events_of()[1:-1]]
    known = replay(events, Objective.of(start.config["objective"]))

    def add(event: Event) -> None:
        events.append(replace(event, time=2000.0))
        known.apply(events[-1])

    for number, values in again.items():
        for k, value in enumerate(values, start=1):
            add(ReplicateEnded(trial=number, replicate=k, seed=k, value=value, epochs=5))
    if again and (won := choose_winner([known.trials[n] for n in again], known)):
        add(won)
    front = [e.number for e in known.front()] if known.objective.also else None
    add(replace(stop_event(), front=front))
    return events, known


def shown(known: SweepState) -> dict[int, str]:
    """What the terminal's leaderboard says of each trial."""
    console = Console(file=io.StringIO(), width=200)
    console.print(leaderboard(known, 20))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return {int(m[1]): line for line in lines if (m := re.match(r"\d+ +(\d{3}) · ", line))}


def not_dominated(trials: pd.DataFrame) -> set[int]:
    """Trial by trial, without sorting or signs."""
    good = trials[trials["status"].isin(["completed", "pruned"])]

    def beaten(a: pd.Series) -> bool:
        return any(
            b["best_val_accuracy"] >= a["best_val_accuracy"]
            and b["parameters"] <= a["parameters"]
            and (b["best_val_accuracy"] > a["best_val_accuracy"] or b["parameters"] < a["parameters"])
            for _, b in good.iterrows()
        )

    return {int(a["trial"]) for _, a in good.iterrows() if not beaten(a)}


def test_the_front_is_marked_on_the_terminal_in_mlflow_in_the_table_and_in_the_report(uri: str, tmp_path: Path) -> None:
    events, known = events_and_state(SEVERAL, {})
    tracker = follow(uri, tmp_path / "sweep", events)
    found = results(tmp_path)
    front = not_dominated(found.trials)
    assert 1 < len(front) < 5
    assert {number for number, line in shown(known).items() if "Pareto front" in line} == front
    client = connect(uri)
    tags = {n: client.get_run(run).data.tags.get("cnnsweep.pareto") for n, run in tracker.runs.items()}
    assert {n for n, tag in tags.items() if n is not None and tag == "true"} == front
    assert set(tags.values()) == {"true", "false", None}
    named_there = client.get_run(tracker.runs[None]).data.tags["cnnsweep.front"]
    assert {int(number) for number in named_there.split(", ")} == front
    assert set(found.trials.loc[found.trials["pareto"], "trial"]) == front
    page = report.write([found], tmp_path / "out")
    table = pd.read_csv(page.parent / report.TABLE)
    assert set(table.loc[table["pareto"], "trial"]) == front
    rows = [line.split("|") for line in (page.parent / report.SUMMARY).read_text().splitlines() if " · " in line]
    assert {int(row[1].split()[0]) for row in rows if len(row) > 9 and row[-3].strip() == "yes"} == front
    board = page.read_text().partition("<h2>Leaderboard</h2>")[2].partition("</table>")[0]
    marked = [re.search(r"<td>(\d{3}) ·", row) for row in board.split("<tr")[2:] if "<td>yes</td>" in row]
    assert {int(m[1]) for m in marked if m} == front
    (sentence,) = [s for s in words.found(found) if "Pareto front" in s]
    assert f"{len(front)} trials form the Pareto front of val_accuracy and parameters" in sentence


def test_one_objective_has_no_front(uri: str, tmp_path: Path) -> None:
    events, known = events_and_state("objective=val_accuracy", {})
    follow(uri, tmp_path / "sweep", events)
    found = results(tmp_path)
    page = report.write([found], tmp_path / "out")
    assert "pareto" not in found.trials
    assert not any("Pareto" in line for line in shown(known).values())
    board = page.read_text().partition("<h2>Leaderboard</h2>")[2].partition("</table>")[0]
    assert "Pareto" not in board
    assert "other seeds" not in board


@pytest.mark.parametrize("objective", ["objective=val_accuracy", SEVERAL])
def test_the_mean_of_other_seeds_decides_and_is_told_with_its_spread(objective: str, uri: str, tmp_path: Path) -> None:
    events, known = events_and_state(objective, AGAIN)
    tracker = follow(uri, tmp_path / "sweep", events)
    found = results(tmp_path)
    single = found.trials.set_index("trial")["best_val_accuracy"]
    assert single[2] > single[5], "the first training alone would choose the other"
    said = {n: f"{statistics.fmean(v):.4f} ± {statistics.stdev(v):.4f} (2)" for n, v in AGAIN.items()}
    assert said[5] in shown(known)[5]
    assert ("Pareto front, with" in shown(known)[5]) == (known.trials[5] in known.front())
    assert found.ranked().iloc[0]["trial"] == 5
    metrics = connect(uri).get_run(tracker.runs[5]).data.metrics
    assert (metrics["mean_val_accuracy"], metrics["replicates"]) == (pytest.approx(0.82), 2)
    first, again, *_ = words.found(found)
    assert first.startswith("Best by the mean of its trainings with other seeds is trial 005 · ")
    assert f"with val_accuracy {said[5]}, at first val_accuracy {single[5]:.4f} at epoch" in first
    assert again.startswith("2 finalists were trained again, each time with another seed")
    assert f"005 {said[5]}, 002 {said[2]}. The first training" in again
    page = report.write([found], tmp_path / "out")
    board = page.read_text().partition("<h2>Leaderboard</h2>")[2].partition("</table>")[0]
    assert all(f"<td>{text}</td>" in board for text in said.values())
    assert all(f"| {text} |" in (page.parent / report.SUMMARY).read_text() for text in said.values())
    assert "replicate_val_accuracy" not in found.trials

"""Data frames read back from a real SQLite store that the tracker wrote."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tracked_sweeps import (
    METRICS,
    NUMBERS,
    STATUSES,
    base_config,
    empty_store,
    events_of,
    follow,
    named,
    results,
    settings,
    shared,
    stop_event,
    sweep_event,
    trial_events,
    uri,
)

import cnnsweep
from cnnsweep.errors import UserError
from cnnsweep.journal.events import BestTested, EpochEnded, SweepResumed, TrialStarted, WinnerChosen
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.tracking.reader import find_sweep, open_reader
from cnnsweep.tracking.store import connect

__all__ = ["empty_store", "shared", "uri"]


def test_a_row_a_trial_agrees_with_the_journal(shared: Any) -> None:
    folder, events, tracker = shared
    frame = results(folder).trials
    started = [e for e in events if isinstance(e, TrialStarted)]
    assert frame["trial"].tolist() == NUMBERS
    assert frame["status"].tolist() == list(STATUSES)
    assert frame["reason"].fillna("").tolist() == ["", "was pruned", "was failed", "", ""]
    assert frame["run_id"].tolist() == [tracker.runs[n] for n in NUMBERS]
    assert frame["epochs"].tolist() == [5] * 5
    assert frame["parameters"].tolist() == [1000, 2000, 3000, 4000, 5000]
    searched = [p.name for p in parse_space(base_config()).parameters]
    for (_, row), event in zip(frame.iterrows(), started, strict=True):
        assert row["name"] == event.title
        for key in searched:
            if key in event.values:
                assert row[key] == event.values[key]
                assert isinstance(row[key], str) == isinstance(event.values[key], str)
            else:
                assert pd.isna(row[key])
    assert pd.isna(frame["model.filters.3"][1])  # else this test says nothing of absent keys
    best = {e.trial: e.metrics["val_accuracy"] for e in events if isinstance(e, EpochEnded)}  # they only rise
    assert dict(zip(frame["trial"], frame["best_val_accuracy"], strict=True)) == best


def test_a_row_an_epoch_agrees_with_the_journal(shared: Any) -> None:
    folder, events, _ = shared
    frame = results(folder).curves
    reported = [e for e in events if isinstance(e, EpochEnded)]
    assert len(frame) == len(reported)
    for (_, row), event in zip(frame.iterrows(), reported, strict=True):
        assert (row["trial"], row["epoch"]) == (event.trial, event.epoch)
        assert {key: row[key] for key in METRICS} == event.metrics
        assert row["time"].timestamp() == event.time


@pytest.mark.parametrize("epochs", [1, 3])
def test_what_a_function_reports_beside_its_objective_is_in_the_curves(uri: str, tmp_path: Path, epochs: int) -> None:
    """Of several epochs the last value stood in the table, beside the best of the objective."""
    start, *reports, end = trial_events(1, epochs=epochs)
    more = [replace(e, metrics=e.metrics | {"f1": e.epoch / 10, "trial": 99.0, "time": 5.0}) for e in reports]
    follow(uri, tmp_path / "sweep", [sweep_event(), start, *more, end])
    found = results(tmp_path)
    assert found.curves["f1"].tolist() == [e.epoch / 10 for e in more]
    assert found.trials.get("f1", pd.Series()).tolist() == ([0.1] if epochs == 1 else [])
    assert found.trials["trial"].tolist() == [1]
    assert found.curves["time"].dt.year.tolist() == [1970] * epochs


def test_none_as_a_choice_is_not_absence(uri: str, tmp_path: Path) -> None:
    values = {"model.blocks": 2, "model.pooling.1": "none", "model.pooling.2": "max"}
    first, *rest = trial_events(1)
    start = named(sweep_event(), "fake", "space.model.pooling.per_block=true", "space.model.stride.per_block=true")
    follow(uri, tmp_path / "sweep", [start, replace(first, values=values), *rest])
    row = results(tmp_path).trials.iloc[0]
    assert (row["model.pooling.1"], row["model.pooling.2"]) == ("none", "max")
    assert pd.isna(row["model.pooling.3"])


def test_a_promoted_trial_is_one_row_with_all_its_seconds(uri: str, tmp_path: Path) -> None:
    """`trial_seconds` are those of all its runs so far; their sum was shown."""
    *more, end = trial_events(1, epochs=3, first=3)
    total = replace(end, summary={**end.summary, "trial_seconds": 12.0})
    follow(uri, tmp_path / "sweep", [sweep_event(), *trial_events(1, epochs=2), *more, total])
    found = results(tmp_path)
    assert found.trials["seconds"].tolist() == [12.0]
    assert found.curves["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_sweeps_are_found_by_id_or_by_the_latest_of_a_name(uri: str, tmp_path: Path) -> None:
    ids = ["fake-20260101-000000", "fake-20260102-000000", "other-20260103-000000"]
    for index, id_ in enumerate(ids):
        follow(uri, tmp_path / str(index), events_of(id_, id_.split("-")[0], 1000.0 + index))
    reader = open_reader(settings(tmp_path))
    assert [s.id for s in reader.sweeps()] == ids
    assert find_sweep(reader, None).id == ids[2]
    assert find_sweep(reader, "fake").id == ids[1]
    assert find_sweep(reader, ids[0]).id == ids[0]
    with pytest.raises(UserError, match="no sweep 'fke', did you mean 'fake'"):
        find_sweep(reader, "fke")


def test_a_deleted_sweep_is_gone(uri: str, tmp_path: Path) -> None:
    tracker = follow(uri, tmp_path / "sweep", events_of())
    connect(uri).delete_run(tracker.runs[2])
    assert results(tmp_path).trials["trial"].tolist() == [1, 3, 4, 5]
    connect(uri).delete_run(tracker.runs[None])
    with pytest.raises(UserError, match="no sweep in the MLflow store"):
        results(tmp_path)


def test_without_the_config_columns_are_typed_by_their_values(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", events_of())
    for config in tmp_path.rglob("config.yaml"):
        config.unlink()
    frame = results(tmp_path).trials
    assert frame["model.blocks"].dtype == "int64"
    assert frame["training.learning_rate"].dtype == "float64"


def test_reading_creates_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no MLflow store at .*mlflow\.db: run a sweep first"):
        cnnsweep.trials(None, f"tracking.dir={tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("SELECT 1", "there is no sweep in the MLflow store"),
        ("UPDATE alembic_version SET version_num = 'f00f00'", r"has the schema f00f00; MLflow 3.* reads"),
        ("DROP TABLE alembic_version", "is no MLflow store"),
    ],
)
def test_a_store_without_sweeps_or_of_another_program(uri: str, tmp_path: Path, change: str, expected: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute(change)
        store.commit()
        tables = store.execute("SELECT name FROM sqlite_master").fetchall()
        with pytest.raises(UserError, match=expected):
            cnnsweep.trials(None, f"tracking.dir={tmp_path}")
        assert store.execute("SELECT name FROM sqlite_master").fetchall() == tables


def test_a_deleted_experiment_is_named(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", events_of())
    client = connect(uri)
    client.delete_experiment(client.get_experiment_by_name("tests").experiment_id)
    with pytest.raises(
        UserError, match=r"there is no sweep in .*: the MLflow experiment 'tests' was deleted; restore it"
    ):
        cnnsweep.trials(None, f"tracking.dir={tmp_path}")


def test_reading_from_a_server_that_does_not_answer() -> None:
    with pytest.raises(UserError, match="no answer"):
        cnnsweep.trials(None, "tracking=server", "tracking.uri=http://127.0.0.1:9")


@pytest.mark.parametrize(("trial", "epoch", "known"), [(2, 5, True), (2, 4, False), (1, 5, False)])
def test_a_test_result_is_that_of_the_best_network_only(
    uri: str, tmp_path: Path, trial: int, epoch: int, known: bool
) -> None:
    *before, stop = events_of()
    metrics = {"test_accuracy": 0.9}
    tested = BestTested(trial=trial, epoch=epoch, folder="best", metrics=metrics, images=10, time=8000.0)
    follow(uri, tmp_path / "sweep", [*before, tested, stop])
    found = results(tmp_path)
    assert found.ranked().iloc[0][["trial", "best_epoch"]].tolist() == [2, 5]
    assert found.test == (("accuracy", 0.9) if known else None)


def test_no_finished_trial_is_an_error_that_says_why(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", [sweep_event(), *trial_events(1, status="failed"), trial_events(2)[0]])
    with pytest.raises(UserError, match=r"no finished trial \(1 failed, 1 running; the first reason: was failed\)"):
        results(tmp_path).expect_finished()


def test_the_package_is_light_until_it_is_used() -> None:
    code = (
        "import sys, cnnsweep; cnnsweep.trials; print([m for m in ('mlflow', 'keras', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'trails'"):
        cnnsweep.trails  # noqa: B018


def test_of_a_trial_that_failed_and_was_trained_again_the_last_training_counts(uri: str, tmp_path: Path) -> None:
    start, *failed = trial_events(1, epochs=3, status="failed")
    again, *epochs, end = [replace(e, time=e.time + 500) for e in trial_events(1, epochs=3)]
    right = [replace(e, metrics={**e.metrics, "val_accuracy": n / 10}) for n, e in enumerate(epochs, start=1)]
    follow(uri, tmp_path, [sweep_event(), start, *failed, again, *right, end, stop_event()])
    found = results(tmp_path)
    assert found.curves["val_accuracy"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert (found.trials["best_val_accuracy"][0], found.trials["best_epoch"][0]) == (pytest.approx(0.3), 3)


def test_a_sweep_that_goes_on_has_no_finalists_until_it_ends_again(uri: str, tmp_path: Path) -> None:
    means = {number: {"mean": mean, "std": 0.0, "count": 2} for number, mean in (("1", 0.6), ("2", 0.5))}
    events = [sweep_event(), *trial_events(1), *trial_events(2), WinnerChosen(trial=1, results=means, time=8000.0)]
    follow(uri, tmp_path, [*events, stop_event()])
    assert results(tmp_path).finalists()["trial"].tolist() == [1, 2]
    budget = base_config().budget.plain()
    follow(uri, tmp_path, [*events, stop_event(), SweepResumed(budget=budget, executor={}, time=9500.0)])
    found = results(tmp_path)
    assert found.finalists().empty
    assert found.ranked()["best_val_accuracy"].is_monotonic_decreasing

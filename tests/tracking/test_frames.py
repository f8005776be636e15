"""Data frames read back from a real SQLite store that the tracker wrote."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_tracker import METRICS, empty_store, follow, settings, stop_event, sweep_event, trial_events, uri

import cnnsweep
from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.search_space import space
from cnnsweep.tracking.frames import Results, parse
from cnnsweep.tracking.reader import find_sweep, open_reader
from cnnsweep.tracking.store import connect, open_store

__all__ = ["empty_store", "uri"]
pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning")
STATUSES = ("completed", "pruned", "failed", "completed", "completed")
NUMBERS = [1, 2, 3, 4, 5]


def named(event: dict[str, Any], name: str, *overrides: str) -> dict[str, Any]:
    return {**event, "config": compose([f"name={name}", *overrides])}


def events_of(sweep: str = "fake-20260101-000000", name: str = "fake", time: float = 1000.0) -> list[dict[str, Any]]:
    events = [named(sweep_event(sweep, time=time, name=name), name)]
    for number, status in enumerate(STATUSES, start=1):
        events += trial_events(number, status=status)
    small = events[8]  # the second trial has two blocks only
    small["values"] = {k: v for k, v in small["values"].items() if not k.endswith(".3")} | {"model.blocks": 2}
    return [*events, stop_event()]


def results(folder: Path, sweep: str | None = None) -> Results:
    reader = open_reader(settings(folder))
    found = find_sweep(reader, sweep)
    return Results(reader, found, reader.rows(found))


@pytest.fixture(scope="module")
def shared(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], Any]:
    """A store that tests only read: its folder, the events it was made from, and their tracker."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    events = events_of()
    return folder, events, follow(open_store(settings(folder)), folder / "sweep", events)


def test_a_row_a_trial_says_what_was_run(shared: Any) -> None:
    folder, events, tracker = shared
    frame = results(folder).trials
    started = [e for e in events if e["event"] == "trial"]
    assert frame["trial"].tolist() == NUMBERS
    assert frame["status"].tolist() == list(STATUSES)
    assert frame["reason"].fillna("").tolist() == ["", "was pruned", "was failed", "", ""]
    assert frame["run_id"].tolist() == [tracker.runs[n] for n in NUMBERS]
    assert frame["epochs"].tolist() == [5] * 5
    assert frame["parameters"].tolist() == [1000, 2000, 3000, 4000, 5000]
    searched = [p.name for p in space.read(events[0]["config"]).parameters]
    for (_, row), event in zip(frame.iterrows(), started, strict=True):
        assert row["name"] == event["name"]
        for key in searched:
            if key in event["values"]:
                assert row[key] == event["values"][key]
                assert isinstance(row[key], str) == isinstance(event["values"][key], str)
            else:
                assert pd.isna(row[key])
    assert pd.isna(frame["model.filters.3"][1])  # else this test says nothing of absent keys
    best = {e["trial"]: e["metrics"]["val_accuracy"] for e in events if e["event"] == "epoch"}  # they only rise
    assert dict(zip(frame["trial"], frame["best_val_accuracy"], strict=True)) == best


def test_a_row_an_epoch_says_what_was_reported(shared: Any) -> None:
    folder, events, _ = shared
    frame = results(folder).curves
    reported = [e for e in events if e["event"] == "epoch"]
    assert len(frame) == len(reported)
    for (_, row), event in zip(frame.iterrows(), reported, strict=True):
        assert (row["trial"], row["epoch"]) == (event["trial"], event["epoch"])
        assert {key: row[key] for key in METRICS} == event["metrics"]
        assert row["time"].timestamp() == event["time"]


def test_none_as_a_choice_is_not_absence(uri: str, tmp_path: Path) -> None:
    config = compose(["space.model.pooling.per_block=true"])
    values = {"model.blocks": 2, "model.pooling.1": "none", "model.pooling.2": "max"}
    first = {**trial_events(1)[0], "values": values}
    follow(uri, tmp_path / "sweep", [{**sweep_event(), "config": config}, first, *trial_events(1)[1:]])
    row = results(tmp_path).trials.iloc[0]
    assert (row["model.pooling.1"], row["model.pooling.2"]) == ("none", "max")
    assert pd.isna(row["model.pooling.3"])


def test_a_promoted_trial_is_one_row_with_all_its_seconds(uri: str, tmp_path: Path) -> None:
    events = [sweep_event(), *trial_events(1, epochs=2), *trial_events(1, epochs=3, first=3)]
    follow(uri, tmp_path / "sweep", events)
    found = results(tmp_path)
    assert found.trials["seconds"].tolist() == [10.0]
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


def test_without_the_config_columns_are_typed_by_what_they_hold(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", events_of())
    for config in tmp_path.rglob("config.yaml"):
        config.unlink()
    frame = results(tmp_path).trials
    assert frame["model.blocks"].dtype == "int64"
    assert frame["training.learning_rate"].dtype == "float64"


class TestNoUsableStore:
    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no MLflow store at .*mlflow\.db: run a sweep first"):
            cnnsweep.trials(None, f"tracking.dir={tmp_path}")
        assert not list(tmp_path.iterdir())

    def test_it_is_empty(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no sweep in the MLflow store"):
            cnnsweep.trials(None, f"tracking.dir={tmp_path}")

    def test_it_is_another_program_s_database(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "mlflow.db") as other:
            other.execute("CREATE TABLE recipes (name TEXT)")
        with pytest.raises(UserError, match="is no MLflow store"):
            cnnsweep.trials(None, f"tracking.dir={tmp_path}")
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
        other.close()

    def test_its_schema_is_unknown(self, uri: str, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "mlflow.db") as store:
            store.execute("UPDATE alembic_version SET version_num = 'f00f00f00f00'")
        store.close()
        with pytest.raises(UserError, match=r"has the schema f00f00f00f00; MLflow 3.* reads"):
            cnnsweep.trials(None, f"tracking.dir={tmp_path}")

    def test_the_server_does_not_answer(self) -> None:
        with pytest.raises(UserError, match="no answer"):
            cnnsweep.trials(None, "tracking=server", "tracking.uri=http://127.0.0.1:9")


def test_no_finished_trial_is_an_error_that_says_why(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", [sweep_event(), *trial_events(1, status="failed"), trial_events(2)[0]])
    with pytest.raises(UserError, match=r"no finished trial \(1 failed, 1 running; the first reason: was failed\)"):
        results(tmp_path).expect_finished()


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["16", "32"], [16, 32]),
        (["0.001", "1e-05"], [0.001, 1e-05]),
        (["1", "0.5"], [1.0, 0.5]),
        (["true", "false"], [True, False]),
        (["same", "3"], ["same", "3"]),
    ],
)
def test_parse(texts: list[str], values: list[Any]) -> None:
    found = parse(pd.Series(texts)).tolist()
    assert found == values
    assert [type(v) for v in found] == [type(v) for v in values]


def test_the_package_is_light_until_it_is_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, cnnsweep; cnnsweep.trials; print([m for m in ('mlflow', 'keras', 'pandas') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'trails'"):
        cnnsweep.trails  # noqa: B018

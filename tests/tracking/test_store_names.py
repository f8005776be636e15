"""Names of any kind in an MLflow store: the folder of the database, and the keys of params."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow.store.db.utils import _make_parent_dirs_if_sqlite
from mlflow.utils.validation import _validate_param
from tracked_sweeps import sweep_event

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.tracking.run_updates import RunUpdates
from cnnsweep.tracking.sqlite import database
from cnnsweep.tracking.store import connect, open_store

NAMES = [
    *"é李()#,'&=[];{}\"!~?%*@:<>|\\",
    "a b",
    "%20",
    "a%3Fb?c",
    "a\nb",
    "a\u00a0b",
    "a+b%2B",
    "file:",
    "sqlite:",
    "mode=ro?uri=true",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_database_is_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name / "mlruns"
    folder.mkdir(parents=True)
    uri = database(folder)
    _make_parent_dirs_if_sqlite(uri)  # as MLflow does
    with sa.create_engine(uri, poolclass=sa.NullPool).connect() as connection:
        connection.execute(sa.text("CREATE TABLE a (b INTEGER)"))
    assert (folder / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_store_can_be_made_in_a_working_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'it\'s "a" :name ?%20'
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = open_store(compose().tracking)
    assert connect(uri).get_experiment("0").artifact_location == (folder / "mlruns" / "artifacts" / "0").as_uri()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert [path.name for path in folder.iterdir()] == ["mlruns"]


@pytest.mark.parametrize("name", ["\udce9", "a?\udce9"])
def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"tracking.dir: '.*\\.*' cannot be the path of a database"):
        database(tmp_path / name)


def test_keys_of_a_users_own_component_become_params_that_mlflow_takes(tmp_path: Path) -> None:
    config = compose().plain()
    config["data"] |= {"_target_": "mine.load", "classes": {"n/a": 1, "C#": 2, "a//b": 3, "[x]=y": 4, "x" * 300: 5}}
    (update,) = RunUpdates(tmp_path, {}).of(replace(sweep_event(), config=config))
    for key, value in update.params.items():
        _validate_param(key, value)
    assert [update.params[f"data.classes.{key}"] for key in ("n/a", "C_", "a_b", "_x__y")] == ["1", "2", "3", "4"]


def test_the_command_of_a_run_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    command = ["python", "-m", "cnnsweep", "space.model.filters.values=[16, 32]", "tracking.dir=it's $HOME", "name=é"]
    (update,) = RunUpdates(tmp_path, {}).of(replace(sweep_event(), command=command))
    assert shlex.split(update.tags["cnnsweep.command"]) == command


def test_what_libraries_say_of_their_folders_is_for_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Matplotlib warns while a sweep runs where the home folder cannot be written, as on many clusters."""
    connect("sqlite://")
    caplog.clear()
    with caplog.at_level(logging.INFO, "cnnsweep"):
        logging.getLogger("matplotlib").warning("created a temporary cache directory")
    assert [record.name for record in caplog.records] == ["cnnsweep.mlflow"]
    assert capfd.readouterr() == ("", "")

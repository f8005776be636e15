"""A store's configs are data: code that they name is imported only where the user's own configs name it too."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracked_sweeps import PROVENANCE, base_config, empty_store, follow, settings, sweep_event, trial_events

from cnnsweep.config.schema import Config
from cnnsweep.config.trust import Trusted, trusted_by
from cnnsweep.errors import UserError
from cnnsweep.journal.events import to_json
from cnnsweep.sweep.resume import resume
from cnnsweep.sweep.session import Watcher
from cnnsweep.tracking.frames import read_results
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.store import open_store
from cnnsweep.tracking.stored_trials import find_trial

__all__ = ["empty_store"]
PLAIN = base_config().plain()
MODEL, DATA = dict(PLAIN["model"]), dict(PLAIN["data"])
BODY = {key: value for key, value in MODEL.items() if key != "_target_"}
STRANGE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "the-model": ("model._target_", {"model": {**MODEL, "_target_": "planted.build"}}),
    "the-model-last": ("model._target_", {"model": {**BODY, "_target_": "planted.build"}}),
    "the-data": ("data._target_", {"data": {**DATA, "_target_": "planted.load"}}),
    "the-layers": ("model.layers", {"model": {**MODEL, "_target_": "planted.build", "layers": "planted.layers"}}),
    "the-check": ("model.check", {"model": {**MODEL, "check": "planted.check"}}),
    "the-preparation": ("model.prepare", {"model": {**MODEL, "prepare": "planted.prepare"}}),
    "a-part": ("data.augment.0._target_", {"data": {**DATA, "augment": [{"_target_": "planted.call"}]}}),
    "the-standard-library": ("model._target_", {"model": {"args": ["touch", "ran"], "_target_": "subprocess.call"}}),
    "cnnsweep-but-no-component": ("data._target_", {"data": {**DATA, "_target_": "cnnsweep.cli.main"}}),
}  # fmt: skip
"""What a stored config could name, and the key of it."""


@pytest.fixture(scope="module")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store in which each trial's config names something else, and the trials' runs."""
    folder = tmp_path_factory.mktemp("written-by-others")
    (folder / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    events: list[Any] = [sweep_event()]
    for number, (_, changes) in enumerate(STRANGE.values(), start=1):
        start, *rest = trial_events(number, epochs=1)
        events += [replace(start, config={**PLAIN, **changes}), *rest]
    tracker = follow(open_store(settings(folder)), folder / "sweeps" / "fake-1", events)
    return folder, {name: tracker.runs[number] for number, name in enumerate(STRANGE, start=1)}


@pytest.fixture(autouse=True)
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a trace where it is imported, on the path as those of the working directory are."""
    trace = tmp_path / "imported"
    (tmp_path / "planted.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return trace


def found(store: tuple[Path, dict[str, str]], name: str, trusted: Trusted, today: Config | None = None) -> Config:
    folder, runs = store
    config = (today or base_config()).replace(tracking=settings(folder))
    return find_trial(runs[name], config, [], trusted).config


@pytest.mark.parametrize("name", STRANGE)
def test_a_stored_config_that_names_other_code_is_refused(
    store: tuple[Path, dict[str, str]], planted: Path, name: str
) -> None:
    key, changes = STRANGE[name]
    section, *path = key.split(".")
    value: Any = changes[section]
    for part in path:
        value = value[int(part) if part.isdigit() else part]
    with pytest.raises(UserError, match="names code that neither cnnsweep nor your own configs name") as caught:
        found(store, name, trusted_by())
    assert f"{key}: {value}" in str(caught.value)
    assert "--trust" in str(caught.value)
    assert not planted.exists()


def test_what_a_config_of_the_user_s_own_names_is_trusted(store: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "broken.yaml").write_text("{")
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("blocks: 2\n_target_: planted.build\n")
    assert found(store, "the-model", trusted_by()).model.target == "planted.build"
    with pytest.raises(UserError, match=r"none of it was run: model.layers: planted.layers\n"):
        found(store, "the-layers", trusted_by())
    (tmp_path / "others").mkdir()
    with pytest.raises(UserError, match=r"model._target_: planted.build\n"):
        found(store, "the-model", trusted_by(config_dir=tmp_path / "others"))


def test_what_an_override_names_or_the_user_trusts(store: tuple[Path, dict[str, str]]) -> None:
    today = Config.from_plain({**PLAIN, "model": {**MODEL, "_target_": "planted.build"}})
    assert found(store, "the-model", trusted_by(today)).model.target == "planted.build"
    assert found(store, "the-data", None).data.target == "planted.load"


def test_a_journal_that_names_other_code_is_not_resumed(tmp_path: Path, planted: Path) -> None:
    journal = tmp_path / "mlruns" / "sweeps" / "fake-1" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    config = {**PLAIN, **STRANGE["the-model"][1]}
    start = replace(sweep_event(), config=config, provenance={**PROVENANCE, "data": {"digest": "0"}})
    journal.write_text(json.dumps(to_json(start)) + "\n")
    with pytest.raises(UserError, match=r"the journal of fake-1 names code .*: model._target_: planted.build\n"):
        resume(["fake-1"], [], Watcher())
    assert not planted.exists()


def test_a_stored_config_is_plain_yaml(store: tuple[Path, dict[str, str]], planted: Path) -> None:
    folder, _ = store
    results = read_results(open_reader(settings(folder)), None)
    file = next((folder / "artifacts").rglob(f"{results.sweep.run}/artifacts/config.yaml"))
    whole = file.read_text(encoding="utf-8")
    file.write_text("name: !!python/object/apply:importlib.import_module [planted]\n", encoding="utf-8")
    try:
        with pytest.raises(UserError, match=r"config.yaml in .* is no plain YAML.*importlib.import_module"):
            _ = results.config
    finally:
        file.write_text(whole, encoding="utf-8")
    assert not planted.exists()

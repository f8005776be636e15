"""What an older version stored lacks the keys that came later: they have the packaged defaults, and that is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cnnsweep import older
from cnnsweep.config import check, compose
from cnnsweep.sweeps import journal, resume, session, standing
from cnnsweep.tracked.chosen import chosen

LATER = (
    "search.start_with", "search.learn_from", "budget.finalists", "budget.replicates", "training.unfreeze",
    "data.augment.contrast", "executor.grace_seconds", "tracking.gallery", "export.seeds",
)  # fmt: skip


def without(config: Any, names: tuple[str, ...]) -> Any:
    old = copy.deepcopy(config)
    for name in names:
        *path, last = name.split(".")
        group = old
        for part in path:
            group = group[part]
        del group[last]
    return old


@pytest.mark.parametrize("overrides", [["+sweep=mnist", "search=asha"], ["executor=inline", "search=nsga2"]])
def test_keys_that_came_later_have_the_packaged_defaults(overrides: list[str]) -> None:
    config = compose(overrides)
    found, added = older.complete(without(config, LATER))
    assert check(found) == config
    assert set(added) == set(LATER)
    assert "budget.replicates=null" in older.tell(added)
    assert older.complete(config) == (config, {})


def test_a_component_of_a_user_s_own_and_what_is_set_stay_as_they_are() -> None:
    config = compose(["budget.replicates=2", "space=none"])
    mine = {**config, "data": {"_target_": "shapes.load"}, "space": {}, "export": {}}
    found, added = older.complete(mine)
    assert found == {**mine, "export": {"seeds": 3}}
    assert added == {"export.seeds": 3}


@pytest.mark.slow
def test_an_old_sweep_is_resumed_and_its_trials_are_trained_again(tmp_path: Path) -> None:
    said: list[str] = []
    watcher = session.Watcher()
    watcher.say = said.append  # type: ignore[method-assign]
    where = f"tracking.dir={tmp_path}"
    settings = ["+sweep=smoke", "data.limit=200", "executor=inline", "tracking.gallery=0", "tracking.report=false"]
    begun = session.start(compose([*settings, where, "budget.trials=1"]), watcher)
    path = begun.folder / journal.FILE
    first, *rest = path.read_text().splitlines()
    opening = json.loads(first)
    opening["config"] = without(opening["config"], LATER)
    path.write_text("\n".join([json.dumps(opening), *rest]) + "\n")
    (begun.folder / standing.STATE).unlink()  # it says how far the journal was read
    said.clear()
    assert resume.resume(resume.read([begun.id], [where]), watcher) is None, "it is finished, as it was before"
    said.clear()
    outcome = resume.resume(resume.read([begun.id], [where, "budget.trials=2"]), watcher)
    assert outcome is not None
    assert outcome.status == "completed"
    assert [e.status for e in outcome.ledger.entries.values()] == ["completed"] * 2
    (told,) = [line for line in said if "packaged defaults" in line]
    assert all(name in told for name in LATER)
    configs = list(tmp_path.glob("**/artifacts/config.yaml"))
    assert len(configs) == 3
    for one in configs:
        one.write_text(yaml.safe_dump(without(yaml.safe_load(one.read_text()), LATER)))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(outcome.uri)
    experiment = client.get_experiment_by_name("cnnsweep")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`cnnsweep.trial` = '2'")
    again = chosen(run.info.run_id, [where])
    assert again.config["training"]["unfreeze"] == compose(settings)["training"]["unfreeze"]
    assert set(again.added) == {"training.unfreeze", "data.augment.contrast"}

"""Code of the user's own on a Ray cluster: it is found in the working folder, and goes on where what ran it is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_sweeps
from ray_cluster import SMALL, leave, ray

from cnnsweep.config.compose import compose
from cnnsweep.sweep import session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLES = Path(__file__).parents[3] / "examples"
LOST = """
import json
import psutil


def main(config, trial):
    begun = trial.folder / "begun.txt"
    first = not begun.exists()
    with begun.open("a") as file:
        file.write(f"{trial.epoch} ")
    restored = trial.restored()
    total = json.loads((restored / "sum.json").read_text()) if restored else 0.0
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        if epoch == 3 and first:  # what runs it is lost, as with its node
            next(p for p in psutil.Process().parents() if "ray::" in p.cmdline()[0]).kill()
        total += epoch
        if config.keeps:
            with trial.checkpoint() as folder:
                (folder / "sum.json").write_text(json.dumps(total))
        trial.report(epoch, val_accuracy=total / 100)
"""


class Lines(session.Watcher):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", **SMALL, num_cpus=1)
    yield
    leave()


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> tuple[session.Outcome, list[str]]:
    """A sweep as `python -m cnnsweep` runs it in a folder: its modules are found there."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)  # another example's
    lines = Lines()
    outcome = session.start(compose([*overrides, "executor=ray", *real_sweeps.FAST]), lines)
    return outcome, lines.said


def test_a_function_whose_actor_is_lost_goes_on_from_its_checkpoint_or_begins_again_and_says_so(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_train.py").write_text(LOST)
    space = "space.job.keeps={values: [true, false]}"
    outcome, said = run(tmp_path, monkeypatch, "job=function", "job.call=my_train.main", "+job.keeps=true", space,
                        "search=grid", "training.epochs=4")  # fmt: skip
    trials = {trial.values["job.keeps"]: trial for trial in outcome.state.trials.values()}
    for keeps, trial in trials.items():
        folder = outcome.folder / "trials" / f"{trial.number:03d}"
        assert [row["val_accuracy"] for row in trial.curve] == [0.01, 0.03, 0.06, 0.1]
        assert (folder / "begun.txt").read_text().split() == ["0", "2" if keeps else "0"]
    kept = outcome.folder / "trials" / f"{trials[True].number:03d}" / "checkpoints"
    assert [path.name for path in kept.iterdir()] == ["000004"], "the last, which is the best"
    (note,) = (line for line in said if "begins again" in line)
    assert note == f"trial {trials[False].number} begins again: my_train.main went on from no checkpoint"


@pytest.mark.parametrize(
    ("example", "overrides"),
    {
        "hydra_app": ["job=hydra", "job.call=train.main", "space.job.config.model.C={min: 1.0, max: 2.0}"],
        "keras_tuner": ["model=keras_tuner", "model.hypermodel=my_model.build", "data=digits", "data.limit=100"],
        "two_inputs": ["+sweep=gate"],
    }.items(),
)
def test_code_of_the_user_s_own_is_found_in_the_working_folder(
    cluster: None, example: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(EXAMPLES / example, tmp_path / example)
    if (folder / "make_data.py").exists():
        subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    outcome, _ = run(folder, monkeypatch, *overrides, "search=random", "budget.trials=1", "training.epochs=1")
    (trial,) = outcome.state.trials.values()
    assert (trial.status, trial.reason, len(trial.curve)) == ("completed", None, 1)

"""The examples of one's own code, as their READMEs say to run them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import real_sweeps
from real_sweeps import run, state

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("hydra_app", "keras_tuner", "pytorch", "scikit_learn", "two_inputs")
NEEDS = {"pytorch": "torch"}


def command(name: str) -> list[str]:
    """The arguments of the first command in the README."""
    found = re.search(r"^python -m cnnsweep (\S[^#\n]*)", (EXAMPLES / name / "README.md").read_text(), re.MULTILINE)
    assert found is not None, "the README has no command"
    return found[1].split()


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_is_short_and_says_what_to_run(name: str) -> None:
    assert len((EXAMPLES / name / "README.md").read_text().splitlines()) <= 20
    (preset,) = (word for word in command(name) if word.startswith("+sweep="))
    assert list((EXAMPLES / name).rglob(f"sweep/{preset.removeprefix('+sweep=')}.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed: pip install 'cnnsweep[{NEEDS[name]}]'")
    folder = shutil.copytree(EXAMPLES / name, tmp_path / name)
    if (folder / "make_data.py").exists():
        subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    code, output = run(folder, *command(name), "executor=cpu", "executor.workers=2", *real_sweeps.FAST)
    assert code == 0, output
    found = state(folder)
    assert {trial.status for trial in found.trials.values()} <= {"completed", "pruned"}, output
    assert real_sweeps.disagreements(folder) == []

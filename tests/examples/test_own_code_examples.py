"""The examples of one's own code, as their READMEs say to run them."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import real_sweeps
from real_sweeps import events, run, start, state, table, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN_MODELS = Path(__file__).parents[1] / "own_models.py"
NAMES = ("hydra_app", "keras_tuner", "pytorch", "scikit_learn", "two_inputs")
KINDS = (*NAMES, "fit")
"""And a HyperModel with a fit of its own, which is no example."""
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


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed: pip install 'cnnsweep[{NEEDS[name]}]'")
    return name


def prepare(name: str, folder: Path) -> tuple[Path, list[str]]:
    """The user's folder with the code, and the arguments of the sweep."""
    if name == "fit":
        shutil.copy(OWN_MODELS, folder)
        words = ["model=keras_tuner", "model.hypermodel=own_models.WithFit", "data=digits", "data.limit=200",
                 "search=random", "training.epochs=3"]  # fmt: skip
    else:
        folder, words = shutil.copytree(EXAMPLES / name, folder / name), command(name)
    if (folder / "make_data.py").exists():
        subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    return folder, [*words, "budget.trials=3", "executor=cpu", "executor.workers=1", *real_sweeps.FAST]


@pytest.fixture(scope="module")
def whole(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing has disturbed."""
    folder, arguments = prepare(kind, tmp_path_factory.mktemp("whole"))
    code, output = run(folder, *arguments)
    assert code == 0, output
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_example_runs(whole: Path) -> None:
    assert {trial.status for trial in state(whole).trials.values()} <= {"completed", "pruned"}
    assert real_sweeps.disagreements(whole) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["hydra_app"], indirect=True)  # others: test_own_jobs.py, test_own_fit.py
def test_an_example_that_is_killed_goes_on_to_the_same_numbers(kind: str, whole: Path, tmp_path: Path) -> None:
    """All of its processes are killed at once, in its second trial or soon after it."""
    folder, arguments = prepare(kind, tmp_path)
    driver = start(folder, *arguments)
    wait_for(lambda: any(e["event"] == "trial" and e["trial"] == 2 for e in events(folder)), "trial 2", driver)
    for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    known = len(events(folder))
    code, output = run(folder, "resume", *(["--trust"] if kind == "fit" else []))
    assert code == 0, output
    assert known < len(events(whole)), "it had ended before it was killed"
    assert "begins again" not in output
    again, undisturbed = state(folder), state(whole)
    assert table(again) == table(undisturbed)
    assert (again.final and again.final.metrics) == (undisturbed.final and undisturbed.final.metrics)
    assert real_sweeps.disagreements(folder) == []

"""The wheel works without the checkout, and the pinned versions fit the declared ranges."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-deps", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ROOT, "--no-build-isolation", "--wheel-dir", folder)
    return next(folder.glob("cnnsweep-*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone, installed apart from this environment, which has what it depends on."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--target", folder, wheel)
    return folder


def run(site: Path, where: Path, *arguments: str) -> str:
    """Run the installed command and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [str(site / "bin" / "cnnsweep"), *arguments]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
class TestWheel:
    def test_holds_every_config_and_the_type_marker(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        configs = {f"cnnsweep/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
        assert {name for name in names if name.endswith(".yaml")} == configs
        assert "cnnsweep/py.typed" in names
        assert {name.split("/")[0].split("-")[0] for name in names} == {"cnnsweep"}

    def test_help_lists_the_presets(self, site: Path, tmp_path: Path) -> None:
        assert "sweep=smoke" in run(site, tmp_path, "--help")

    def test_composes_its_own_configs_in_an_empty_directory(self, site: Path, tmp_path: Path) -> None:
        assert "name: smoke" in run(site, tmp_path, "--cfg", "+sweep=smoke")
        assert not any(tmp_path.iterdir())

    def test_finds_the_users_configs_beside_its_own(self, site: Path, tmp_path: Path) -> None:
        mine = tmp_path / "conf" / "space" / "mine.yaml"
        mine.parent.mkdir(parents=True)
        mine.write_text("model: {filters: {values: [5, 7]}}")
        composed = run(site, tmp_path, "--cfg", "space=mine", "search=grid")
        assert re.search(r"values:\n +- 5\n +- 7\n", composed)
        assert "cnnsweep.search.grid.GridOracle" in composed

    def test_sweeps_in_an_empty_directory(self, site: Path, tmp_path: Path) -> None:
        shown = run(site, tmp_path, "+sweep=smoke", "budget.trials=1", "training.epochs=1", "executor=inline")
        assert "test accuracy" in shown
        assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]


def test_make_installs_into_one_environment_at_a_time_with_j_too(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "begin $3" >> log\nsleep 0.2\necho "end $3" >> log\n')
    python.chmod(0o755)
    subprocess.run(["make", "-j4", "sweep", "test"], cwd=tmp_path, check=True, capture_output=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 8
    assert all(end == begin.replace("begin", "end") for begin, end in zip(lines[::2], lines[1::2], strict=True))


def test_constraints_are_pins_only() -> None:
    """Such as `keras==3.15.1`: no addresses, options or paths."""
    assert [pin for pin in PINS if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = dict(pin.split("==") for pin in PINS)
    declared = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    unfit = [str(r) for r in declared if not r.specifier.contains(pinned.get(canonicalize_name(r.name), "0"))]
    assert unfit == []


def test_every_package_that_is_imported_is_declared() -> None:
    """A package that another happens to bring may be gone tomorrow."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "cnnsweep").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    names = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"cnnsweep", "pydantic_core"}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(line).name) for lines in groups for line in lines}
    providers = packages_distributions()
    unknown = {name for name in names if not {canonicalize_name(p) for p in providers.get(name, [name])} & declared}
    assert not unknown

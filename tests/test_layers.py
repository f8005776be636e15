"""Imports go from one folder to those before it, no two files import each other, and starting loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "cnnsweep"
ORDER = (
    "errors", "formatting", "statistics", "config", "geometry", "trial", "search_space", "data", "models",
    "training", "search", "executors", "journal", "tracking", "sweep", "plan", "report", "ui", "export", "terminal",
    "api", "cli", "__main__",
)  # fmt: skip
"""The folders and the files of the package's root; each may import from those before it and from itself."""
EXTRAS = ("plan", "report", "ui", "export", "terminal")
HEAVY = ("tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "sklearn", "optuna", "plotly")

FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(("cnnsweep", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES
}


def imported(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, deferred imports included, those for type checking left out."""
    tree = ast.parse(MODULES[name].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


GRAPH = {name: {found for found in imported(name) if found in MODULES and found != name} for name in MODULES}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", [n for n in MODULES if n != "cnnsweep"])
def test_imports_go_downward_only(name: str) -> None:
    upward = [found for found in GRAPH[name] if part(found) and ORDER.index(part(found)) > ORDER.index(part(name))]
    assert not upward, f"{name} imports from above: {upward}"


def test_the_core_does_not_know_the_extras() -> None:
    core = [n for n in MODULES if part(n) not in (*EXTRAS, "api", "cli", "__main__", "")]
    found = {n: known for n in core if (known := [m for m in GRAPH[n] if part(m) in EXTRAS])}
    assert not found


def test_no_two_files_import_each_other() -> None:
    """Repeatedly remove files that import nothing that is left: what stays imports in a circle."""
    left = {name: set(found) for name, found in GRAPH.items()}
    while free := [name for name, found in left.items() if not found & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("code", ["import cnnsweep", "from cnnsweep.cli import main; main(['--help'])"])
def test_starting_loads_nothing_heavy(code: str) -> None:
    script = f"import sys\n{code}\nprint(sorted(m for m in {HEAVY} if m in sys.modules), file=sys.stderr)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stderr.strip() == "[]"

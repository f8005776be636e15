"""Imports go downward only, and what people run first loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "cnnsweep"
LEVELS = [
    {"errors", "schema", "config", "components", "objective", "space", "geometry", "problem", "trial", "journal"}
    | {"credentials", "limits", "lock", "windows", "signature", "chain", "lattice", "distinct", "feasible", "forecast"}
    | {"pricing", "older", "ranking"},
    {"data", "models", "checkpoint", "finetune", "ledger", "sketch", "budget", "replicates", "faults", "standing"}
    | {"axes", "importance", "canvas", "figures", "effects", "pictures"},
    {"training", "evaluation", "features", "feature_plan", "refit"},
    {"search", "executors", "tracking", "records", "mlflow_runs", "mlflow_server", "mlflow_store", "plots", "facts"}
    | {"calibration", "simulation", "gallery", "stored", "frames", "chosen", "learning"},
    {"sweep", "session", "display", "summary", "ui", "view", "housekeeping", "interrupt", "listing", "replay", "resume"}
    | {"plan", "planning", "plan_view", "api", "words", "comparison", "card", "report", "single", "export", "predict"},
    {"cli", "__main__"},
]
HEAVY = ("tensorflow", "keras", "keras_tuner", "mlflow", "pandas", "matplotlib", "sklearn", "optuna", "plotly")


def level_of(name):
    return next(level for level, names in enumerate(LEVELS) if name in names)


def modules():
    for path in ROOT.rglob("*.py"):
        top = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if top != "__init__":
            yield path, top


def imported(path):
    """The top-level names within cnnsweep that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cnnsweep":
            yield from (a.name for a in node.names if not a.name.startswith("_"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cnnsweep."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("cnnsweep."))


@pytest.mark.parametrize(("path", "top"), [pytest.param(p, t, id=str(p.relative_to(ROOT))) for p, t in modules()])
def test_imports_go_downward_only(path, top):
    upward = [name for name in imported(path) if level_of(name) > level_of(top)]
    assert not upward, f"{path.relative_to(ROOT)} imports from above: {upward}"


@pytest.mark.parametrize("code", ["import cnnsweep", "from cnnsweep.cli import main; main(['--help'])"])
def test_what_runs_first_loads_nothing_heavy(code):
    script = f"import sys\n{code}\nprint(sorted(m for m in {HEAVY} if m in sys.modules), file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stderr.strip() == "[]"

"""Imports go downward only, and what people run first loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "cnnsweep"
WHOLE = ("data", "models", "search", "executors")
"""Packages with one level for all that is in them; elsewhere each module has its own."""
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
        name = leveled(path.relative_to(ROOT).with_suffix("").parts)
        if name != "__init__":
            yield path, name


def leveled(parts):
    """The part of a module's dotted name, below cnnsweep's, that has a level."""
    return parts[1] if (ROOT / parts[0]).is_dir() and parts[0] not in WHOLE else parts[0]


def imported(path):
    """What a file imports from cnnsweep, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cnnsweep":
            names = [f"{node.module}.{a.name}" for a in node.names if not a.name.startswith("_")]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("cnnsweep.")]
        else:
            continue
        yield from (leveled(name.split(".")[1:]) for name in names)


@pytest.mark.parametrize(("path", "top"), [pytest.param(p, t, id=str(p.relative_to(ROOT))) for p, t in modules()])
def test_imports_go_downward_only(path, top):
    upward = [name for name in imported(path) if level_of(name) > level_of(top)]
    assert not upward, f"{path.relative_to(ROOT)} imports from above: {upward}"


@pytest.mark.parametrize("code", ["import cnnsweep", "from cnnsweep.cli import main; main(['--help'])"])
def test_what_runs_first_loads_nothing_heavy(code):
    script = f"import sys\n{code}\nprint(sorted(m for m in {HEAVY} if m in sys.modules), file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stderr.strip() == "[]"

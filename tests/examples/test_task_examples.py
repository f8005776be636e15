"""The examples of tasks, run as their READMEs say: in a folder of their own, with the data that they make."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cnnsweep

ROOT = Path(__file__).parents[2] / "examples"
QUICK = ("executor=inline", "training.precision=float32", "tracking.report=false", "tracking.gallery=1")
Run = Callable[..., cnnsweep.Result]
pytestmark = pytest.mark.slow


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """Copies an example, makes its data and returns what runs its sweep."""

    def prepare(name: str) -> Run:
        shutil.copytree(ROOT / name, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        runpy.run_path("make_data.py")
        sweep = next(Path("conf", "sweep").glob("*.yaml")).stem
        return lambda *more: cnnsweep.run(f"+sweep={sweep}", *QUICK, *more, quiet=True)

    return prepare


def pictures(result: cnnsweep.Result) -> list[str]:
    return sorted(path.stem for path in result.outcome.folder.glob("trials/*/artifacts/gallery/*.png"))


def test_regression(example):
    result = example("regression")("tracking.report=true", "budget.trials=2")
    assert result.status == "completed"
    assert result.test_metrics["test_r2"] > 0.5
    assert {"1_residuals", "2_largest_errors"} <= {*pictures(result)}
    report = (result.outcome.folder / "report" / "report.md").read_text()
    assert f"reaches r2 {result.test_metrics['test_r2']:.4f}, evaluated once (run " in report
    assert "Best is trial" in report


def test_multi_label(example):
    result = example("multi_label")("budget.trials=2")
    assert result.status == "completed"
    assert result.test_metrics["test_f1"] > 0.5
    assert "1_labels" in pictures(result)


def test_segmentation(example):
    result = example("segmentation")("budget.trials=1")
    assert result.status == "completed"
    assert result.test_metrics["test_iou"] > 0.5
    assert {"1_confusion_matrix", "2_masks"} <= {*pictures(result)}


def test_class_weights_and_balanced_accuracy_change_the_winner(example):
    run = example("imbalanced")
    balanced, accurate = run(), run("objective=val_accuracy")
    assert balanced.best == {"training.class_weights": "balanced"}
    assert accurate.best == {"training.class_weights": "none"}
    assert balanced.test_metrics["test_balanced_accuracy"] > accurate.test_metrics["test_balanced_accuracy"] + 0.1


def test_leaking_patients_would_have_pretended(example):
    run = example("patients")
    apart, leaked = run(), run("data.group=null")
    assert leaked.test_accuracy > 0.9
    assert apart.test_accuracy < leaked.test_accuracy - 0.15


@pytest.mark.parametrize("readme", sorted(ROOT.glob("*/README.md")), ids=lambda path: path.parent.name)
def test_a_readme_is_short(readme):
    assert len(readme.read_text().splitlines()) <= 24

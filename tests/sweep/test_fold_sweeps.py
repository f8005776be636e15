"""Sweeps on folds: a trial is trained on one fold after another, and no further once it cannot win."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import fake_sweeps
import numpy as np
import pytest

from cnnsweep.config.objective import Objective
from cnnsweep.journal.state import SweepState
from cnnsweep.search.oracle import Oracle
from cnnsweep.sweep import loop
from cnnsweep.sweep.folds import _margin, rival_of_next, stops
from cnnsweep.training import checkpoint
from cnnsweep.training.folds import cannot_win, fold_metric, train_folds
from cnnsweep.trial import EpochReport, Rival, TrialResult, TrialSpec

FOLDS = 4
SETTINGS = (f"data.folds={FOLDS}", "training.epochs=3", "budget.trials=10")
RANDOM = (*SETTINGS, "search=random")
NUMBER = Objective.of("val_accuracy")


def value(spec: TrialSpec, epoch: int) -> float:
    """Trials differ by more than their folds, which differ by more than the same fold of two trials."""
    quality = (spec.seed % 97) / 200 if spec.seed % 3 else 0.45
    noise = np.random.default_rng([spec.seed, spec.fold or 0]).normal(0, 0.01)
    return float(0.4 + quality + 0.05 * (spec.fold or 0) / FOLDS + noise - 0.1 / epoch)


def fold(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    """Train on one fold, with a checkpoint an epoch."""
    file = spec.folder / checkpoint.LAST
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = checkpoint.read_state(file).epochs[: spec.initial_epoch] if spec.initial_epoch else []
    for epoch in range(len(rows) + 1, spec.epochs + 1):
        trained.append((spec.number, spec.fold, epoch))
        rows.append({"loss": 1.0, "val_accuracy": value(spec, epoch), "epoch_seconds": 1.0})
        np.savez(file, state=np.array(json.dumps({"epochs": rows, "seconds": 1.0, "steps": 1})))
        if not (yield EpochReport(spec.number, epoch, rows[-1])):
            return TrialResult(spec.number, "pruned", None, epoch)
    return TrialResult(spec.number, "completed", None, len(rows), {"parameters": 7.0, "trial_seconds": 1.0})


trained: list[tuple[int, int | None, int]] = []


def job(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
    return train_folds(spec, FOLDS, fold, lambda rows, _: None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("cnnsweep.training.folds._draw", lambda *_: None)
    trained.clear()


@pytest.fixture
def whole(tmp_path: Path) -> tuple[list[object], list[str], SweepState]:
    """A sweep that nobody killed: its table, its journal and its state."""
    sweep = fake_sweeps.make(tmp_path / "whole", RANDOM, job)
    loop.search(sweep)
    sweep.journal.close()
    return fake_sweeps.table(sweep), sweep.journal.path.read_text().splitlines(keepends=True), sweep.state


def test_trials_that_cannot_win_are_stopped_between_folds(whole):
    trials = whole[2].trials.values()
    stopped = [trial for trial in trials if trial.status == "pruned"]
    assert 2 <= len(stopped) <= 7
    for trial in stopped:
        folds = int(trial.summary["folds"])
        assert trial.reason.startswith("cannot win: val_accuracy 0."), trial.reason
        assert {n for number, n, _ in trained if number == trial.number} == {*range(1, folds + 1)}
        assert len(trial.curve) == 3
        assert "epoch_seconds" not in trial.curve[0]
    complete = [trial for trial in trials if trial.status == "completed"]
    assert all(trial.curve[2]["epoch_seconds"] == FOLDS for trial in complete)
    assert complete[0].summary["trial_seconds"] == FOLDS
    assert len(trained) == 3 * (FOLDS * len(complete) + sum(int(trial.summary["folds"]) for trial in stopped))
    best = whole[2].ranked(1)[0]
    assert best.status == "completed"
    assert best.best(NUMBER) == pytest.approx(np.mean([best.curve[2][fold_metric(n, NUMBER)] for n in range(1, 5)]))


def test_a_sweep_that_is_killed_in_any_fold_ends_the_same(whole, tmp_path):
    table, lines, _ = whole
    once = sorted(trained)
    for moment in range(1, len(once), 5):
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        trained.clear()

        def killed(spec: TrialSpec, moment: int = moment) -> Generator[EpochReport, bool, TrialResult]:
            steps, answer = job(spec), None
            while True:
                try:
                    report = steps.send(answer)
                except StopIteration as end:
                    return end.value
                if len(trained) == moment:
                    raise KeyboardInterrupt
                answer = yield report

        sweep = fake_sweeps.make(folder, RANDOM, killed)
        with pytest.raises(KeyboardInterrupt):
            loop.search(sweep)
        sweep.journal.close()
        sweep = fake_sweeps.make(folder, RANDOM, job)
        loop.search(sweep)
        sweep.journal.close()
        assert fake_sweeps.table(sweep) == table, f"killed after {moment} epochs of folds"
        assert len(trained) <= len(once) + 1, "a fold that was trained was trained again"
    assert any('"rival"' in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "together"),
    [
        (("search=random",), False),
        (("search=bayesian",), False),
        (("search=auto",), True),
        (("search=hyperband",), True),
        (("search=asha", "search.variant=stopping"), True),
        (("search=random", "training.patience=2"), True),
        (("search=random", "training.target=0.9"), True),
        (("search=random", "objective=[val_accuracy,parameters]"), True),
    ],
    ids=lambda case: ",".join(case) if isinstance(case, tuple) else "",
)
def test_folds_are_trained_together_where_something_decides_after_epochs(tmp_path, settings, together):
    sweep = fake_sweeps.make(tmp_path / "sweep", (*SETTINGS, *settings))
    assert (rival_of_next(sweep.config, sweep.search, sweep.state) is None) == together
    sweep.journal.close()


def test_a_search_of_ones_own_that_stops_trials_is_known():
    class Stopping(Oracle):
        def keep_on(self, id_: str, epoch: int) -> bool:
            return epoch < 2

    assert stops(Stopping.__new__(Stopping))
    assert not stops(Oracle.__new__(Oracle))


def test_few_of_the_trials_that_would_have_won_are_stopped():
    """The margin is that of a 95% interval: one in forty of those that are as good as the best."""
    rng, folds, stopped = np.random.default_rng(0), 5, 0
    for _ in range(2000):
        hard = rng.normal(0, 0.05, folds)
        best, others = 0.8 + hard + rng.normal(0, 0.01, folds), 0.78 + hard + rng.normal(0, 0.01, (3, folds))
        rival = Rival([*map(float, best)], _margin([*map(float, best)], others.tolist()))
        same = 0.8 + hard + rng.normal(0, 0.01, folds)
        done = int(rng.integers(1, folds))
        lost = cannot_win([{"val_accuracy": float(same[:done].mean())}], done, rival, NUMBER)
        stopped += lost is not None and same.mean() >= best.mean()
    assert 0 < stopped < 2000 * 0.025


def test_a_trial_that_is_better_than_the_best_one_s_mean_goes_on_after_a_worse_first_fold():
    """The rival may have been lucky with that fold."""
    rival = Rival([0.99, 0.5, 0.5, 0.5], margin=0.1)
    assert cannot_win([{"val_accuracy": 0.8}], 1, rival, NUMBER) is None
    assert cannot_win([{"val_accuracy": 0.6}], 1, rival, NUMBER) is not None

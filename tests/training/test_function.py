"""A training function of the user's own: what it reports, how it goes on, and what is wrong with it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.training import function
from cnnsweep.training import own_checkpoints as checkpoints
from cnnsweep.trial import EpochReport, Inspection, TrialResult, TrialSpec


@functools.cache
def composed(*overrides: str) -> Config:
    return compose(["job=function", "job.call=own_functions.main", "+job.rate=0.5", "training.epochs=6", *overrides])


def spec(call: str, folder: Path, *overrides: str) -> TrialSpec:
    config = composed(*overrides).with_values({"job.call": call if "." in call else f"own_functions.{call}"})
    return TrialSpec(1, {}, config, 42, folder, folder / "data", 6)


def run(trial: TrialSpec, stop: int = 0) -> tuple[list[EpochReport], TrialResult]:
    """Run a trial to its end, or until the answer False after an epoch."""
    steps, reports = function.run(trial), []
    try:
        reports.append(next(steps))
        while True:
            reports.append(steps.send(reports[-1].epoch != stop))
    except StopIteration as end:
        return reports, end.value


def faults(call: str, *overrides: str) -> list[str]:
    steps = function.check(Inspection(spec(call, Path(), *overrides).config, (1, 1, 1)))
    with pytest.raises(StopIteration) as end:
        next(steps)
    return end.value.value  # type: ignore[no-any-return]


def metrics(reports: list[EpochReport]) -> list[dict[str, Any]]:
    return [{"epoch": r.epoch, **r.metrics, "epoch_seconds": 0} for r in reports]


def test_every_report_arrives_and_the_trial_completes(tmp_path):
    reports, result = run(spec("checkpointing", tmp_path))
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[2].metrics["val_accuracy"] == pytest.approx(0.342)
    assert reports[2].metrics["epoch_seconds"] >= 0
    assert (result.status, result.reason, result.epochs) == ("completed", None, 6)


@pytest.mark.parametrize("call", ["checkpointing", "forgetful"])
def test_a_trial_ends_where_the_answer_is_false(call, tmp_path):
    reports, result = run(spec(call, tmp_path), stop=2)
    assert [r.epoch for r in reports] == [1, 2]
    assert (result.status, result.reason, result.epochs) == ("pruned", "stopped by the search after epoch 2", 2)


def test_a_function_that_goes_on_ends_at_the_number_of_epochs(tmp_path):
    reports, result = run(spec("forgetful", tmp_path))
    assert (len(reports), result.status, result.epochs) == (6, "completed", 6)


@pytest.mark.parametrize("done", range(1, 6))
def test_a_resumed_trial_goes_on_as_if_nothing_had_happened(done, tmp_path):
    whole, _ = run(spec("checkpointing", tmp_path / "whole"))
    run(replace(spec("checkpointing", tmp_path / "parts"), epochs=done))
    rest, result = run(replace(spec("checkpointing", tmp_path / "parts"), initial_epoch=done))
    assert metrics(rest) == metrics(whole)[done:]
    assert (result.status, result.epochs) == ("completed", 6)
    assert rest[0].note is None


def test_an_epoch_that_the_driver_did_not_learn_of_is_reported_again_and_not_trained(tmp_path):
    first = replace(spec("checkpointing", tmp_path), epochs=3)
    known, _ = run(first)
    again, result = run(replace(first, initial_epoch=2))
    assert metrics(again) == metrics(known)[2:]
    assert again[0].metrics == known[2].metrics  # its seconds too: it did not run
    assert (result.status, result.epochs) == ("completed", 3)


@pytest.mark.parametrize("call", ["checkpointing", "forgetful"])
def test_a_trial_whose_end_alone_the_driver_did_not_learn_of_is_complete(call, tmp_path):
    first = replace(spec(call, tmp_path), epochs=3)
    run(first)
    assert run(replace(first, initial_epoch=3)) == ([], TrialResult(1, "completed", None, 3))


def test_a_function_that_seldom_checkpoints_repeats_the_epochs_since(tmp_path):
    run(replace(spec("every_third", tmp_path), epochs=5))
    reports, result = run(replace(spec("every_third", tmp_path), initial_epoch=5))
    assert [r.epoch for r in reports] == [4, 5, 6]
    assert (reports[0].note, result.status) == (None, "completed")


def test_a_function_that_does_not_checkpoint_begins_again_and_says_so(tmp_path):
    run(replace(spec("forgetful", tmp_path), epochs=3))
    reports, result = run(replace(spec("forgetful", tmp_path), initial_epoch=3))
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5, 6]
    assert reports[0].note == "trial 1 begins again: own_functions.forgetful went on from no checkpoint"
    assert all(r.note is None for r in reports[1:])
    assert result.status == "completed"


def test_a_new_trial_removes_the_checkpoints_of_an_earlier_one(tmp_path):
    run(spec("checkpointing", tmp_path))
    reports, _ = run(spec("checkpointing", tmp_path))
    assert reports[0].epoch == 1


def test_the_last_and_the_best_checkpoint_are_kept(tmp_path):
    run(spec("falling", tmp_path))
    assert [path.name for path in checkpoints.read_all(tmp_path)] == ["000001", "000006"]
    assert checkpoints.best(tmp_path, Objective.of("val_accuracy")) == tmp_path / "checkpoints" / "000001"


def test_a_checkpoint_that_a_crash_left_incomplete_is_not_used(tmp_path):
    run(replace(spec("checkpointing", tmp_path), epochs=2))
    for name in ("partial", "000003"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "state.json").write_text("1e9")
    rest, _ = run(replace(spec("checkpointing", tmp_path), initial_epoch=2))
    assert rest[0].epoch == 3
    assert rest[0].metrics["total"] == pytest.approx(3.0)


@pytest.mark.parametrize("call", ["returning", "returning_metrics"])
def test_what_a_function_returns_counts_where_it_reports_nothing(call, tmp_path):
    reports, result = run(spec(call, tmp_path))
    assert [(r.epoch, r.metrics["val_accuracy"]) for r in reports] == [(1, 0.75)]
    assert result.status == "completed"


def test_several_numbers_that_it_returns_are_the_objectives_in_their_order(tmp_path):
    """As Hydra's sweeper for Optuna takes them."""
    reports, _ = run(spec("returning_both", tmp_path, "objective=[val_accuracy,val_loss]", "search=nsga2"))
    assert (reports[0].metrics["val_accuracy"], reports[0].metrics["val_loss"]) == (0.75, 1.0)


def test_numbers_of_numpy_are_numbers(tmp_path):
    reports, _ = run(replace(spec("of_numpy", tmp_path), epochs=2))
    assert [(type(r.epoch), r.metrics["val_accuracy"]) for r in reports] == [(int, 0.5), (int, 0.5)]


def test_a_function_gets_the_dataclass_that_it_asks_for(tmp_path):
    reports, _ = run(spec("typed", tmp_path, "+job.depth=3"))
    assert reports[0].metrics["val_accuracy"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("call", "reason"),
    {
        "twice": "reported epoch 1 twice; expected 2: each epoch once, counted from 1",
        "leaping": "reported epoch 5; expected 1: each epoch once, counted from 1",
        "in_text": "reported epoch '1', which is not a whole number",
        "infinite": "reported loss=inf in epoch 1",
        "not_a_number": "reported val_accuracy=good in epoch 1, which is not a number",
        "without_objective": "reported val_acuracy in epoch 1, and not the objective val_accuracy (objective=METRIC)",
        "returning_its_epoch": "reported 'epoch' among the metrics, which is the name of the epoch's number",
        "returning_numbered": "reported 1 as a metric's name, which is no text",
        "swallowing": "reported loss in epoch 1, and not the objective val_accuracy (objective=METRIC)",
        "silent": "returned without a report (trial.report(epoch, METRIC=value)) and without a value",
    }.items(),
)
def test_a_wrong_report_fails_the_trial_with_its_reason(call, reason, tmp_path):
    _, result = run(spec(call, tmp_path))
    assert (result.status, result.reason) == ("failed", f"own_functions.{call} {reason}")


def test_what_a_function_raises_is_raised_by_the_job(tmp_path):
    with pytest.raises(KeyError):
        run(spec("raising", tmp_path))


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("3", ("failed", "SystemExit: 3")),
        ("no data", ("failed", "SystemExit: no data")),
        ("0", ("completed", None)),
        ("null", ("completed", None)),
    ],
)
def test_a_function_that_ends_its_process_ends_its_trial_alone(code, end, tmp_path):
    _, result = run(spec("leaving", tmp_path, f"+job.code={code}"))
    assert (result.status, result.reason) == end


def test_the_next_trial_of_a_worker_starts_in_the_same_folder(tmp_path):
    before = os.getcwd()
    assert run(spec("moving", tmp_path))[1].status == "completed"
    assert os.getcwd() == before


def test_a_key_that_the_config_lacks_is_named(tmp_path):
    with pytest.raises(AttributeError, match="rat"):
        run(spec("misspelt_key", tmp_path))


@pytest.mark.parametrize(
    ("call", "fault"),
    {
        "checkpointing": None,
        "typed": None,
        "own_function.checkpointing": "No module named 'own_function'",
        "__main__.mine": "workers cannot import 'mine' from a notebook or from the program that was started; write",
        "checkpoint": "'own_functions' has no class or function 'checkpoint', did you mean 'checkpointing'?",
        "value_of_a_constant": "'own_functions' has no class or function 'value_of_a_constant'",
        "one_argument": "own_functions.one_argument(config: 'Any') -> 'None' cannot be called with (config, trial)",
    }.items(),
)
def test_a_function_is_checked_before_the_first_trial(call, fault):
    found = faults(call)
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]


@pytest.mark.parametrize(
    ("ending", "fault"),
    {
        "cnnsweep.run('+sweep=smoke')": "my_script starts a sweep when it is imported: put cnnsweep.run(...) below if",
        "sys.exit(3)": "my_script ends the program when it is imported (exit 3); put what it runs below if __name__ ==",
    }.items(),
)
def test_a_module_that_runs_a_program_when_it_is_imported_is_refused(ending, fault, tmp_path, monkeypatch):
    """Each worker of the sweep began a sweep of its own, whose workers did the same."""
    (tmp_path / "my_script.py").write_text(f"import sys\nimport cnnsweep\ndef main(config, trial): ...\n{ending}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert fault in faults("my_script.main")[0]


def test_the_main_module_of_a_worker_is_not_the_program(monkeypatch):
    """A fork server has a function main of its own."""
    monkeypatch.setattr(sys.modules["__main__"], "main", print, raising=False)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: 1)
    assert "workers cannot import 'main' from a notebook" in faults("__main__.main")[0]


def test_a_module_is_looked_for_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "my_train.py").touch()
    monkeypatch.chdir(tmp_path)
    (fault,) = faults("my_trian.main")
    assert f"did you mean 'my_train'?; looked for in {tmp_path} and among the installed packages" in fault


def test_keys_that_do_not_fit_the_dataclass_are_named():
    (fault,) = faults("typed", "+job.depth=deep")
    assert fault.startswith("job.depth: ")
    (fault,) = faults("typed", "+job.dept=1")
    assert "dept" in fault


@pytest.mark.parametrize("entry", ["{values: [shallow, deep]}", "{min: 1, max: 8.0}", "{values: [1.0, 2.5]}"])
def test_searched_values_that_do_not_fit_the_dataclass_are_found_before_the_first_trial(entry):
    (fault,) = faults("typed", "+job.depth=1", f"space.job.depth={entry}")
    assert fault.startswith("job.depth: ")
    assert not faults("typed", "+job.depth=1", "space.job.depth={min: 1, max: 8}")


def test_a_job_that_is_closed_ends_its_function(tmp_path):
    steps = function.run(spec("forgetful", tmp_path))
    next(steps)
    steps.close()
    names = {thread.name for thread in function.threading.enumerate()}
    deadline = time.monotonic() + 5
    while "trial-1" in names and time.monotonic() < deadline:
        time.sleep(0.01)
        names = {thread.name for thread in function.threading.enumerate()}
    assert "trial-1" not in names


def test_a_searched_key_of_the_function_is_replaced_at_any_depth():
    config = compose(["job=function", "job.call=a.b", "+job.optimizer={name: sgd, rates: {low: 1, high: 2}}"])
    changed = config.with_values({"job.optimizer.rates.low": 5})
    assert changed.job.own == {"optimizer": {"name": "sgd", "rates": {"low": 5, "high": 2}}}


def test_a_network_is_refused_where_there_is_none():
    from cnnsweep.models import none

    with pytest.raises(UserError, match="model=none is no network"):
        none.build()

"""Real sweeps on the digits: what was run is what the journal, the state and the MLflow store say."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.data import loading as datasets
from cnnsweep.errors import UserError
from cnnsweep.journal import journal
from cnnsweep.journal.state import replay
from cnnsweep.sweep import session
from cnnsweep.sweep.session import Watcher

TINY = ("+sweep=smoke", "data.limit=200", "training.epochs=2", "tracking.gallery=0", "training.precision=float32")


def sweep(tmp_path, *overrides):
    config = compose([*TINY, f"tracking.dir={tmp_path / 'mlruns'}", *overrides])
    return session.start(config, Watcher(), ["test"])


def table(outcome):
    return [
        (e.name, dict(e.values), e.status, [_comparable(m) for m in e.curve]) for e in outcome.state.trials.values()
    ]


def _comparable(metrics):
    return {k: v for k, v in metrics.items() if k != "epoch_seconds"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished sweep with worker processes."""
    return sweep(tmp_path_factory.mktemp("finished"), "tracking.tags={team: red}")


@pytest.fixture(scope="module")
def store(finished):
    """The client of its MLflow store, and its runs by trial; None: the sweep's own."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(finished.uri)
    experiment = client.get_experiment_by_name("cnnsweep")
    runs = client.search_runs([experiment.experiment_id], f"tags.`cnnsweep.sweep` = '{finished.id}'")
    assert [r.data.tags["cnnsweep.kind"] for r in runs if "cnnsweep.trial" not in r.data.tags] == ["sweep"]
    return client, {int(r.data.tags.get("cnnsweep.trial", 0)) or None: r for r in runs}


@pytest.mark.slow
class TestFinishedSweep:
    def test_trials_complete_and_the_best_meets_the_test_set(self, finished):
        assert finished.status == "completed"
        assert [e.status for e in finished.state.trials.values()] == ["completed"] * 3
        assert finished.state.final.trial == finished.state.ranked()[0].number
        assert 0 <= finished.state.final.metrics["test_accuracy"] <= 1
        assert finished.state.stop.reason == "budget.trials (3) is reached"

    def test_the_store_says_what_was_run(self, finished, store):
        client, runs = store
        parent = runs[None]
        assert set(runs) == {None, 1, 2, 3}
        for entry in finished.state.trials.values():
            run = runs[entry.number]
            assert run.info.status == "FINISHED"
            assert run.info.run_name == entry.name
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.data.tags["team"] == "red"
            for key, value in entry.values.items():
                assert run.data.params[key] == str(value)
            for metric in ("loss", "accuracy", "val_loss", "val_accuracy", "epoch_seconds", "learning_rate"):
                history = sorted(client.get_metric_history(run.info.run_id, metric), key=lambda m: m.step)
                assert [(m.step, m.value) for m in history] == [(i + 1, m[metric]) for i, m in enumerate(entry.curve)]
            files = {f.path for f in client.list_artifacts(run.info.run_id)}
            assert {"config.yaml", "model.txt", "curves.png"} <= files
        assert parent.data.metrics["test_accuracy"] == finished.state.final.metrics["test_accuracy"]
        assert parent.info.status == "FINISHED"

    def test_the_logged_model_is_the_one_that_was_measured(self, finished, store):
        import mlflow

        mlflow.set_tracking_uri(finished.uri)
        model = mlflow.keras.load_model(store[1][None].data.tags["cnnsweep.model_uri"])
        data = datasets.load(finished.config.data, finished.config.seed)
        predicted = np.argmax(model.predict(np.asarray(data.x_test), verbose=0), axis=1)
        accuracy = float(np.mean(predicted == data.y_test))
        assert accuracy == pytest.approx(finished.state.final.metrics["test_accuracy"], abs=1e-6)

    def test_the_journal_reads_back_to_the_same_state(self, finished):
        again = replay(journal.read(finished.folder / "journal.jsonl"), finished.state.objective)
        assert again.trials == finished.state.trials

    def test_one_seed_gives_one_table_and_one_trial_alone_the_same_numbers(self, finished, tmp_path):
        again = sweep(tmp_path / "again", "executor=cpu", "executor.workers=1", "executor.threads=1")
        assert table(again) == table(finished)
        values = [f"{key.rstrip('.12')}={value}" for key, value in finished.state.trials[1].values.items()]
        filters = [finished.state.trials[1].values[f"model.filters.{block}"] for block in (1, 2)]
        alone = [v for v in values if not v.startswith("model.filters")] + [f"model.filters={filters}"]
        script = ALONE.format(overrides=["space=none", "executor=inline", *alone], folder=str(tmp_path / "alone"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout.splitlines()[-1]) == table(finished)[0][3]


ALONE = """
import json
from pathlib import Path
from tests.sweep.test_loop import sweep, table
outcome = sweep(Path({folder!r}), *{overrides!r})
print(json.dumps(table(outcome)[0][3]))
"""


@pytest.mark.slow
def test_a_search_that_learns_runs_for_real(tmp_path):
    outcome = sweep(tmp_path, "search=bayesian", "budget.trials=4", "training.epochs=1")
    assert outcome.status == "completed"
    assert len(outcome.state.trials) == 4
    signatures = {json.dumps(dict(e.values), sort_keys=True) for e in outcome.state.trials.values()}
    assert len(signatures) == 4


@pytest.mark.slow
def test_a_promoted_trial_goes_on_as_if_it_had_never_stopped(tmp_path):
    """Hyperband's three epochs in two runs are, to the last digit, three epochs in one."""
    halved = sweep(tmp_path / "a", "search=hyperband", "training.epochs=3", "budget.trials=3")
    straight = sweep(tmp_path / "b", "training.epochs=3", "budget.trials=3")
    assert halved.status == "completed"
    assert min(len(e.curve) for e in halved.state.trials.values()) == 1
    longest = max(halved.state.trials.values(), key=lambda e: len(e.curve))
    same = straight.state.trials[longest.number]
    assert len(longest.curve) == 3
    assert dict(same.values) == dict(longest.values)
    assert [_comparable(m) for m in same.curve] == [_comparable(m) for m in longest.curve]


@pytest.mark.slow
def test_a_space_of_nothing_is_one_trial(tmp_path):
    outcome = sweep(tmp_path, "space=none", "executor=inline", "model.blocks=1")
    assert len(outcome.state.trials) == 1
    assert outcome.state.stop.reason == "every valid configuration was tried"


@pytest.mark.slow
def test_a_trial_whose_loss_is_not_finite_fails_alone(tmp_path):
    overrides = ["space=none", "+space.training.learning_rate.values=[0.001, 1.0e+30]", "search=grid", "model.blocks=1"]
    outcome = sweep(tmp_path, *overrides, "training.optimizer=sgd")
    good, bad = sorted(outcome.state.trials.values(), key=lambda e: e.values["training.learning_rate"])
    assert (good.status, bad.status) == ("completed", "failed")
    assert re.match(r"loss is (nan|inf) in epoch 1", bad.reason)
    assert outcome.status == "completed"


@pytest.mark.slow
def test_a_budget_of_epochs_ends_the_sweep_and_says_so(tmp_path):
    outcome = sweep(tmp_path, "budget.epochs=3", "executor.workers=1", "executor=cpu")
    assert outcome.state.epochs == 3
    assert outcome.state.stop.reason == "budget.epochs (3) is spent"


@pytest.mark.slow
def test_failures_in_a_row_end_the_sweep_with_their_reasons(tmp_path):
    broken = "model._target_=tests.sweep.test_loop.build_broken"
    outcome = sweep(tmp_path, broken, "search.max_failures=2", "budget.trials=9", "executor=inline")
    assert outcome.status == "failed"
    assert len(outcome.state.trials) == 2
    assert outcome.state.stop.reason == (
        "2 trials in a row failed (search.max_failures): 2 × RuntimeError: no such network"
    )


def build_broken(model, input_shape, classes, **settings):
    raise RuntimeError("no such network")


def test_data_that_is_not_there_is_found_out_before_any_training(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.npz"):
        sweep(tmp_path, "data=npz", "data.file=nothing.npz", "executor=inline", "data.limit=null")
    assert not list(tmp_path.glob("mlruns/sweeps/*/journal.jsonl"))

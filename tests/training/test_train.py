"""Training of a trial: images larger than memory, checkpoints, and fine-tuning."""

from __future__ import annotations

import re
from dataclasses import replace

import keras
import mlflow.models
import numpy as np
import pytest
from trials import run, spec

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.data.storage import open_saved
from cnnsweep.errors import UserError
from cnnsweep.training import building
from cnnsweep.training import train as training
from cnnsweep.training.building import build_model
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec


def test_images_that_fill_the_memory_are_read_batch_by_batch_for_the_same_numbers(digits, tmp_path, monkeypatch):
    config = compose(["data=digits", "space=none", "model.blocks=1", "training.epochs=1", "training.batch_size=20"])
    trial = TrialSpec(1, {}, config, 5, tmp_path / "a", digits, 1)
    whole = run(train(trial))[0]
    monkeypatch.setattr(training, "IN_MEMORY", 1000)
    x = open_saved(digits).x_train
    batches = training.batched(x, open_saved(digits).y_train, 20, np.arange(len(x)))["x"]
    assert [len(batches[i][0]) for i in range(len(batches))] == [20, 20, 8]
    piecewise = run(train(replace(trial, folder=tmp_path / "b")))[0]
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert piecewise[0].metrics[metric] == pytest.approx(whole[0].metrics[metric], rel=1e-5)


def unnamed(model, input_shape, classes, scale, augment, *, seed):
    """A family whose networks are named by Keras: "sequential", then "sequential_1" …"""
    start = keras.initializers.GlorotUniform(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(classes, "softmax", kernel_initializer=start)]
    return keras.Sequential([keras.Input(input_shape), *layers])


def trial_of(digits, folder, *overrides, epochs=4):
    settings = ["data=digits", "space=none", "model.blocks=1", "model.filters=2", "training.batch_size=20"]
    config = compose([*settings, f"training.epochs={epochs}", *overrides])
    return TrialSpec(1, {}, config, 5, folder, digits, epochs)


@pytest.mark.parametrize(("count", "size"), [(10, 10), (10, 5), (10, 4), (10, 7), (3, 1)])
def test_epochs_are_parts_of_passes_over_all_examples(count, size):
    """The first `count` examples are all of them, and so are the next; each pass has an order of its own."""
    seen = np.concatenate([training.order_of(count, size, 5, epoch) for epoch in range(1, 2 * count + 1)])
    assert len(seen) == 2 * count * size
    passes = seen[: len(seen) // count * count].reshape(-1, count)
    assert {tuple(sorted(one)) for one in passes.tolist()} == {tuple(range(count))}
    if count > 3:
        assert len({tuple(one) for one in passes.tolist()}) == len(passes)


def test_a_trial_with_weights_that_are_not_finite_has_failed_though_its_loss_is_finite(digits, tmp_path):
    adafactor = ["training.optimizer=adafactor", "training.optimizer_settings.epsilon_1=1e-30"]
    settings = ["data=digits", "space=none", "model.blocks=2", "model.filters=4", "training.learning_rate=0.01"]
    config = compose([*settings, *adafactor, "training.epochs=2"])
    reports, result = run(train(TrialSpec(1, {}, config, 5, tmp_path / "trial", digits, 2)))
    assert (reports, result.status) == ([], "failed")
    assert re.fullmatch(r"a weight of \S+ is not finite in epoch 1 \(learning rate 0.01\)", result.reason)


def test_with_small_epochs_a_trial_takes_their_steps_and_continues_to_the_last_digit(digits, tmp_path):
    trial = trial_of(digits, tmp_path / "a", "training.epoch_size=25", "training.schedule=cosine")
    straight, _ = run(train(trial))
    rates = [r.metrics["learning_rate"] for r in straight]
    assert rates == pytest.approx([0.001 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in (1, 2, 3, 4)], abs=1e-9)
    halves = replace(trial, folder=tmp_path / "b")
    run(train(replace(halves, epochs=2)))
    again, _ = run(train(replace(halves, initial_epoch=2)))
    assert [r.metrics["loss"] for r in again] == [r.metrics["loss"] for r in straight[2:]]


def test_checkpoints_do_not_depend_on_the_names_that_keras_gives(digits, tmp_path):
    own = {"_target_": f"{__name__}.unnamed"}
    trial = trial_of(digits, tmp_path / "a")
    trial = replace(trial, config=Config.from_plain({**trial.config.plain(), "model": own}))
    straight, _ = run(train(trial))
    halves = replace(trial, folder=tmp_path / "b")
    run(train(replace(halves, epochs=2)))
    again, _ = run(train(replace(halves, initial_epoch=2)))
    assert [(r.epoch, r.note, r.metrics["val_loss"]) for r in again] == [
        (r.epoch, None, r.metrics["val_loss"]) for r in straight[2:]
    ]
    assert run(evaluate_best(FinalSpec(trial)))[1]["images"] > 0


@pytest.mark.parametrize("damage", ["half a file", "another network", "no file"])
def test_a_checkpoint_that_cannot_be_loaded_is_said(digits, tmp_path, damage):
    trial = trial_of(digits, tmp_path / "a", epochs=2)
    reports, _ = run(train(replace(trial, epochs=1)))
    last, other = trial.folder / "last.npz", tmp_path / "b"
    if damage == "half a file":
        last.write_bytes(last.read_bytes()[:1000])
    elif damage == "another network":
        run(train(replace(trial_of(digits, other, "model.filters=3", epochs=1))))
        last.write_bytes((other / "last.npz").read_bytes())
    else:
        last.unlink()
    again, _ = run(train(replace(trial, initial_epoch=1)))
    assert again[0].metrics["val_loss"] == reports[0].metrics["val_loss"]
    assert [r.epoch for r in again] == [1, 2]
    assert again[0].note.startswith("trial 1 begins again: checkpoint 'last.npz' of trial a cannot be loaded: ")
    assert again[1].note is None


def test_after_a_smaller_batch_the_schedule_goes_on_from_the_same_epoch_to_zero(digits, tmp_path):
    trial = trial_of(digits, tmp_path, "training.schedule=cosine")
    before, _ = run(train(replace(trial, epochs=2)))
    smaller = trial_of(digits, tmp_path, "training.schedule=cosine", "training.batch_size=10")
    after, _ = run(train(replace(smaller, initial_epoch=2)))
    rates = [r.metrics["learning_rate"] for r in (*before, *after)]
    assert rates == pytest.approx([5e-4 * (1 + np.cos(np.pi * epoch / 4)) for epoch in (1, 2, 3, 4)], abs=1e-9)


@pytest.mark.slow
def test_fine_tuning_trains_what_it_names_at_its_own_rate_and_can_be_resumed(digits, tmp_path):
    tuned = ["training.unfreeze=1 block", "training.unfreeze_epochs=2", "training.unfreeze_learning_rate=1e-3"]
    tuned += ["data.augment.flip=true", "training.schedule=cosine"]
    straight = spec(digits, tmp_path, *tuned, epochs=4)
    reports, result = run(train(straight))
    assert [r.epoch for r in reports] == [1, 2, 3, 4]
    assert max(r.metrics["learning_rate"] for r in reports[2:]) <= 1e-3
    assert result.epochs == 4
    before = build_model(straight.config, open_saved(digits), straight.seed)
    own = {id(v): v.path for v in before.get_layer("backbone").variables}
    with np.load(straight.folder / "last.npz") as last:
        pairs = [(v, last[f"model/{i}"]) for i, v in enumerate(before.weights) if id(v) in own]
    changed = {own[id(v)].split("/")[0] for v, after in pairs if not np.array_equal(np.asarray(v), after)}
    assert changed == {"conv_dw_3", "conv_pw_3"}
    halves = replace(straight, folder=tmp_path / "halves")
    run(train(replace(halves, epochs=3)))
    again, _ = run(train(replace(halves, initial_epoch=3)))
    assert [r.metrics["val_loss"] for r in again] == [reports[3].metrics["val_loss"]]


def test_with_pytorch_on_a_gpu_a_call_is_one_step(monkeypatch):
    monkeypatch.setattr(building, "on_cpu", lambda: False)
    assert building._steps_per_execution("auto", 100) == 32
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    assert building._steps_per_execution("auto", 100) == building._steps_per_execution(8, 100) == 1


def test_the_best_model_of_a_subclass_is_evaluated_and_saved(digits, tmp_path):
    """It ended with "has no attribute 'output_shape'", and without a test result."""
    config = compose(["data=digits", "model=function", "model.call=own_models.Subclassed", "training.epochs=1"])
    trial = TrialSpec(1, {}, config, 5, tmp_path / "a", digits, 1)
    run(train(trial))
    run(evaluate_best(FinalSpec(trial, tmp_path / "best")))
    loaded, x = keras.models.load_model(tmp_path / "best" / "model.keras"), np.asarray(open_saved(digits).x_test)
    assert loaded.predict(x, verbose=0).shape == (len(x), 10)
    stored = mlflow.models.Model.load(str(tmp_path / "best" / "mlflow_model"))
    assert stored.signature.outputs.inputs[0].shape == (-1, 10)


def test_logits_of_one_s_own_model_become_probabilities(digits):
    """They were taken for probabilities, so that a network learned next to nothing."""
    words, data = ["data=digits", "space=none", "model=function"], open_saved(digits)
    model = build_model(compose([*words, "model.call=own_models.logits"]), data, seed=1)
    assert np.asarray(model(data.x_train)).sum(axis=1) == pytest.approx(np.ones(len(data.x_train)), rel=1e-5)
    with pytest.raises(UserError, match=r"gives negative numbers \(logits\): let it end with softmax, or compile it"):
        build_model(compose([*words, "model.call=own_models.SubclassedLogits"]), data, seed=1)

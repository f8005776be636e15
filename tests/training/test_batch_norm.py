"""Statistics of batch normalisation after an epoch: those of the training images, where a layer is trained."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from trials import run

from cnnsweep.config.compose import compose
from cnnsweep.data.storage import open_saved
from cnnsweep.training import batch_norm, checkpoint
from cnnsweep.training.building import build_model
from cnnsweep.training.fused import fuse
from cnnsweep.training.train import train, validate
from cnnsweep.trial import TrialSpec

RNG = np.random.default_rng(0)
MAPS = RNG.normal(3, 2, (50, 6, 6, 2)).astype("float32")
ROWS = RNG.normal(-1, 3, (50, 4)).astype("float32")


def maps(**normalisation):
    return [layers.Conv2D(3, 2), layers.BatchNormalization(**normalisation), layers.ReLU(), layers.Flatten()]


def nested(**normalisation):
    return [keras.Sequential([layers.Input((6, 6, 2)), *maps(**normalisation)])]


def rows(**normalisation):
    return [layers.Dense(3), layers.BatchNormalization(**normalisation)]


def made(x, stack, is_fused=True):
    model = keras.Sequential([layers.Input(x.shape[1:]), *stack, layers.Dense(1)])
    model.compile("sgd", "mse")
    if is_fused:
        fuse(model)
    return model


def recompute(model, x, batch_size=16):
    before = batch_norm.read(model)
    model.fit(x, np.zeros(len(x)), batch_size=batch_size, epochs=1, verbose=0)
    batch_norm.recompute(model, x, before, 0, batch_size)
    return before


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "keras"])
@pytest.mark.parametrize(("x", "stack"), [(MAPS, maps), (MAPS, nested), (ROWS, rows)], ids=["maps", "nested", "rows"])
def test_statistics_are_those_of_the_training_images(x, stack, is_fused, monkeypatch):
    monkeypatch.setattr(batch_norm, "PIXELS", 20 * 36)  # three batches of maps, the last one smaller
    model = made(x, stack(), is_fused)
    recompute(model, x)
    (layer,) = batch_norm.layers(model)
    first = next(each for each in model._flatten_layers() if hasattr(each, "kernel"))
    inputs = np.asarray(first(x))
    axes = tuple(range(inputs.ndim - 1))
    ((mean, variance),) = batch_norm.read(model)
    np.testing.assert_allclose(mean, inputs.mean(axes), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(variance, inputs.var(axes), rtol=1e-3)
    assert layer.momentum == 0.99
    assert "call" not in vars(layer)


def test_deeper_layers_see_what_they_see_in_validation():
    model = made(MAPS, [*maps()[:3], layers.Conv2D(2, 2), layers.BatchNormalization(), layers.Flatten()])
    recompute(model, MAPS)
    inputs = np.asarray(keras.Model(model.inputs[0], batch_norm.layers(model)[1].input)(MAPS, training=False))
    mean, variance = batch_norm.read(model)[1]
    np.testing.assert_allclose(mean, inputs.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, inputs.var((0, 1, 2)), rtol=1e-3)


class InInferenceMode(layers.Layer):
    def __init__(self):
        super().__init__()
        self.normalisation = layers.BatchNormalization()

    def call(self, inputs):
        return self.normalisation(inputs, training=False)


def test_layers_that_are_not_trained_keep_theirs():
    stack = [layers.BatchNormalization(trainable=False), InInferenceMode(), layers.BatchNormalization()]
    model = made(MAPS, [*stack, layers.Flatten()])
    before = recompute(model, MAPS)
    same = [np.array_equal(a, b) for (a, _), (b, _) in zip(before, batch_norm.read(model), strict=True)]
    assert same == [True, True, False]


def test_random_layers_are_off_and_keep_their_state():
    model = made(MAPS, [layers.RandomFlip(seed=2), layers.Dropout(0.5, seed=1), *maps()])
    since = [(mean - 1, variance) for mean, variance in batch_norm.read(model)]
    states = [np.asarray(v) for v in model.non_trainable_variables if "seed" in v.path]
    batch_norm.recompute(model, MAPS, since, 0, 64)
    after = [np.asarray(v) for v in model.non_trainable_variables if "seed" in v.path]
    assert len(states) == 2
    np.testing.assert_array_equal(after, states)
    inputs = np.asarray(next(each for each in model.layers if hasattr(each, "kernel"))(MAPS))
    np.testing.assert_allclose(batch_norm.read(model)[0][0], inputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-4)


def trial_of(digits, folder, *overrides, epochs=2):
    settings = ["data=digits", "space=none", "model.blocks=1", "model.filters=4", "model.batch_norm=true"]
    config = compose([*settings, "training.batch_size=16", f"training.epochs={epochs}", *overrides])
    return TrialSpec(1, {}, config, 5, folder, digits, epochs)


def test_a_trial_validates_and_keeps_the_good_statistics(digits, tmp_path):
    trial, data = trial_of(digits, tmp_path, "training.learning_rate=0.01", epochs=3), open_saved(digits)
    reports, _ = run(train(trial))
    model = build_model(trial.config, data, trial.seed)
    checkpoint.load(trial.folder / "last.npz", model)
    assert validate(model, data, trial.config.training)["accuracy"] == reports[-1].metrics["val_accuracy"]
    kept = batch_norm.read(model)
    batch_norm.recompute(model, data.x_train, [(mean - 1, variance) for mean, variance in kept], 1, 60)
    for (mean, variance), (exact, spread) in zip(kept, batch_norm.read(model), strict=True):
        np.testing.assert_allclose(mean, exact, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, spread, rtol=1e-4)


def test_a_resumed_trial_gives_the_same_numbers(digits, tmp_path):
    augmented = ["data.augment.flip=true", "model.dropout=0.3"]
    straight, _ = run(train(trial_of(digits, tmp_path / "a", *augmented)))
    halves = trial_of(digits, tmp_path / "b", *augmented)
    run(train(replace(halves, epochs=1)))
    again, _ = run(train(replace(halves, initial_epoch=1)))
    names = ("loss", "val_loss", "val_accuracy")
    assert [again[0].metrics[name] for name in names] == [straight[1].metrics[name] for name in names]

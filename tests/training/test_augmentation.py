"""Random changes of images: each does something, resumes to the last digit, and is not in the way of a saved model."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from trials import straight_and_resumed

from cnnsweep.config.augment import COLOUR, MIXING, OF_KIND, Augment
from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.errors import UserError
from cnnsweep.search_space.problem import make_problem
from cnnsweep.training.augmentation import Labels, Mixer, augmentation, begin_epoch
from cnnsweep.training.building import build_model
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

STRENGTH = {"flip": "true", "mix_up": "0.4", "cut_mix": "1"}
CHANGES = [name for name in OF_KIND["image"] if name not in MIXING]


def overrides_of(names):
    return [f"data.augment.{name}={STRENGTH.get(name, '0.3')}" for name in names.split("+")]


@pytest.fixture(scope="module")
def colour_digits(tmp_path_factory):
    """Digits of three channels."""
    folder = tmp_path_factory.mktemp("colour")
    data = load(compose(["data=digits", "data.limit=60"]).data, 0)
    shades = np.array([1.0, 0.6, 0.2])
    arrays = {name: np.asarray(getattr(data, name) * shades, "float32") for name in ("x_train", "x_val", "x_test")}
    save(dataclasses.replace(data, **arrays), folder / "data")
    return folder / "data"


@pytest.mark.parametrize("name", CHANGES)
def test_each_changes_images_in_training_alone_and_loads_with_keras_alone(name, tmp_path):
    augment = Augment.off().replace(**{name: 0.9 if name == "erasing" else 0.3})
    images = np.random.default_rng(0).uniform(0, 255, (6, 9, 9, 3)).astype("float32")
    inputs = keras.Input((9, 9, 3))
    outputs = inputs
    for layer in augmentation(augment, 1, scale=1 / 255):
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    begin_epoch(model, 1, 1)
    changed = np.asarray(model(images, training=True))
    assert not np.allclose(changed, images)
    assert -1e-3 <= changed.min() <= changed.max() <= 255 + 1e-3
    np.testing.assert_allclose(np.asarray(model(images, training=False)), images, atol=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(np.asarray(loaded(images, training=False)), images, atol=1e-3)


@pytest.mark.parametrize("name", ["mix_up", "cut_mix"])
def test_mixtures_hold_two_images_in_the_shares_of_their_labels(name):
    mixer = Mixer(Augment.off().replace(**{name: 1.0}))
    mixer.begin(seed=3, epoch=1)
    labels = np.arange(40)
    images = np.broadcast_to(labels[:, None, None, None], (40, 12, 12, 1)).astype("float32")
    mixed, found = mixer.mix(images, labels)
    first, second, share, order = (np.asarray(part) for part in found)
    np.testing.assert_array_equal(order, second)
    assert sorted(second) == list(labels)
    expected = share * first + (1 - share) * second
    np.testing.assert_allclose(np.asarray(mixed).mean(axis=(1, 2, 3)), expected, atol=1e-3)
    assert 0 <= share.min() < 0.2 < 0.8 < share.max() <= 1
    mixer.begin(seed=3, epoch=1)
    np.testing.assert_array_equal(np.asarray(mixer.mix(images, labels)[0]), np.asarray(mixed))
    mixer.begin(seed=3, epoch=2)
    assert not np.array_equal(np.asarray(mixer.mix(images, labels)[0]), np.asarray(mixed))


def test_the_loss_of_a_mixture_is_that_of_the_mixed_labels(digits):
    config = compose(["data=digits", "space=none", "model.blocks=1", "model.filters=2", "data.augment.mix_up=0.4"])
    model = build_model(config, open_saved(digits), 5)
    predicted = np.random.default_rng(0).dirichlet(np.ones(10), 6).astype("float32")
    first, second, share = np.arange(6), np.arange(6)[::-1].copy(), np.linspace(0, 1, 6).astype("float32")
    one_hot = share[:, None] * np.eye(10)[first] + (1 - share[:, None]) * np.eye(10)[second]
    images = np.asarray(open_saved(digits).x_train[:6], "float32")
    mixed = Labels(first, second, share, order=second)
    loss = model.compute_loss(images, mixed, predicted)
    expected = keras.losses.CategoricalCrossentropy()(one_hot.astype("float32"), predicted)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    weights = 10 ** np.arange(6, dtype="float32")  # of the classes
    loss = model.compute_loss(images, mixed, predicted, weights)
    assert float(loss) == pytest.approx(-(one_hot * np.log(predicted)).sum(0)[:6] @ weights / 6, rel=1e-4)
    assert type(model).__name__.startswith("Mixing")
    saved = build_model(config, open_saved(digits), 5, for_training=False)
    assert type(saved).__module__.startswith("keras.")


CASES = [
    pytest.param("+".join(CHANGES), id="all-changes", marks=pytest.mark.slow),
    *(pytest.param(name, marks=pytest.mark.slow) for name in MIXING),
    "mix_up+cut_mix",
]


@pytest.mark.parametrize("name", CASES)
def test_a_trial_that_was_killed_goes_on_to_the_last_digit(colour_digits, tmp_path, name):
    settings = ["data=digits", "space=none", "model.blocks=1", "model.filters=2", "training.batch_size=20"]
    config = compose([*settings, "training.epochs=2", *overrides_of(name)])
    trial = TrialSpec(1, {}, config, 5, tmp_path / "a", colour_digits, 2)
    straight, resumed = straight_and_resumed(trial, train)
    assert straight == resumed


@pytest.mark.parametrize("how", ["fixed", "searched"])
def test_what_the_images_cannot_have_is_refused(how):
    for name in COLOUR:
        setting = f"data.augment.{name}=0.3" if how == "fixed" else f"space.data.augment.{name}.values=[0.0,0.3]"
        with pytest.raises(UserError, match=f"data.augment.{name}: "):
            make_problem(compose(["space=none", setting]), (28, 28, 1), 10)
    assert make_problem(compose(["space=none", "data.augment.hue=0.3"]), (28, 28, 3), 10)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("space.data.augment.flip.values=[true,false]", "data.augment: changes images without their masks"),
        ("space.data.augment=5", r"space.data.augment: expected .* got '5'"),
    ],
)
def test_a_searched_change_is_refused_as_one_that_is_set_is(setting, error):
    with pytest.raises(UserError, match=error):
        make_problem(compose(["task=segmentation", "model=unet", "space=none", setting]), (32, 32, 1), 3)


@pytest.mark.parametrize("loss", ["training.loss=tversky", "+space.training.loss.values=[auto,dice]"])
@pytest.mark.parametrize("mixing", ["data.augment.mix_up=0.2", "space.data.augment.cut_mix.values=[0.0,0.2]"])
def test_mixtures_need_a_loss_of_each_example(loss, mixing):
    with pytest.raises(UserError, match=r"data.augment.(mix_up|cut_mix): (tversky|dice) is one number for a batch"):
        make_problem(compose(["space=none", "task=multi_label", loss, mixing]), (8, 8, 1), 3)
    alone = "space.data.augment.cut_mix={values: [0.0, 0.2], when: {training.loss: [auto]}}"
    for allowed in (["data.augment.flip=true"], ["+space.training.loss.values=[auto,dice]", alone]):
        assert make_problem(compose(["space=none", "task=multi_label", *allowed]), (8, 8, 1), 3)


MIXED_ELSEWHERE = """
import sys
from pathlib import Path
from trials import straight_and_resumed
from cnnsweep.config.compose import compose
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

backend, data, folder, *cases = sys.argv[1:]
settings = ["data=digits", "space=none", "model.blocks=1", "model.filters=2", "training.batch_size=25"]
settings += ["training.epochs=2", "training.class_weights=balanced", f"backend={backend}"]
for number, case in enumerate(cases):
    spec = TrialSpec(1, {}, compose([*settings, *case.split()]), 5, Path(folder, str(number)), Path(data), 2)
    straight, resumed = straight_and_resumed(spec, train)
    assert straight == resumed, case
    print(straight[0]["loss"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_mixtures_on_other_backends_change_the_training_and_go_on_to_the_last_digit(colour_digits, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    cases = ["", *(" ".join(overrides_of(names)) for names in ("mix_up", "cut_mix", "mix_up+cut_mix"))]
    command = [sys.executable, "-c", MIXED_ELSEWHERE, backend, str(colour_digits), str(tmp_path), *cases]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len({*done.stdout.split()}) == len(cases)

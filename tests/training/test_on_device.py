"""Training with JAX where the examples are on the device: the same numbers as Keras' own loop, here on its CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cnnsweep.executors.process import ProcessExecutor
from cnnsweep.executors.worker import Setup, _environment

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")

TRAIN = """
import json
import sys
from pathlib import Path
from trials import run, straight_and_resumed
from cnnsweep.config.compose import compose
from cnnsweep.training import on_device
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

data, folder, *overrides = sys.argv[1:]
settings = ["data=digits", "space=none", "backend=jax", "model.blocks=1", "model.filters=4", "training.epochs=2"]
config = compose([*settings, "training.batch_size=20", "training.ema_momentum=0.9", *overrides])
spec = lambda name: TrialSpec(1, {}, config, 5, Path(folder, name), Path(data), 2)
print(json.dumps([report.metrics for report in run(train(spec("sent")))[0]]))
on_device.on_cpu, calls, once = lambda: False, [], on_device.run

def counted(model, examples, training):
    calls.append(training)
    found = once(model, examples, training)
    assert vars(model)["_training" if training else "_measuring"][2]._cache_size() == 1
    return found

on_device.run = counted
print(json.dumps([report.metrics for report in run(train(spec("held")))[0]]))
straight, resumed = straight_and_resumed(spec("straight"), train)
assert straight == resumed
assert calls.count(True) == calls.count(False) == 2 + 2 + 1, calls
"""
EVALUATE = """
import sys
from pathlib import Path
from cnnsweep.config.compose import compose
from cnnsweep.data.storage import open_saved
from cnnsweep.training.building import build_model
from cnnsweep.training.evaluate import write_model

config = compose(["data=digits", "space=none", "backend=jax", "model.blocks=1", "model.filters=4"])
data = open_saved(Path(sys.argv[1]))
write_model(Path(sys.argv[2]), build_model(config, data, 1), data, config.training)
"""
STATISTICS = """
import keras
import numpy as np
from keras import layers
from cnnsweep.training import batch_norm

rng = np.random.default_rng(0)
x = rng.normal(3, 2, (50, 6, 6, 2)).astype("float32")
normal, dense = layers.BatchNormalization(), layers.BatchNormalization()
model = keras.Sequential([layers.Input((6, 6, 2)), normal, layers.Conv2D(3, 2, use_bias=False), dense])
model.compile("sgd", "mse")
batch_norm.PIXELS = 20 * 36  # three batches, the last one smaller
for _ in range(2):  # the second is compiled before
    before = batch_norm.read(model)
    model.fit(x, np.zeros((50, 5, 5, 3)), batch_size=16, verbose=0)
    batch_norm.recompute(model, x, before, 0, 16)
    np.testing.assert_allclose(normal.moving_mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(normal.moving_variance, x.var((0, 1, 2)), rtol=1e-5)
    seen = np.asarray(keras.Model(model.inputs[0], dense.input)(x, training=False))
    np.testing.assert_allclose(dense.moving_mean, seen.mean((0, 1, 2)), rtol=2e-2, atol=2e-3)
"""
COMPILED_AGAIN = """
import keras
import numpy as np
from cnnsweep.training import on_device
from cnnsweep.training.targets import AS_THEY_ARE

x, y = np.ones((50, 3), "float32"), np.ones(50, "float32")
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
losses = []
for rate in (0.0, 0.5, 0.0):
    schedule = keras.optimizers.schedules.PolynomialDecay(rate, 10, rate)  # is compiled; a number is a variable
    model.compile(keras.optimizers.SGD(schedule), "mse")
    on_device.run(model, on_device.Examples(x, y, 50, None, AS_THEY_ARE), training=True)
    losses.append(on_device.run(model, on_device.Examples(x, y, 20, None, AS_THEY_ARE), training=False)["loss"])
np.testing.assert_allclose(losses, [1, 9, 9], rtol=1e-5)
"""


def with_jax(script, *arguments, **environment):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", **environment}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.batch_norm=true", "training.schedule=cosine"],
        [
            "model.dropout=0.3",
            "training.class_weights=balanced",
            "training.loss=categorical_crossentropy",
            "training.loss_settings={label_smoothing: 0.1}",
            "data.augment={zoom: 0.2, rand_augment: 0.1}",
        ],
    ],
    ids=["normalised", "dropout and weights"],
)
def test_a_trial_has_the_same_numbers_as_batch_by_batch_and_goes_on_with_them(digits, tmp_path, overrides):
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}  # every trial compiles the same
    sent, held = (json.loads(line) for line in with_jax(TRAIN, digits, tmp_path, *overrides, **kept).splitlines())
    assert len(sent) == len(held) == 2
    for one, other in zip(sent, held, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"epoch_seconds"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_statistics_are_those_of_the_training_images_when_compiled():
    with_jax(STATISTICS)


def test_a_model_that_is_compiled_again_trains_with_its_new_optimizer():
    with_jax(COMPILED_AGAIN)


def test_a_saved_model_requires_the_backend_that_it_was_trained_with(digits, tmp_path):
    with_jax(EVALUATE, digits, tmp_path)
    required = [line.split("==")[0] for line in (tmp_path / "mlflow_model/requirements.txt").read_text().split()]
    assert {"keras", "numpy", "jax"} <= {*required}
    assert "tensorflow" not in required


def test_flags_of_xla_that_the_user_sets_decide(monkeypatch):
    setup = Setup("jax", "GPU-1", shares_gpu=False, threads=None, log=os.devnull, forked=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true --other")
    assert _environment(setup)["XLA_FLAGS"].split()[-2:] == ["--xla_gpu_enable_triton_gemm=true", "--other"]
    monkeypatch.delenv("XLA_FLAGS")
    assert _environment(setup)["XLA_FLAGS"] == "--xla_gpu_enable_triton_gemm=false"
    assert "XLA_FLAGS" not in _environment(replace(setup, gpu=""))
    assert "XLA_FLAGS" not in _environment(replace(setup, backend="tensorflow"))


def test_what_is_compiled_for_a_gpu_is_kept_beside_the_log_until_the_sweep_ends(tmp_path):
    setup = Setup("jax", "GPU-1", shares_gpu=False, threads=None, log=str(tmp_path / "log.txt"), forked=False)
    folder = Path(_environment(setup)["JAX_COMPILATION_CACHE_DIR"])
    assert folder.parent == tmp_path
    assert "JAX_COMPILATION_CACHE_DIR" not in _environment(replace(setup, gpu=""))
    executor = ProcessExecutor("cpu", workers=1, backend="none", log=tmp_path / "log.txt")
    folder.mkdir()
    executor.close()
    assert not folder.exists()

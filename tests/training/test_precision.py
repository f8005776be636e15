"""Training in 16 bits: what stays in float32, resuming, saving, and what a device can do."""

from __future__ import annotations

import math
import time
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest
from trials import run

from cnnsweep.config.compose import compose
from cnnsweep.data.storage import open_saved
from cnnsweep.training import precision
from cnnsweep.training.building import build_model
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

NETWORK = [
    "data=digits",
    "space=none",
    "model.batch_norm=true",
    "model.blocks=2",
    "model.filters=8",
    "model.dropout=0.3",
]
XEON = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"
OLDER = "processor\t: 0\nflags\t\t: fpu avx2 fma\n"


def trial(digits, folder, policy, *overrides, epochs=2):
    config = compose([*NETWORK, f"training.precision={policy}", *overrides])
    return TrialSpec(1, {}, config, 5, folder, digits, epochs)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_trial_is_resumed_to_the_last_digit(digits, tmp_path, policy):
    whole = trial(digits, tmp_path / "whole", policy, "data.augment.shift=0.1")
    straight, _ = run(train(whole))
    halves = replace(whole, folder=tmp_path / "halves")
    run(train(replace(halves, epochs=1)))
    again, _ = run(train(replace(halves, initial_epoch=1)))
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert again[0].metrics[metric] == straight[1].metrics[metric]


def test_weights_statistics_and_classifier_stay_in_float32(digits, tmp_path):
    spec = trial(digits, tmp_path, "mixed_bfloat16")
    model = build_model(spec.config, open_saved(digits), spec.seed)
    assert {str(v.dtype) for v in [*model.trainable_variables, *model.optimizer.variables[2:]]} == {"float32"}
    assert model.get_layer("classifier").compute_dtype == "float32"
    assert model.get_layer("block2_conv").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_saved_model_is_made_of_keras_own_layers_and_predicts_the_same(digits, tmp_path, policy):
    spec = trial(digits, tmp_path, policy)
    reports, _ = run(train(spec))
    run(evaluate_best(FinalSpec(spec, tmp_path / "out")))
    with zipfile.ZipFile(tmp_path / "out" / "model.keras") as archive:
        assert "cnnsweep" not in archive.read("config.json").decode()
    model, data = keras.saving.load_model(tmp_path / "out" / "model.keras", safe_mode=True), open_saved(digits)
    right = model.predict(np.asarray(data.x_val), verbose=0).argmax(axis=1) == data.y_val
    best = max(report.metrics["val_accuracy"] for report in reports)
    assert right.mean() == pytest.approx(best, abs=1 / len(data.x_val) + 1e-6)


def test_a_loss_that_is_not_finite_in_16_bits_says_to_try_float32(digits, tmp_path):
    rate = ["training.learning_rate=1e30", "training.optimizer=sgd", "model.batch_norm=false"]
    _, result = run(train(trial(digits, tmp_path, "mixed_bfloat16", *rate)))
    assert result.status == "failed"
    assert "mixed_bfloat16 overflows where float32 may not: try training.precision=float32" in result.reason


@pytest.mark.parametrize(("text", "answer"), [(XEON, True), (ARM, True), (OLDER, False), ("", False)])
def test_the_processor_says_whether_it_computes_in_bfloat16(tmp_path, text, answer):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert precision.cpu_has_bfloat16(path) is answer
    assert precision.cpu_has_bfloat16(tmp_path / "none") is False


def test_a_device_is_measured_quickly(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    before = time.process_time()
    _, device = run(precision.examine(True))
    assert math.isfinite(device.speedup)
    assert device.chosen == ("mixed_bfloat16" if device.speedup >= precision.WORTH_IT else "float32")
    assert device.possible == ("float32", "mixed_bfloat16")
    assert time.process_time() - before < 10  # one convolution in emulation, at most


@pytest.mark.parametrize(
    ("capability", "possible"),
    [(7.5, ("float32", "mixed_float16")), (9.0, ("float32", "mixed_bfloat16", "mixed_float16"))],
)
def test_a_gpu_can_do_what_its_compute_capability_says_and_is_not_measured(monkeypatch, capability, possible):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)  # of the machine that the GPU is in
    monkeypatch.setattr(precision, "_device", lambda: ("a GPU", capability))
    monkeypatch.setattr(precision, "_seconds", {"float32": 3.0, "bfloat16": 1.0}.get)
    _, device = run(precision.examine(True))
    assert (device.possible, device.chosen, device.speedup) == (possible, "float32", 1.0)


def test_a_processor_that_is_fast_in_bfloat16_trains_in_it(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_seconds", {"float32": 3.0, "bfloat16": 1.0}.get)
    _, device = run(precision.examine(True))
    assert (device.chosen, device.speedup) == ("mixed_bfloat16", 3.0)

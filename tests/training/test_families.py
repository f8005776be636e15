"""What holds for every model family: a trial goes on as if it had not been killed, and its export takes raw inputs."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import small_sources
from trials import prepared, run, straight_and_resumed

from cnnsweep.config import shipped
from cnnsweep.export.examples import example_of
from cnnsweep.export.predict import predict
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec

pytest.importorskip("av")
pytest.importorskip("soundfile")


@dataclass(frozen=True)
class Case:
    """The smallest network of a family, and data that it takes."""

    source: str
    settings: tuple[str, ...]
    argument: str | None = None
    """An input for `predict`: a file below the data's folder, or a text."""


BLOCKS = ("model.blocks=1", "model.filters=2", "model.batch_norm=true", "model.dropout=0.2")
CASES = {
    "cnn1d": Case("audio_folder", (*BLOCKS, "model.representation=spectrogram", "model.axes=2", "model.frame=64",
                                   "model.step=32"), "high/3.wav"),
    "cnn3d": Case("video_folder", (*BLOCKS, "model.kernel_size=2"), "darker/file.mkv"),
    "cnn_rnn": Case("npz", (*BLOCKS, "model.recurrent_units=3", "model.bidirectional=true")),
    "text_cnn": Case("text_csv", ("model.embedding=4", "model.filters=2", "model.kernel_size=1"), "a great plot"),
    "transfer_rnn": Case("video_folder", ("model.backbone=MobileNet", "model.weights=none", "model.input_size=32",
                                          "model.cut=conv_pw_1_relu", "model.recurrent_units=3"), "darker/2"),
}  # fmt: skip
ELSEWHERE = {"cnn", "resnet", "unet", "transfer", "function", "keras_tuner", "none"}
"""Families whose crashes and exports other tests have."""


def test_every_family_has_a_case():
    assert {*CASES} == {path.stem for path in (shipped() / "model").glob("[!_]*.yaml")} - ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("family", CASES)
def test_a_trial_is_resumed_to_the_last_digit_and_its_export_takes_raw_inputs(family, tmp_path, monkeypatch):
    import keras
    import mlflow.pyfunc

    case = CASES[family]
    fixed = ("training.epochs=2", "training.batch_size=8", "training.precision=float32", f"model={family}")
    config, data = small_sources.loaded(tmp_path, case.source, *fixed, *case.settings)
    trial = TrialSpec(1, {}, config, 5, tmp_path / "trial", tmp_path / "data", 2)
    straight, resumed = straight_and_resumed(prepared(trial) if config.model.prepare else trial, train)
    assert straight == resumed

    model = tmp_path / "model"
    measured = run(evaluate_best(FinalSpec(trial, model)))[1]["metrics"]
    loaded = keras.models.load_model(model / "model.keras", safe_mode=True)
    outputs = np.asarray(loaded(np.asarray(data.x_test, "int32" if data.kind == "text" else "float32")))
    assert np.mean(outputs.argmax(axis=1) == data.y_test) == pytest.approx(measured["test_accuracy"])
    if case.argument is None:
        return
    file = tmp_path / "files" / case.argument
    argument = str(file) if file.exists() else case.argument
    ((_, ((name, probability), *_)),) = predict(model, [argument])
    if data.kind == "text":
        served = mlflow.pyfunc.load_model(str(model / "mlflow_model")).predict([argument, "a dull plot"])
        assert served[0].max() == pytest.approx(probability, abs=1e-5)
    example = example_of(data)
    example.write(model)
    assert not any(
        "cnnsweep" in (model / module.name).read_text().partition('"""\n\n')[2] for module in example.modules
    )
    arguments = [argument]
    if data.kind == "text":
        (tmp_path / "sentence.txt").write_text(argument)
        arguments.append(str(tmp_path / "sentence.txt"))
    monkeypatch.setattr(sys, "argv", ["example.py", "", *arguments])
    monkeypatch.syspath_prepend(str(model))
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(model / "example.py"))
    assert printed.getvalue().splitlines() == [f"{each}: {name} {probability:.4f}" for each in arguments]

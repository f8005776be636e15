"""Training of a trial: images larger than memory, and fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trials import run, spec

from cnnsweep.config.compose import compose
from cnnsweep.data.storage import open_saved
from cnnsweep.training import train as training
from cnnsweep.training.train import build_model, train
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
        pairs = [(v, last[f"model/{i}"]) for i, v in enumerate(before.variables) if id(v) in own]
    changed = {own[id(v)].split("/")[0] for v, after in pairs if not np.array_equal(np.asarray(v), after)}
    assert changed == {"conv_dw_3", "conv_pw_3"}
    halves = replace(straight, folder=tmp_path / "halves")
    run(train(replace(halves, epochs=3)))
    again, _ = run(train(replace(halves, initial_epoch=3)))
    assert [r.metrics["val_loss"] for r in again] == [reports[3].metrics["val_loss"]]

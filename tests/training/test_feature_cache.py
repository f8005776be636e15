"""Features that are computed once: the same results as without, one worker for all trials, kept for later sweeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trials import SMALL, prepared, run, spec

from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load, save
from cnnsweep.data.storage import open_saved
from cnnsweep.errors import UserError
from cnnsweep.plan import feature_forecast
from cnnsweep.plan import plan as planning
from cnnsweep.search_space.problem import make_problem
from cnnsweep.sweep import session
from cnnsweep.training import feature_cache
from cnnsweep.training.building import build_model
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.feature_cache import prepare
from cnnsweep.training.train import train
from cnnsweep.trial import TrialSpec


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_a_head_on_features_is_trained_like_the_whole_network(digits, tmp_path, pooling):
    trial = spec(digits, tmp_path, f"model.pooling={pooling}", "model.dropout=0.3")
    head = prepared(trial)
    whole = spec(digits, tmp_path, f"model.pooling={pooling}", "model.dropout=0.3", "model.cache=null")
    assert prepare(whole) is whole
    (fast, short), (slow, full) = run(train(head)), run(train(replace(whole, folder=tmp_path / "b")))
    for a, b in zip(fast, slow, strict=True):
        for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert a.metrics[metric] == pytest.approx(b.metrics[metric], rel=1e-4)
    assert short.summary["parameters"] == full.summary["parameters"]
    final = [
        run(evaluate_best(FinalSpec(s, s.folder / "best")))[1]["metrics"]
        for s in (trial, replace(whole, folder=tmp_path / "b"))
    ]
    assert final[0] == pytest.approx(final[1], rel=1e-4)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_are_what_the_whole_network_makes_of_the_images(digits, tmp_path, pooling):
    import keras

    trial = spec(digits, tmp_path, f"model.pooling={pooling}")
    found, data = open_saved(prepared(trial).data), open_saved(digits)
    whole = build_model(trial.config, data, trial.seed)
    upto = keras.Model(whole.input, whole.get_layer(f"{pooling}_pooling").output)
    for split in ("train", "val"):
        expected = np.asarray(upto(np.asarray(getattr(data, f"x_{split}"), "float32")))
        assert expected.std(axis=0).max() > 0.1 * expected.mean()  # images differ in their features
        np.testing.assert_allclose(getattr(found, f"x_{split}"), expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_exported_model_takes_images(digits, tmp_path):
    import keras

    trial = spec(digits, tmp_path)
    run(train(prepared(trial)))
    output = tmp_path / "best"
    evaluated = run(evaluate_best(FinalSpec(trial, output)))[1]
    data = open_saved(digits)
    found = keras.models.load_model(output / "model.keras")(np.asarray(data.x_test, "float32"))
    right = float(np.mean(np.argmax(np.asarray(found), axis=1) == data.y_test))
    assert right == pytest.approx(evaluated["metrics"]["test_accuracy"])
    layers = [layer.name for layer in keras.models.load_model(output / "model.keras").layers]
    assert {"resize", "grey_to_rgb", "preprocessing", "backbone", "average_pooling"} < set(layers)
    assert layers[-1] == "head"


def test_features_are_mapped_without_test_images_and_computed_again_where_missing(digits, tmp_path):
    trial = spec(digits, tmp_path)
    ready = prepared(trial)
    found, data = open_saved(ready.data), open_saved(digits)
    assert found.x_train.shape == (len(data.x_train), 1, 1, 128)
    assert isinstance(found.x_train, np.memmap)
    assert len(found.x_test) == 0
    np.testing.assert_array_equal(found.y_val, data.y_val)
    assert not list((tmp_path / "cache" / "features").glob("*/.*"))
    expected = found.x_val.copy()
    (ready.data / "x_val.npy").unlink()
    np.testing.assert_array_equal(open_saved(prepared(trial).data).x_val, expected)


def test_what_the_key_depends_on(digits, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"one")
    (tmp_path / "b.h5").write_bytes(b"two")
    (tmp_path / "c.h5").write_bytes(b"one")

    def folder(*overrides: str, side: int = 8, **changes: Any) -> str:
        config = spec(digits, tmp_path, *overrides).config
        data = replace(open_saved(digits), x_train=np.zeros((1, side, side, 1)), **changes)
        return feature_cache.feature_folder(config, data).parent.name

    same = [folder(), folder("model.dropout=0.5", "training.learning_rate=0.5"), folder("model.pooling=max")]
    same += [folder(side=9), folder("seed=3")]
    assert len(set(same)) == 1
    weights = [folder(f"model.weights={tmp_path / name}.h5") for name in "abc"]
    assert weights[0] == weights[2] != weights[1]
    others = [folder("model.cut=null"), folder("model.input_size=48"), folder("model.backbone=VGG16")]
    others += [folder(digest="1" * 16), folder(scale=1.0), folder("backend=jax")]
    others += [folder(task="regression"), folder(class_names=("a", "b"))]
    assert folder("model.weights=imagenet") == folder("model.weights=imagenet", "backend=torch")
    others += [folder("model.weights=imagenet")]
    assert len({*same, *weights, *others}) == 12


def test_the_same_arrays_may_be_labels_or_numbers(tmp_path):
    x, y = np.zeros((12, 8, 8, 1), np.uint8), np.tile(np.eye(2, dtype=np.float32), (6, 1))
    parts = {f"{a}_{split}": v for split in ("train", "val", "test") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "both.npz", **{**parts, "x_test": x + 1})
    heads = {}
    for task in ("multi_label", "regression"):
        config = compose(
            [*SMALL, "data=npz", f"data.file={tmp_path / 'both.npz'}", f"model.cache={tmp_path}", f"task={task}"]
        )
        save(load(config.data, 0, task), tmp_path / task)
        ready = prepared(TrialSpec(1, {}, config, 5, tmp_path / "trial", tmp_path / task, 2))
        heads[task] = open_saved(ready.data).task
    assert heads == {"multi_label": "multi_label", "regression": "regression"}


@pytest.mark.parametrize(
    "override", ["training.unfreeze=0.5", "data.augment.flip=true", "data.augment.zoom=0.1", "model.cache=null"]
)
def test_trials_that_change_the_backbone_or_the_images_run_whole(digits, tmp_path, override):
    trial = spec(digits, tmp_path, override)
    assert prepare(trial) is trial


def test_a_plan_says_what_is_cached_and_what_it_takes_on_disk(digits, tmp_path):
    data = open_saved(digits)
    searched = "space.model.pooling={values: [average, flatten]}"
    trial = spec(digits, tmp_path, searched)
    before = feature_forecast.forecast(trial.config, data)
    images = len(data.x_train) + len(data.x_val)
    assert before.all_cached
    assert before.bytes == 4 * images * (128 + 8 * 8 * 128)
    (line,) = before.describe()
    assert line == "MobileNet at conv_pw_3_relu: features computed once, 2.0 MB on disk, used by all its trials"
    folder = prepared(trial).data
    after = feature_forecast.forecast(trial.config, data)
    assert after.bytes == 0
    assert "features on disk already" in after.describe()[0]
    written = sum((folder.parent / kind / "x_train.npy").stat().st_size for kind in ("average", "flatten"))
    assert written == pytest.approx(before.bytes * len(data.x_train) / images, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "lines", "cached"),
    [
        (["data.augment.flip=true"], ["MobileNet at conv_pw_3_relu: every image through the whole network"], False),
        (["training.unfreeze=1 block"], ["MobileNet at conv_pw_3_relu, unfreezing 1 block: every image"], False),
        (["space.data.augment.flip={values: [false, true]}"], ["used by trials without augmentation"], False),
        (["space.data.augment.zoom={min: 0.1, max: 0.3}"], ["every image through the whole network"], False),
        (["space.model.cut={values: [conv_pw_2_relu, conv_pw_3_relu]}"], ["conv_pw_2_relu: features", "3_relu"], True),
    ],
)
def test_a_plan_says_which_trials_use_features(digits, tmp_path, overrides, lines, cached):
    found = feature_forecast.forecast(spec(digits, tmp_path, *overrides).config, open_saved(digits))
    assert found.all_cached == cached
    for part, line in zip(lines, found.describe(), strict=True):
        assert part in line


def test_limits_that_cannot_be_kept_are_refused():
    with pytest.raises(
        UserError, match=r"limits\.parameters: 100,000 cannot be kept.*MobileNet.*limits\.parameters=null"
    ):
        make_problem(compose([*SMALL, "data=digits", "limits.parameters=100k"]), (8, 8, 1), 10)


@pytest.mark.slow
def test_a_plan_of_a_transfer_sweep_measures_heads_and_backbone(tmp_path):
    settings = [*SMALL[:1], *SMALL[2:], "data=digits", "data.limit=200", "space=transfer", "budget.trials=4"]
    settings += [f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=1", "training.epochs=3", "search=random"]
    report = planning.plan(compose(settings), session.Watcher())
    assert report.search.epochs == 12
    assert report.features.seconds > 0
    assert report.features.mb == pytest.approx(2 * 4 * 128 * 200 / 1e6)
    assert report.forecast.seconds > report.features.seconds
    assert not (tmp_path / "mlruns" / "cache" / "features").exists()


def test_features_are_computed_a_batch_at_a_time(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "BATCH", 4)
    made, seen = feature_cache.make_network, []

    def watched(*arguments: Any) -> Any:
        network = made(*arguments)
        monkeypatch.setattr(network, "predict_on_batch", lambda x: (seen.append(len(x)), network(x))[1])
        return network

    monkeypatch.setattr(feature_cache, "make_network", watched)
    found, data = open_saved(prepared(spec(digits, tmp_path)).data), open_saved(digits)
    assert max(seen) == 4
    assert sum(seen) == len(data.x_train) + len(data.x_val) == len(found.x_train) + len(found.x_val)

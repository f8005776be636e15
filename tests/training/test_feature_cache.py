"""Features that are computed once: the same result as without, one worker for all trials, kept for later sweeps."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnsweep.config.compose import compose
from cnnsweep.data import loading as datasets
from cnnsweep.data.image_decoding import decode
from cnnsweep.data.loading import open_saved, save
from cnnsweep.executors.base import Event
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.executors.shared_work import Preparing
from cnnsweep.plan import feature_forecast as feature_plan
from cnnsweep.sweep import session
from cnnsweep.training import feature_cache as features
from cnnsweep.training import train as training
from cnnsweep.training.evaluate import FinalSpec, evaluate_best
from cnnsweep.training.train import train
from cnnsweep.trial import Step, TrialSpec

SMALL = [
    "model=transfer",
    "space=none",
    "model.backbone=MobileNet",
    "model.cut=conv_pw_3_relu",
    "model.weights=none",
    "model.input_size=32",
    "model.dense_units=8",
    "training.epochs=2",
    "training.batch_size=16",
]


def run(job: Generator[Any, bool, Any]) -> tuple[list[Any], Any]:
    """All reports of a job, each answered with yes, and its result."""
    reports = []
    try:
        report = next(job)
        while True:
            reports.append(report)
            report = job.send(True)
    except StopIteration as end:
        return reports, end.value


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder of a small data set."""
    folder = tmp_path_factory.mktemp("digits") / "data"
    config = compose(["data=digits", "data.limit=60"])
    save(datasets.load(config["data"], 0), folder)
    return folder


def spec(digits: Path, tmp_path: Path, *overrides: str, **changes: Any) -> TrialSpec:
    config = compose([*SMALL, "data=digits", f"model.cache={tmp_path / 'cache'}", *overrides])
    settings = {"number": 1, "values": {}, "config": config, "seed": 5, "folder": tmp_path / "trial", "data": digits}
    return TrialSpec(**{**settings, "epochs": 2, **changes})


def prepared(trial: TrialSpec) -> TrialSpec:
    step = features.prepare(trial)
    assert isinstance(step, Step)
    run(step.job(step.argument))
    ready = features.prepare(trial)
    assert isinstance(ready, TrialSpec)
    return ready


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_a_head_on_features_is_trained_like_the_whole_network(digits, tmp_path, pooling):
    trial = spec(digits, tmp_path, f"model.pooling={pooling}", "model.dropout=0.3")
    head = prepared(trial)
    whole = spec(digits, tmp_path, f"model.pooling={pooling}", "model.dropout=0.3", "model.cache=null")
    assert features.prepare(whole) is whole
    (fast, short), (slow, full) = run(train(head)), run(train(TrialSpec(**{**vars(whole), "folder": tmp_path / "b"})))
    for a, b in zip(fast, slow, strict=True):
        for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert a.metrics[metric] == pytest.approx(b.metrics[metric], rel=1e-4)
    assert short.summary["parameters"] == full.summary["parameters"]
    final = [
        run(evaluate_best(FinalSpec(1, s.config, s.seed, s.folder, digits, s.folder / "best")))[1]["metrics"]
        for s in (trial, TrialSpec(**{**vars(whole), "folder": tmp_path / "b"}))
    ]
    assert final[0] == pytest.approx(final[1], rel=1e-4)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_are_what_the_whole_network_makes_of_the_images(digits, tmp_path, pooling):
    import keras

    trial = spec(digits, tmp_path, f"model.pooling={pooling}")
    found, data = open_saved(prepared(trial).data), open_saved(digits)
    whole = training.build_model(trial.config, data, trial.seed)
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
    told = run(evaluate_best(FinalSpec(1, trial.config, trial.seed, trial.folder, digits, output)))[1]
    data = open_saved(digits)
    found = keras.models.load_model(output / "model.keras")(np.asarray(data.x_test, "float32"))
    right = float(np.mean(np.argmax(np.asarray(found), axis=1) == data.y_test))
    assert right == pytest.approx(told["metrics"]["test_accuracy"])
    layers = [layer.name for layer in keras.models.load_model(output / "model.keras").layers]
    assert {"resize", "grey_to_rgb", "preprocessing", "backbone", "average_pooling"} < set(layers)
    assert layers[-1] == "head"


def test_features_are_mapped_and_leave_the_test_images_alone(digits, tmp_path):
    ready = prepared(spec(digits, tmp_path))
    found, data = open_saved(ready.data), open_saved(digits)
    assert found.x_train.shape == (len(data.x_train), 1, 1, 128)
    assert isinstance(found.x_train, np.memmap)
    assert len(found.x_test) == 0
    np.testing.assert_array_equal(found.y_val, data.y_val)
    assert not list((tmp_path / "cache" / "features").glob("*/.*"))


def test_what_the_key_depends_on(digits, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"one")
    (tmp_path / "b.h5").write_bytes(b"two")
    (tmp_path / "c.h5").write_bytes(b"one")
    facts = {"digest": "0" * 16, "scale": 1 / 255}

    def folder(*overrides: str, shape: tuple[int, ...] = (8, 8, 1), **changes: Any) -> str:
        config = spec(digits, tmp_path, *overrides).config
        return features.feature_folder(config, {**facts, **changes}, shape).parent.name

    same = [folder(), folder("model.dropout=0.5", "training.learning_rate=0.5"), folder("model.pooling=max")]
    same += [folder(shape=(9, 9, 1)), folder("seed=3")]
    assert len(set(same)) == 1
    weights = [folder(f"model.weights={tmp_path / name}.h5") for name in "abc"]
    assert weights[0] == weights[2] != weights[1]
    others = [folder("model.cut=null"), folder("model.input_size=48"), folder("model.backbone=VGG16")]
    others += [folder(digest="1" * 16), folder(scale=1.0), folder("model.weights=imagenet")]
    assert len({*same, *weights, *others}) == 9


@pytest.mark.parametrize(
    "override", ["training.unfreeze=0.5", "data.augment.flip=true", "data.augment.zoom=0.1", "model.cache=null"]
)
def test_trials_that_change_the_backbone_or_the_images_run_whole(digits, tmp_path, override):
    trial = spec(digits, tmp_path, override)
    assert features.prepare(trial) is trial


def test_a_plan_says_what_is_cached_and_what_it_takes_on_disk(digits, tmp_path):
    data = open_saved(digits)
    searched = "space.model.pooling={values: [average, flatten]}"
    trial = spec(digits, tmp_path, searched)
    before = feature_plan.forecast(trial.config, data)
    images = len(data.x_train) + len(data.x_val)
    assert before.all_cached
    assert before.bytes == 4 * images * (128 + 8 * 8 * 128)
    (line,) = before.describe()
    assert line == "MobileNet at conv_pw_3_relu: features computed once, 2.0 MB on disk, used by all its trials"
    folder = prepared(trial).data
    after = feature_plan.forecast(trial.config, data)
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
        (
            ["space.model.cut={values: [conv_pw_2_relu, conv_pw_3_relu]}"],
            ["at conv_pw_2_relu: features", "3_relu"],
            True,
        ),
    ],
)
def test_a_plan_says_which_trials_use_features(digits, tmp_path, overrides, lines, cached):
    told = feature_plan.forecast(spec(digits, tmp_path, *overrides).config, open_saved(digits))
    assert told.all_cached == cached
    for part, line in zip(lines, told.describe(), strict=True):
        assert part in line


def test_limits_that_cannot_be_kept_are_refused():
    from cnnsweep.errors import UserError
    from cnnsweep.search_space.problem import pose

    with pytest.raises(
        UserError, match=r"limits\.parameters: 100,000 cannot be kept.*MobileNet.*limits\.parameters=null"
    ):
        pose(compose([*SMALL, "data=digits", "limits.parameters=100k"]), (8, 8, 1), 10)


@pytest.mark.slow
def test_a_plan_of_a_transfer_sweep_measures_heads_and_backbone(tmp_path):
    from cnnsweep.plan import plan as planning

    settings = [*SMALL[:1], *SMALL[2:], "data=digits", "data.limit=200", "space=transfer", "budget.trials=4"]
    settings += [f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=1", "training.epochs=3"]
    settings += ["training.unfreeze_epochs=9"]
    report = planning.plan(compose(settings), Lines())
    assert report["search"]["epochs"] == 12
    assert report["features"]["seconds"] > 0
    assert report["features"]["mb"] == pytest.approx(2 * 4 * 128 * 200 / 1e6)
    assert report["forecast"]["seconds"] > report["features"]["seconds"]
    assert not (tmp_path / "mlruns" / "cache" / "features").exists()


def test_features_are_computed_a_batch_at_a_time(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BATCH", 4)
    made, seen = features.make_network, []

    def watched(*arguments: Any) -> Any:
        network = made(*arguments)
        monkeypatch.setattr(network, "predict_on_batch", lambda x: (seen.append(len(x)), network(x))[1])
        return network

    monkeypatch.setattr(features, "make_network", watched)
    found, data = open_saved(prepared(spec(digits, tmp_path)).data), open_saved(digits)
    assert max(seen) == 4
    assert sum(seen) == len(data.x_train) + len(data.x_val) == len(found.x_train) + len(found.x_val)


def test_images_that_fill_the_memory_are_read_batch_by_batch_for_the_same_numbers(digits, tmp_path, monkeypatch):
    config = compose(["data=digits", "space=none", "model.blocks=1", "training.epochs=1", "training.batch_size=20"])
    trial = TrialSpec(1, {}, config, 5, tmp_path / "a", digits, 1)
    whole = run(train(trial))[0]
    monkeypatch.setattr(training, "IN_MEMORY", 1000)
    x = open_saved(digits).x_train
    batches = training.batched(x, open_saved(digits).y_train, 20, np.arange(len(x)))["x"]
    assert [len(batches[i][0]) for i in range(len(batches))] == [20, 20, 8]
    piecewise = run(train(TrialSpec(**{**vars(trial), "folder": tmp_path / "b"})))[0]
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert piecewise[0].metrics[metric] == pytest.approx(whole[0].metrics[metric], rel=1e-5)


# Fine-tuning


@pytest.mark.slow
def test_fine_tuning_trains_what_it_names_at_its_own_rate_and_can_be_resumed(digits, tmp_path):
    from cnnsweep.training.train import build_model

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
    halves = TrialSpec(**{**vars(straight), "folder": tmp_path / "halves"})
    run(train(TrialSpec(**{**vars(halves), "epochs": 3})))
    again, _ = run(train(TrialSpec(**{**vars(halves), "initial_epoch": 3})))
    assert [r.metrics["val_loss"] for r in again] == [reports[3].metrics["val_loss"]]


# One worker for all trials


class Slots:
    """An executor of two workers whose jobs are stepped by hand."""

    def __init__(self) -> None:
        self.workers = ("a", "b")
        self.jobs: dict[str, tuple[Any, Any]] = {}
        self.events: list[Event] = []

    def submit(self, worker: str, job: Any, argument: Any) -> None:
        assert worker not in self.jobs
        self.jobs[worker] = (job, argument)

    def end(self, worker: str, kind: Any, value: Any) -> None:
        del self.jobs[worker]
        self.events.append(Event(worker, kind, value))

    def wait(self, timeout: float | None = None) -> Event | None:
        return self.events.pop(0) if self.events else None

    def kill(self, worker: str, reason: str) -> None:
        self.end(worker, "lost", reason)

    def close(self) -> None:
        """Nothing runs."""


def trial_of(number: int, needs: str) -> TrialSpec:
    return TrialSpec(number, {}, {"needs": needs}, 0, Path(), Path(), 1)


def preparing() -> tuple[Slots, Preparing, set[str], list[str]]:
    workers, there, said = Slots(), set(), []

    def prepare(trial: TrialSpec) -> Step | TrialSpec:
        needs = trial.config["needs"]
        return trial if needs in there else Step(needs, compute, needs)

    made = Preparing(workers, prepare)
    made.say = said.append
    return workers, made, there, said


def compute(_: Any) -> None:
    """Stands for the shared work."""


def job(_: Any) -> None:
    """Stands for a trial."""


def test_shared_work_is_done_by_one_while_others_wait():
    workers, executor, there, said = preparing()
    executor.submit("a", job, trial_of(1, "x"))
    executor.submit("b", job, trial_of(2, "x"))
    assert workers.jobs == {"a": (compute, "x")}
    assert executor.notes.keys() == {"a", "b"}
    answers: list[bool] = []
    workers.events.append(Event("a", "report", "half", answers.append))
    assert executor.wait(0) is None
    assert executor.notes["a"] == "half"
    assert answers == [True]
    there.add("x")
    workers.end("a", "result", "done")
    assert executor.wait(0) is None
    assert said == ["done"]
    assert workers.jobs == {"a": (job, trial_of(1, "x")), "b": (job, trial_of(2, "x"))}
    assert not executor.notes
    workers.end("b", "result", 7)
    assert executor.wait(0) == Event("b", "result", 7)


def test_different_work_is_done_side_by_side():
    workers, executor, _, _ = preparing()
    executor.submit("a", job, trial_of(1, "x"))
    executor.submit("b", job, trial_of(2, "y"))
    assert workers.jobs == {"a": (compute, "x"), "b": (compute, "y")}


def test_work_that_fails_costs_the_trials_that_wait_for_it():
    workers, executor, _, _ = preparing()
    executor.submit("a", job, trial_of(1, "x"))
    executor.submit("b", job, trial_of(2, "x"))
    workers.end("a", "lost", "out of memory")
    lost = [executor.wait(0), executor.wait(0)]
    assert {(e.worker, e.kind, e.value) for e in lost if e} == {(s, "lost", "out of memory") for s in "ab"}
    executor.submit("b", job, trial_of(3, "x"))
    assert workers.jobs == {"b": (compute, "x")}


def test_a_trial_that_is_killed_leaves_its_work_to_another():
    workers, executor, _, _ = preparing()
    executor.submit("a", job, trial_of(1, "x"))
    executor.submit("b", job, trial_of(2, "x"))
    executor.kill("a", "too slow")
    assert executor.wait(0) == Event("a", "lost", "too slow")
    assert workers.jobs == {"b": (compute, "x")}


def test_what_is_no_trial_passes_through():
    executor = Preparing(InlineExecutor(), features.prepare)
    executor.submit("inline", _echo, 3)
    assert executor.wait() == Event("inline", "result", 3)
    executor.close()


def _echo(value: int) -> Generator[None, bool, int]:
    return value
    yield


# Whole sweeps


class Lines(session.Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def photographs(root: Path, size: int = 80) -> Path:
    """Noise on red or blue, in the usual folders."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 12, "val": 6, "test": 4}.items():
        for name, channel in {"red": 0, "blue": 2}.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (size, size, 3)).astype("uint8")
                pixels[..., channel] += 130
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


@pytest.mark.slow
def test_inception_v3_is_trained_on_a_folder_with_weights_from_a_file(tmp_path):
    import keras

    folder = photographs(tmp_path / "colours")
    source = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))
    source.save_weights(tmp_path / "inception.weights.h5")
    settings = ["+sweep=transfer", f"data.dir={folder}", f"model.weights={tmp_path / 'inception.weights.h5'}"]
    settings += ["model.input_size=75", "data.image_size=80", "training.epochs=6", "budget.trials=3"]
    settings += [
        "space.model.pooling={values: [average, max]}",
        f"tracking.dir={tmp_path / 'mlruns'}",
        "executor.workers=2",
    ]
    first = Lines()
    outcome = session.start(compose(settings), first)
    assert outcome.status == "completed"
    assert len(outcome.ledger.with_status("completed")) == 3
    # Random weights tell colours apart no better than chance: that training ran to its end is all there is to see.
    assert [len(entry.curve) for entry in outcome.ledger.entries.values()] == [6, 6, 6]
    assert outcome.ledger.final["images"] == 8
    assert len([line for line in first.said if line.startswith("features of InceptionV3: 36 images")]) == 1
    loaded = keras.models.load_model(outcome.folder / "best" / "model.keras")
    assert loaded.input_shape == (None, 80, 80, 3)
    assert loaded.count_params() > 21_000_000
    again = Lines()
    later = session.start(compose([*settings, "seed=0", "budget.trials=1"]), again)
    assert later.status == "completed"
    assert not [line for line in again.said if line.startswith("features of")]


@pytest.mark.slow
def test_backbones_and_cuts_are_searched_and_the_winner_takes_files_as_they_are(tmp_path):
    import keras

    folder = photographs(tmp_path / "colours", 40)
    settings = ["model=transfer", "data=image_folder", f"data.dir={folder}", "data.image_size=32", "space=none"]
    settings += ["space.model.backbone={values: [MobileNet, VGG16]}", "model.weights=none", "model.input_size=null"]
    settings += ["space.model.cut={values: [conv_pw_1_relu, conv_pw_2_relu], when: {model.backbone: [MobileNet]}}"]
    settings += ["training.epochs=2", "search=grid", f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=2"]
    said = Lines()
    outcome = session.start(compose(settings), said)
    entries = outcome.ledger.entries.values()
    assert [entry.status for entry in entries] == ["completed"] * 3
    assert {(e.values["model.backbone"], e.values.get("model.cut")) for e in entries} == {
        ("MobileNet", "conv_pw_1_relu"),
        ("MobileNet", "conv_pw_2_relu"),
        ("VGG16", None),
    }
    assert len([line for line in said.said if line.startswith("features of ")]) == 3
    pixels = [decode(p.read_bytes(), (32, 32), "rgb", "crop") for p in sorted((folder / "test").rglob("*.jpg"))]
    model = keras.models.load_model(outcome.folder / "best" / "model.keras")
    found = np.asarray(model.predict(np.stack(pixels), verbose=0))  # bytes, as they come from a file
    assert found.shape == (8, 2)
    right = float(np.mean(np.argmax(found, axis=1) == np.repeat([0, 1], 4)))
    assert right == pytest.approx(outcome.ledger.final["metrics"]["test_accuracy"])


@pytest.mark.slow
def test_fine_tuning_and_augmentation_in_a_sweep(tmp_path):
    folder = photographs(tmp_path / "colours", 40)
    settings = ["+sweep=transfer", f"data.dir={folder}", *SMALL[2:], "space=none", "data.image_size=40"]
    settings += ["data.augment.flip=true", "data.augment.rotation=0.1", "training.unfreeze=2 blocks"]
    settings += ["training.unfreeze_epochs=2", f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=1"]
    outcome = session.start(compose(settings), Lines())
    (entry,) = outcome.ledger.entries.values()
    assert (entry.status, len(entry.curve)) == ("completed", 4)
    assert entry.curve[-1]["learning_rate"] == pytest.approx(1e-5)
    assert not (tmp_path / "mlruns" / "cache" / "features").exists()


@pytest.mark.slow
def test_faults_of_the_network_end_the_sweep_before_its_first_trial(tmp_path):
    from cnnsweep.errors import UserError

    settings = [*SMALL, "data=digits", "model.cut=conv_pw_3_rel", f"tracking.dir={tmp_path / 'mlruns'}"]
    with pytest.raises(UserError, match="did you mean 'conv_pw_3_relu'"):
        session.start(compose(settings), Lines())
    assert not list((tmp_path / "mlruns").glob("sweeps/*"))


INSECTS = Path(os.environ.get("CNNSWEEP_DATA_DIR", "../shared/data"))


@pytest.mark.slow
@pytest.mark.skipif(not (INSECTS / "ants-bees").is_dir(), reason="needs ants-bees/ and weights/ in CNNSWEEP_DATA_DIR")
def test_real_weights_tell_ants_from_bees(tmp_path):
    weights = next((INSECTS / "weights").glob("mobilenet*.h5")).absolute()
    settings = ["+sweep=transfer", f"data.dir={(INSECTS / 'ants-bees').absolute()}", "model.backbone=MobileNet"]
    settings += ["model.cut=conv_pw_12_relu", f"model.weights={weights}", f"tracking.dir={tmp_path / 'mlruns'}"]
    settings += ["space=none", "model.dense_units=64", "training.epochs=10", "executor.workers=1"]
    outcome = session.start(compose(settings), Lines())
    assert outcome.ledger.ranked()[0].best(outcome.ledger.objective) > 0.88
    journal = [json.loads(line) for line in (outcome.folder / "journal.jsonl").read_text().splitlines()]
    assert journal[-1]["status"] == "completed"

"""Whole sweeps of transferred networks on folders of images."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trials import SMALL

from cnnsweep.config.compose import compose
from cnnsweep.data.image_decoding import Decoding, decode
from cnnsweep.errors import UserError
from cnnsweep.sweep import session

pytestmark = pytest.mark.slow


class Lines(session.Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


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


def test_inception_v3_is_trained_on_a_folder_with_weights_from_a_file(tmp_path):
    import keras

    folder = photographs(tmp_path / "colours")
    source = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))
    source.save_weights(tmp_path / "inception.weights.h5")
    settings = ["+sweep=transfer", f"data.dir={folder}", f"model.weights={tmp_path / 'inception.weights.h5'}"]
    settings += ["model.input_size=75", "data.image_size=80", "training.epochs=2", "budget.trials=2"]
    settings += ["space.model.pooling={values: [average, max]}", f"tracking.dir={tmp_path / 'mlruns'}"]
    settings += ["executor.workers=2", "tracking.gallery=1", "search=random"]
    first = Lines()
    outcome = session.start(compose(settings), first)
    assert outcome.status == "completed"
    assert len(outcome.state.with_status("completed")) == 2
    # Random weights tell colours apart no better than chance: that training ran to its end is all there is to see.
    assert [len(entry.curve) for entry in outcome.state.trials.values()] == [2, 2]
    assert outcome.state.final.images == 8
    assert len([line for line in first.lines if line.startswith("features of InceptionV3: 36 images")]) == 1
    loaded = keras.models.load_model(outcome.folder / "best" / "model.keras")
    assert loaded.input_shape == (None, 80, 80, 3)
    assert loaded.count_params() > 21_000_000
    again = Lines()
    later = session.start(compose([*settings, "seed=0", "budget.trials=1", "tracking.gallery=0"]), again)
    assert later.status == "completed"
    assert not [line for line in again.lines if line.startswith("features of")]


def test_backbones_and_cuts_are_searched_and_the_winner_takes_files_as_they_are(tmp_path):
    import keras

    folder = photographs(tmp_path / "colours", 40)
    settings = ["model=transfer", "data=image_folder", f"data.dir={folder}", "data.image_size=32", "space=none"]
    settings += ["space.model.backbone={values: [MobileNet, VGG16]}", "model.weights=none", "model.input_size=null"]
    settings += ["space.model.cut={values: [conv_pw_1_relu, conv_pw_2_relu], when: {model.backbone: [MobileNet]}}"]
    settings += ["training.epochs=2", "search=grid", f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=2"]
    settings += ["tracking.gallery=0"]
    watcher = Lines()
    outcome = session.start(compose(settings), watcher)
    entries = outcome.state.trials.values()
    assert [entry.status for entry in entries] == ["completed"] * 3
    networks = {(e.values["model.backbone"], e.values.get("model.cut")) for e in entries}
    assert networks == {("MobileNet", "conv_pw_1_relu"), ("MobileNet", "conv_pw_2_relu"), ("VGG16", None)}
    assert len([line for line in watcher.lines if line.startswith("features of ")]) == 3
    decoding = Decoding((32, 32), "rgb", "crop", 180)
    pixels = [decode(p.read_bytes(), decoding) for p in sorted((folder / "test").rglob("*.jpg"))]
    model = keras.models.load_model(outcome.folder / "best" / "model.keras")
    found = np.asarray(model.predict(np.stack(pixels), verbose=0))  # bytes, as they come from a file
    assert found.shape == (8, 2)
    right = float(np.mean(np.argmax(found, axis=1) == np.repeat([0, 1], 4)))
    assert right == pytest.approx(outcome.state.final.metrics["test_accuracy"])


def test_fine_tuning_and_augmentation_in_a_sweep(tmp_path):
    folder = photographs(tmp_path / "colours", 40)
    settings = ["+sweep=transfer", f"data.dir={folder}", *SMALL[2:], "space=none", "data.image_size=40"]
    settings += ["data.augment.flip=true", "data.augment.rotation=0.1", "training.unfreeze=2 blocks"]
    settings += ["training.unfreeze_epochs=2", f"tracking.dir={tmp_path / 'mlruns'}", "executor.workers=1"]
    settings += ["tracking.gallery=0"]
    outcome = session.start(compose(settings), Lines())
    (entry,) = outcome.state.trials.values()
    assert (entry.status, len(entry.curve)) == ("completed", 4)
    assert entry.curve[-1]["learning_rate"] == pytest.approx(1e-5)
    assert not (tmp_path / "mlruns" / "cache" / "features").exists()


def test_faults_of_the_network_end_the_sweep_before_its_first_trial(tmp_path):
    settings = [*SMALL, "data=digits", "model.cut=conv_pw_3_rel", f"tracking.dir={tmp_path / 'mlruns'}"]
    with pytest.raises(UserError, match="did you mean 'conv_pw_3_relu'"):
        session.start(compose(settings), Lines())
    assert not list((tmp_path / "mlruns").glob("sweeps/*"))


INSECTS = Path(os.environ.get("CNNSWEEP_DATA_DIR", "../shared/data"))


@pytest.mark.skipif(not (INSECTS / "ants-bees").is_dir(), reason="needs ants-bees/ and weights/ in CNNSWEEP_DATA_DIR")
def test_real_weights_tell_ants_from_bees(tmp_path):
    weights = next((INSECTS / "weights").glob("mobilenet*.h5")).absolute()
    settings = ["+sweep=transfer", f"data.dir={(INSECTS / 'ants-bees').absolute()}", "model.backbone=MobileNet"]
    settings += ["model.cut=conv_pw_12_relu", f"model.weights={weights}", f"tracking.dir={tmp_path / 'mlruns'}"]
    settings += ["space=none", "model.dense_units=64", "training.epochs=10", "executor.workers=1"]
    settings += ["tracking.gallery=0"]
    outcome = session.start(compose(settings), Lines())
    assert outcome.state.ranked()[0].best(outcome.state.objective) > 0.88
    journal = [json.loads(line) for line in (outcome.folder / "journal.jsonl").read_text().splitlines()]
    assert journal[-1]["status"] == "completed"

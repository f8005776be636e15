"""The trainings of an export: on features where the trial was trained on them, on data that are joined on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trials import SMALL

from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load
from cnnsweep.export.export import _train
from cnnsweep.models import transfer
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.training.evaluate import with_validation


def test_training_and_validation_images_are_joined_in_a_file(tmp_path: Path) -> None:
    data = load(compose(["data=digits", "data.limit=60"]).data, 0)
    joined = with_validation(data, tmp_path)
    assert isinstance(joined.x_train, np.memmap)
    np.testing.assert_array_equal(joined.x_train, np.concatenate([data.x_train, data.x_val]))
    np.testing.assert_array_equal(joined.y_train, np.concatenate([data.y_train, data.y_val]))
    assert joined.digest != data.digest


@pytest.mark.slow
def test_a_frozen_backbone_sees_each_image_once_for_all_seeds_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    config = compose([*SMALL, "data=digits", "data.limit=60", f"tracking.dir={tmp_path}", "executor=inline"])
    data = load(config.data, 0)
    built: list[object] = []
    build = transfer.build_backbone

    def counted(*arguments: Any) -> Any:
        built.append(arguments)
        return build(*arguments)

    monkeypatch.setattr(transfer, "build_backbone", counted)
    lines: list[str] = []
    (tmp_path / "home").mkdir()
    stored = StoredTrial("run", "uri", config, 5, {}, "sweep", "001")
    measured = _train(stored, data, 3, 2, tmp_path / "home", tmp_path / "out", lines.append)
    images = len(data.x_train) + 2 * len(data.x_val)
    assert [line for line in lines if line.startswith(f"features of MobileNet at conv_pw_3_relu: {images} images")]
    assert len([line for line in lines if line.startswith("seed ")]) == 6
    assert len(built) == 3, "for the features, and for each final evaluation"
    model = keras.models.load_model(tmp_path / "out" / "model.keras")
    right = np.asarray(model.predict(np.asarray(data.x_test), verbose=0)).argmax(axis=1) == data.y_test
    assert right.mean() == pytest.approx(measured[0]["metrics"]["test_accuracy"])
    assert model.count_params() == measured[0]["parameters"]
    assert not list((tmp_path / "home").glob("[!l]*"))

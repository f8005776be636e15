"""Pictures: learning curves of trials with gaps, NaN or a single epoch, and the gallery of a trained network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from trials import run, spec

from cnnsweep.config.compose import compose
from cnnsweep.models import transfer
from cnnsweep.training import evaluate, gallery, pictures, task_pictures
from cnnsweep.training.pictures import save_curves, ticks
from cnnsweep.training.train import train

EPOCHS = {
    "epoch": [1, 2, 3, 4],
    "loss": [1.9, 1.1, 0.8, 0.6],
    "accuracy": [0.3, 0.6, 0.7, 0.8],
    "val_loss": [1.6, 1.0, 0.9, 1.0],
    "val_accuracy": [0.4, 0.6, 0.75, 0.7],
}
ODD = {
    "one epoch": {key: values[:1] for key, values in EPOCHS.items()},
    "nan": {**EPOCHS, "loss": [float("nan")] * 4, "val_accuracy": [float("nan")] * 4},
    "infinite": {**EPOCHS, "val_loss": [1.0, float("inf"), 1.0, 1.0]},
    "loss only": {key: EPOCHS[key] for key in ("epoch", "loss")},
    "flat": {**EPOCHS, "val_accuracy": [0.1] * 4, "accuracy": [0.1] * 4, "loss": [0.0] * 4, "val_loss": [0.0] * 4},
}


def test_it_has_the_documented_size_and_is_not_blank(tmp_path: Path) -> None:
    save_curves(EPOCHS, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (900, 350)
        assert len(image.getcolors(maxcolors=100_000)) > 50


@pytest.mark.parametrize("name", ODD)
def test_unusual_trials(name: str, tmp_path: Path) -> None:
    save_curves(ODD[name], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1e-9, 3e-9), (0.9123, 0.9124), (-5, 5e6), (1e300, 2e300)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * abs(low) <= t <= high + 1e-9 * abs(high) for t in found)


def test_confusion_matrix_names_and_counts():
    (axes,) = pictures.confusion_matrix(np.array([[5, 1], [0, 6]]), ["cat", "dog"]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "5", "6"]


@pytest.mark.parametrize("classes", [31, 1000])
def test_of_many_classes_those_with_the_most_mistakes_are_drawn(classes: int, tmp_path: Path) -> None:
    matrix = np.diag(np.full(classes, 50))
    matrix[7, classes - 1] = 20
    matrix[range(classes - 2), range(1, classes - 1)] += 1
    figure = pictures.confusion_matrix(matrix, [f"a class with a long name, $n_{n}$" for n in range(classes)])
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == pictures.CONFUSED
    assert axes.get_title() == f"the 30 of {classes:,} classes with the most mistakes"
    assert "20" in [text.get_text() for text in axes.texts]
    figure.savefig(tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert max(image.size) < 2000


def test_a_class_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    figure = pictures.confusion_matrix(np.eye(2, dtype=int), ["$100 and $^", "under $ 100"])
    figure.savefig(tmp_path / "matrix.png")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.filters(np.ones((3, 3, 1, 5000))),
        lambda: pictures.mistakes(np.ones((18, 1000, 600, 1)), ["text"] * 18),
        lambda: pictures.feature_maps(np.ones((2, 800, 800, 3)), np.ones((2, 800, 800, 20)), ["a", "b"]),
    ],
    ids=["filters", "mistakes", "feature maps"],
)
def test_pictures_of_large_networks_and_images_stay_small(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert max(figure.get_size_inches()) * figure.dpi < 2000
    drawn = [picture.get_array() for axes in figure.axes for picture in axes.get_images()]
    assert max(max(array.shape) for array in drawn) < 15 * pictures.PIXELS


def test_a_trial_s_gallery(digits, tmp_path, monkeypatch):
    config = compose(["data=digits", "space=none", "model.blocks=2", "training.epochs=1"])
    trial = spec(digits, tmp_path, config=config, epochs=1)
    run(train(trial))
    run(gallery.draw_gallery(evaluate.FinalSpec(trial)))
    names = sorted(path.stem for path in (trial.folder / "artifacts" / "gallery").glob("*.png"))
    assert names == ["1_confusion_matrix", "2_most_confident_mistakes", "3_first_layer_filters",
                     "4_feature_maps_block_1", "4_feature_maps_block_2"]  # fmt: skip
    shutil.rmtree(trial.folder / "artifacts" / "gallery")
    monkeypatch.setattr(pictures, "filters", lambda _: np.ones((1 << 50,), "uint8"))
    _, drawn = run(gallery.draw_gallery(evaluate.FinalSpec(trial)))
    names.remove("3_first_layer_filters")
    assert sorted(path.stem for path in Path(drawn["folder"]).glob("*.png")) == names
    assert drawn["missing"].keys() == {"3_first_layer_filters"}
    assert "Unable to allocate 1.00 PiB" in drawn["missing"]["3_first_layer_filters"]


@pytest.mark.slow
def test_feature_maps_and_filters_of_a_backbone(digits, tmp_path):
    config = transfer.settings(spec(digits, tmp_path, "model.cut=conv_pw_7_relu").config)
    model = transfer.build(config, (20, 28, 1), 5, scale=1.0, seed=1)
    assert gallery.first_kernel(model).shape == (3, 3, 3, 32)
    maps = gallery.block_outputs(model, np.random.default_rng(0).random((2, 20, 28, 1), "float32"))
    assert list(maps) == ["block_1", "block_3", "block_4", "block_5", "block_7"]
    assert maps["block_1"].shape == (2, 16, 16, 64)
    assert maps["block_7"].shape[1:] == model.get_layer("backbone").output.shape[1:]
    assert maps["block_7"].max() > 0


def test_masks_name_the_classes_that_are_in_them() -> None:
    true = np.zeros((1, 4, 4), int)
    figure = task_pictures.masks(np.zeros((1, 4, 4, 1)), true, true + np.eye(4, dtype=int) * 2, ["sky", "road", "tree"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "tree"]
    colours = [tuple(patch.get_facecolor()) for patch in legend.get_patches()]
    drawn = figure.axes[2].images[0]
    assert colours == [tuple(drawn.cmap(drawn.norm(label))) for label in (0, 2)]


def test_labels_that_are_missing_are_counted_without_a_sign() -> None:
    figure = task_pictures.label_counts(np.zeros((9, 1), bool), np.ones((9, 1), bool), ["dot"])
    assert figure.axes[0].xaxis.get_major_formatter()(-8) == "8"


def test_the_largest_errors_say_of_which_target_they_are() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    data = SimpleNamespace(
        kind="image", class_names=("radius", "brightness"), y_val=values, x_val=np.zeros((3, 2, 2, 1)), scale=1.0
    )
    predicted = values + np.array([[0.5, 0.0], [0.0, 9.0], [0.0, 0.0]])
    drawings = dict(gallery._targets(data, predicted))
    titles = [axes.get_title() for axes in drawings["2_largest_errors"]().axes]
    assert titles[:2] == ["brightness 20\nsaid 29", "radius 1\nsaid 1.5"]

"""Image files as a network takes them, and files that are rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsweep import cli
from cnnsweep.errors import UserError
from cnnsweep.export.predict import model_file, read_image

RED = np.array([[[255, 0, 0]] * 4] * 3, "uint8")


def saved(folder: Path, pixels: np.ndarray, mode: str | None = None, name: str = "image.png") -> Path:
    Image.fromarray(pixels).convert(mode or ("L" if pixels.ndim == 2 else "RGB")).save(folder / name)
    return folder / name


def test_grey_is_read_in_the_range_of_the_training_data(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([[0, 51, 255]] * 2, "uint8"))
    assert read_image(path, (2, 3, 1), 1 / 255)[0, :, 0].tolist() == [0, 51, 255]
    assert read_image(path, (2, 3, 1), 1.0)[0, :, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert read_image(path, (2, 3, 1), 1 / 16)[0, :, 0].tolist() == pytest.approx([0, 3.2, 16])


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colour_becomes_grey_and_grey_colour_as_the_model_takes_them(tmp_path: Path, mode: str) -> None:
    image = read_image(saved(tmp_path, RED, mode), (3, 4, 1), 1 / 255)
    assert image.shape == (3, 4, 1)
    assert image[0, 0, 0] == pytest.approx(76, abs=1)
    image = read_image(saved(tmp_path, np.full((3, 4), 9, "uint8")), (3, 4, 3), 1 / 255)
    assert image.shape == (3, 4, 3)
    assert (image == 9).all()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("image.png", r"image\.png' has 4×3 pixels \(width×height\); the model takes 64×64"),
        ("notes.txt", r"notes\.txt' is no image"),
        ("cut.png", "cannot be read as an image"),
        ("imag.png", r"no image '.*imag\.png', did you mean 'image\.png'"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected(tmp_path: Path, name: str, error: str) -> None:
    saved(tmp_path, RED)
    (tmp_path / "notes.txt").write_text("no pixels")
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 255, (64, 64), "uint8"), name="cut.png")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=error):
        read_image(tmp_path / name, (64, 64, 1), 1.0)


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(tmp_path), str(saved(tmp_path, RED))]) == 2
    assert "holds no model.keras" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"there is no model at '.*model\.keras'"):
        model_file(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"is no \.keras file"):
        model_file(saved(tmp_path, RED))


@pytest.mark.slow
def test_a_model_with_code_of_its_own_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras

    layers = [keras.layers.Input((3, 4, 1)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Flatten()]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    image = saved(tmp_path, np.zeros((3, 4), "uint8"))
    assert cli.main(["predict", str(tmp_path / "model.keras"), str(image)]) == 2
    assert "arbitrary code" in capsys.readouterr().err

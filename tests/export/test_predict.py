"""Image files as a network takes them, in `predict` and in the example of an export, and files that are rejected."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnsweep import cli
from cnnsweep.config.compose import compose
from cnnsweep.data.image_decoding import Decoding
from cnnsweep.data.text_decoding import TextDecoding
from cnnsweep.errors import UserError
from cnnsweep.export.examples import EXAMPLES
from cnnsweep.export.predict import Labels, inputs_in, model_file, predict, read_images, read_inputs, read_labels

RED = np.array([[[255, 0, 0]] * 4] * 3, "uint8")
SIZE = (24, 32)


def saved(folder: Path, pixels: np.ndarray, mode: str | None = None, name: str = "image.png", **how: Any) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(folder / name, **how)
    return folder / name


def labels(size: tuple[int, int], color: str = "grey", scale: float = 1 / 255, **changes: Any) -> Labels:
    return Labels("classification", ("a", "b"), scale, Decoding(size, color, "crop", 180, **changes))


def test_pixels_come_in_the_range_of_the_training_data(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([[0, 51, 255]] * 2, "uint8"))
    for scale, expected in ((1 / 255, [0, 51, 255]), (1.0, [0, 0.2, 1]), (1 / 16, [0, 3.2, 16])):
        found = read_images([path], labels((2, 3), scale=scale))
        assert (found.shape, found.dtype) == ((1, 2, 3, 1), np.float32)
        assert found[0, 0, :, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colour_becomes_grey_and_grey_colour_as_the_model_takes_them(tmp_path: Path, mode: str) -> None:
    (image,) = read_images([saved(tmp_path, RED, mode)], labels((3, 4)))
    assert image.shape == (3, 4, 1)
    assert image[0, 0, 0] == pytest.approx(76, abs=1)
    (image,) = read_images([saved(tmp_path, np.full((3, 4), 9, "uint8"))], labels((3, 4), "rgb"))
    assert image.shape == (3, 4, 3)
    assert (image == 9).all()


def photograph() -> np.ndarray:
    """Of its kind: smooth, no two corners alike, white at the top; grey, so that depth alone can change."""
    rows, columns = np.mgrid[0:240, 0:320]
    grey = 60 + rows / 2 + columns / 5
    grey[:60] = 255
    return np.repeat(grey.round().astype("uint8")[..., None], 3, axis=2)


def write_as(folder: Path, form: str) -> Path:
    """The photograph in another form."""
    pixels, exif = photograph(), Image.Exif()
    grey, exif[0x0112] = pixels[..., 0].astype(np.uint16), 8
    transparent = np.dstack([np.where(pixels == 255, 0, pixels), np.where(grey == 255, 0, 255).astype("uint8")])
    match form:
        case "transparent":
            return saved(folder, transparent)
        case "turned.png" | "turned.jpg":
            return saved(folder, np.rot90(pixels, 3).copy(), name=form, exif=exif)
        case "16 bits":
            return saved(folder, grey * 257)
        case "12 bits.tif":
            return saved(folder, (grey * 4095.0 / 255).round().astype(np.uint16), name=form)
        case "large":
            return saved(folder, pixels.repeat(4, axis=0).repeat(4, axis=1))
    return saved(folder, pixels, name=form, **({"lossless": True} if form == "a.webp" else {}))


FORMS = (
    "a.png", "a.webp", "a.tif", "a.bmp", "transparent", "turned.png", "turned.jpg", "16 bits", "12 bits.tif", "large",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_the_same_in_every_form(tmp_path: Path, form: str) -> None:
    like = labels(SIZE, "rgb")
    reference = read_images([saved(tmp_path, photograph(), name="reference.png")], like)
    found = read_images([write_as(tmp_path, form)], like)
    assert found.shape == (1, *SIZE, 3)
    np.testing.assert_allclose(found, reference, atol=3 if form == "turned.jpg" else 1)


def test_grey_of_more_bits_is_read_as_the_training_data_was(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([[0, 100, 200]] * 3, np.uint16))
    for values, expected in (((0, 255), [0, 100, 200]), ((0, 1023), [0, 25, 50]), ((-100, 300), [64, 128, 191])):
        assert read_images([path], labels((3, 3), values=values))[0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("notes.txt", r"notes\.txt' is no image"),
        ("cut.png", r"cut\.png' cannot be decoded"),
        ("imag.png", r"no image '.*imag\.png', did you mean 'image\.png'"),
        (".", r"' cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected(tmp_path: Path, name: str, error: str) -> None:
    saved(tmp_path, RED)
    (tmp_path / "notes.txt").write_text("no pixels")
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 255, (64, 64), "uint8"), name="cut.png")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=error):
        read_images([tmp_path / name], labels((64, 64)))


@pytest.mark.parametrize(
    ("shape", "decoding", "found"),
    [
        ([8, 9, 1], None, Decoding((8, 9), "grey", "crop", 180)),
        ([8, 9, 3], None, Decoding((8, 9), "rgb", "crop", 180)),
        ([8, 9, 3], Decoding((8, 9), "rgb", "pad", 300, (0, 4095)), Decoding((8, 9), "rgb", "pad", 300, (0, 4095))),
        ([8, 9, 4], None, "takes inputs of the shape (8, 9, 4), not images with 1 or 3 channels"),
        ([100], None, "takes inputs of the shape (100,), not images"),
        ([8, 9, 3], "broken", "labels.json' cannot be read"),
    ],
)
def test_the_settings_are_those_beside_the_model(tmp_path: Path, shape: list[int], decoding: Any, found: Any) -> None:
    (tmp_path / "model.keras").touch()
    stored = dataclasses.asdict(decoding) if isinstance(decoding, Decoding) else decoding
    content = {
        "task": "classification",
        "kind": "image",
        "classes": ["a", "b"],
        "input_shape": shape,
        "scale": 1 / 255,
        "decoding": stored,
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    if isinstance(found, str):
        with pytest.raises(UserError) as raised:
            read_labels(tmp_path)
        assert found in str(raised.value)
    else:
        assert read_labels(tmp_path) == Labels("classification", ("a", "b"), 1 / 255, found)


@pytest.mark.slow
def test_predict_and_the_example_give_the_answers_of_training(tmp_path: Path) -> None:
    """The example runs without the package; a folder's own images have the answers that the sweep saw."""
    import data_sets
    import keras

    from cnnsweep.data.loading import load
    from cnnsweep.training.evaluate import write_model

    photos = Path(os.environ.get("CNNSWEEP_DATA_DIR", "")) / "ants-bees" / "val"
    for label in ("ants", "bees"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for path in sorted((photos / label).glob("*.jpg"))[:6]:
            shutil.copy(path, tmp_path / "photos" / label)
    for form in FORMS:
        write_as(tmp_path / "photos" / "ants", form).rename(tmp_path / "photos" / "ants" / f"{form}.x")
        shutil.copy(tmp_path / "photos" / "ants" / f"{form}.x", tmp_path / "photos" / "bees")
    data = load(data_sets.config(
        "cnnsweep.data.image_folder.load", dir=str(tmp_path / "photos"), test=0.3, image_size=[56, 64], resize="pad",
        color="rgb", class_depth=None, max_megapixels=180.0, skip_bad=False, cache=str(tmp_path / "cache"),
    ), seed=0)  # fmt: skip
    keras.utils.set_random_seed(0)
    kl = keras.layers
    layers = [kl.Input((56, 64, 3)), kl.Rescaling(1 / 255), kl.Conv2D(8, 9, 4), kl.Flatten(), kl.Dense(2, "softmax")]
    (model := keras.Sequential(layers)).compile()
    write_model(tmp_path / "model", model, data, compose().training)
    EXAMPLES["image"].write(tmp_path / "model")
    trained = model.predict(np.concatenate([data.x_train, data.x_val, data.x_test]), verbose=0)

    files = sorted((tmp_path / "photos").rglob("*.*"))
    answers = [answer for _, answer in predict(tmp_path / "model", files)]
    first = np.sort([dict(each)["ants"] for each in answers])
    np.testing.assert_allclose(first, np.sort(trained[:, 0]), atol=1e-5)

    block = "import runpy, sys; sys.modules['cnnsweep'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0])"
    (broken := tmp_path / "broken.png").write_text("no image")
    command = [sys.executable, "-c", block, str(tmp_path / "model" / "example.py"), str(broken), *map(str, files)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "model")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.splitlines() == [f"{f}: {a[0][0]} {a[0][1]:.4f}" for f, a in zip(files, answers, strict=True)]
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{broken}: is no image")


def painter(folder: Path) -> Path:
    """A network that calls dark pixels 0 and bright ones 1."""
    import keras

    layers = [keras.layers.Input((3, 4, 1)), keras.layers.Rescaling([-1.0, 1.0], [1.0, 0.0])]
    keras.Sequential(layers).save(described(folder, "image", [3, 4, 1], task="segmentation") / "model.keras")
    return folder


def test_masks_have_the_paths_of_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, shown = painter(Path("model")), {"A": 255, "B": 0}
    for name, value in shown.items():
        Path("in", name).mkdir(parents=True)
        saved(Path("in", name), np.full((3, 4), value, "uint8"), name="0.png")
    files = inputs_in(model, ["in"])
    assert [dict(found) for _, found in predict(model, files, Path("out"), ["in"])] == [
        {"a": 0, "b": 1},
        {"a": 1, "b": 0},
    ]
    assert [int(np.asarray(Image.open(f"out/{name}/0.png")).max()) for name in shown] == [1, 0]
    for inputs, folder, fault in (
        (files, "out2", "'in/A/0.png' and 'in/B/0.png' would both be written to 'out2/0.png'"),
        (["in/A/0.png"], "in/A", "'in/A/0.png' is an image itself"),
    ):
        with pytest.raises(UserError, match=fault):
            list(predict(model, inputs, Path(folder)))
    classes = described(Path("classes"), "image", [3, 4, 1])
    with pytest.raises(UserError, match="--masks: this network is for task=classification"):
        list(predict(classes, files, Path("out")))


def test_inputs_are_read_in_batches_and_all_that_cannot_be_are_named_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnsweep.export.predict.BATCH", 2)
    model, good = painter(tmp_path / "model"), str(saved(tmp_path, np.zeros((3, 4), "uint8")))
    late = str(tmp_path / "late.png")
    answers = predict(model, [good, "a.png", late, good, "b.png"])
    assert next(answers) == (good, [("a", 1.0), ("b", 0.0)])
    shutil.copy(good, late)
    assert next(answers)[0] == late
    assert cli.main(["predict", str(model), "a.png", good, good, "b.png", late]) == 2
    printed = capsys.readouterr()
    assert [line.split(": ")[0] for line in printed.out.splitlines()] == [good, good, late]
    assert "2 inputs cannot be used:\n  there is no image 'a.png'" in printed.err
    assert "there is no image 'b.png'" in printed.err


def described(
    folder: Path, kind: str, shape: list[int], decoding: dict[str, Any] | None = None, task: str = "classification"
) -> Path:
    """A folder with a model that is not needed, and its labels.json."""
    folder.mkdir(parents=True)
    (folder / "model.keras").touch()
    content = {"task": task, "kind": kind, "classes": ["a", "b"], "input_shape": shape, "scale": 1.0}
    (folder / "labels.json").write_text(json.dumps({**content, "decoding": decoding}))
    return folder


def test_a_folder_stands_for_its_files_and_a_sweep_for_its_best_network(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.FLAC", "a.txt", "c.npy", "d.png"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).touch()
    sounds = described(tmp_path / "sounds" / "best", "signal", [8, 1], {"rate": 8000, "samples": 8}).parent
    arrays = described(tmp_path / "arrays", "video", [2, 3, 3, 1])
    images = described(tmp_path / "images", "image", [3, 3, 1])
    texts = described(tmp_path / "texts", "text", [3, 4], {"words": ["", "[unknown]", "x", "y"], "length": 3})
    files = str(tmp_path / "files")
    for model, names in (
        (sounds, ["b/1.FLAC", "b/2.wav"]),
        (arrays, ["c.npy"]),
        (images, ["d.png"]),
        (texts, ["a.txt"]),
    ):
        assert inputs_in(model, ["x", files]) == ["x", *(str(tmp_path / "files" / name) for name in names)]
    with pytest.raises(UserError, match=r"holds no sounds \(\.wav, \.flac"):
        inputs_in(sounds, [str(tmp_path / "texts")])


def test_signals_that_were_arrays_come_as_npy_files(tmp_path: Path) -> None:
    labels = read_labels(described(tmp_path / "model", "signal", [4, 1]))
    assert labels
    np.save(tmp_path / "one.npy", np.arange(4.0)[:, None])
    found = read_inputs([tmp_path / "one.npy", tmp_path / "one.npy"], labels)
    assert (found.shape, found.dtype, found[1, 3, 0]) == ((2, 4, 1), np.float32, 3)
    np.save(tmp_path / "other.npy", np.zeros((5, 1)))
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "empty.npy").touch()
    faults = {"other": r"its shape is \(5, 1\), the network takes \(4, 1\)", "object": "pickle"}
    faults |= {"empty": "No data left", "none": "there is no .npy file"}
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            read_inputs([tmp_path / f"{name}.npy"], labels)


def test_a_text_is_a_sentence_or_a_file(tmp_path: Path) -> None:
    labels = Labels("classification", ("a", "b"), 1.0, TextDecoding(("", "[unknown]", "good"), 3))
    for name in ("review.txt", "review.md"):
        (tmp_path / name).write_text("so good")
    found = read_inputs(["So good", tmp_path / "review.txt", str(tmp_path / "review.md"), "good " * 9000], labels)
    assert found.tolist() == [[0, 1, 2]] * 3 + [[2, 2, 2]]
    with pytest.raises(UserError, match=r"there is no text .*reviw.txt', did you mean 'review\.txt'"):
        read_inputs([tmp_path / "reviw.txt"], labels)
    with pytest.raises(UserError, match="the text ' ' is empty"):
        read_inputs([" "], labels)
    with pytest.raises(UserError, match="the text '_ _' has no words"):
        read_inputs(["_ _"], labels)


def test_a_text_file_has_the_encoding_of_those_for_training(tmp_path: Path) -> None:
    labels = Labels("classification", ("a", "b"), 1.0, TextDecoding(("", "[unknown]", "schön"), 1, "latin-1"))
    (tmp_path / "review.txt").write_text("schön", encoding="latin-1")
    assert read_inputs([tmp_path / "review.txt", "schön"], labels).tolist() == [[2], [2]]


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


@pytest.mark.parametrize(("kind", "name"), [("class", "Double"), ("function", "mine>twice")])
def test_a_network_with_code_of_its_own_is_answered_with_how_it_is_loaded(tmp_path: Path, kind: str, name: str) -> None:
    code = f"""
import keras, sys
@keras.saving.register_keras_serializable("elsewhere")
class Double(keras.layers.Layer): pass
@keras.saving.register_keras_serializable("mine")
def twice(x): return x
own = Double() if "{kind}" == "class" else keras.layers.Activation(twice)
keras.Sequential([keras.layers.Input((3, 4, 1)), own]).save(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.keras")], check=True, capture_output=True)
    saved(tmp_path, np.zeros((3, 4), "uint8"), name="0.png")
    with pytest.raises(UserError, match=f"has a {kind} of its own, '{name}', .* load it in Python, once the module"):
        list(predict(tmp_path / "model.keras", [tmp_path / "0.png"]))

"""What an exported network says of files and texts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.tasks import Task
from cnnsweep.data.audio_decoding import AudioDecoding, BadAudioError
from cnnsweep.data.decoding import decoding_of
from cnnsweep.data.folder_tree import IMAGES, SOUNDS, TEXTS, VIDEOS, FileKind, read_folder
from cnnsweep.data.image_decoding import BadImageError, Decoding, read
from cnnsweep.data.text_decoding import TextDecoding, fault_of
from cnnsweep.data.video_decoding import BadVideoError, VideoDecoding
from cnnsweep.errors import UserError, nearest
from cnnsweep.export.masks import mask_files, write_masks
from cnnsweep.sweep.session import framework_noise_to
from cnnsweep.training import keras_settings

if TYPE_CHECKING:
    import keras

    from cnnsweep.data.decoding import AnyDecoding

TOP = 3
BATCH = 64
"""Inputs that are in memory at a time."""


@dataclass(frozen=True)
class ArrayFile:
    """A .npy file with one input: how the networks of signals and videos take those that were no files."""

    shape: tuple[int, ...]

    def read(self, path: Path) -> np.ndarray:
        """The array, float32. Raises ValueError where it has another shape, or holds no numbers."""
        try:
            found = np.load(path, allow_pickle=False)
        except EOFError as error:
            raise ValueError(str(error)) from error
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "buif":
            raise ValueError("no .npy file with numbers")
        if found.shape != self.shape:
            raise ValueError(f"its shape is {found.shape}, the network takes {self.shape}")
        return found.astype("float32")


@dataclass(frozen=True)
class Labels:
    """The content of a model's labels.json."""

    task: Task
    classes: tuple[str, ...]
    scale: float
    """Multiplying pixels of the training data by this gives 0 to 1."""
    decoding: AnyDecoding | ArrayFile
    """How a file or a text becomes numbers."""


def predict(
    where: Path, inputs: Sequence[str | Path], masks: Path | None = None, below: Sequence[str] = ()
) -> Iterator[tuple[str | Path, list[tuple[str, float]]]]:
    """Yield each file or text with names and numbers, as the network's task has them.

    The most probable classes with their probabilities; the labels with one above 0.5; the targets with their values;
    or of masks the share of each class in the image: then the masks are written to the folder `masks`, if there is
    one, as images of the classes' numbers, with the paths that the images have `below` one of these folders. `where`
    is an exported folder, that of a sweep, whose best network it is, or a .keras file. Raises UserError for a model
    that cannot be used, and at the end for all inputs that cannot.
    """
    labels, model = read_labels(where), None
    files = mask_files(masks, inputs, below, labels.task if labels else "classification") if masks else {}
    if labels is None:
        model = load(where)
        labels = Labels("classification", (), 1 / 255, _plain(model.input_shape[1:]))
    faults: list[str] = []
    for start in range(0, len(inputs), BATCH):
        given, arrays = _read_good(inputs[start : start + BATCH], labels, faults)
        if not given:
            continue
        model = model or load(where)  # after the first are read: it takes seconds
        outputs = _outputs(model, np.concatenate(arrays))
        if files:
            write_masks([files[each] for each in given], outputs)
        names = labels.classes or tuple(map(str, range(outputs.shape[-1])))
        yield from ((each, _told(labels.task, names, output)) for each, output in zip(given, outputs, strict=True))
    if faults:
        several = [f"{len(faults):,} inputs cannot be used:"] if len(faults) > 1 else []
        raise UserError("\n  ".join([*several, *dict.fromkeys(faults)]))


def _read_good(
    inputs: Sequence[str | Path], labels: Labels, faults: list[str]
) -> tuple[list[str | Path], list[np.ndarray]]:
    """The inputs that can be read, and each as a batch of one; why others cannot is added to `faults`."""
    given, arrays = [], []
    for each in inputs:
        try:
            arrays.append(read_inputs([each], labels))
            given.append(each)
        except UserError as error:
            faults.append(str(error))
    return given, arrays


def _outputs(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    with framework_noise_to(Path(os.devnull)):
        return np.asarray(model.predict(inputs, verbose=0))


def _told(task: Task, names: Sequence[str], output: np.ndarray) -> list[tuple[str, float]]:
    """What a network's output for one image says."""
    match task:
        case "regression":
            return list(zip(names, output.tolist(), strict=True))
        case "multi_label":
            return [(names[i], float(output[i])) for i in np.argsort(-output) if output[i] > 0.5]
        case "segmentation":
            shares = np.bincount(output.argmax(axis=-1).reshape(-1), minlength=len(names)) / output[..., 0].size
            return [(name, float(share)) for name, share in zip(names, shares, strict=True)]
    return [(names[i], float(output[i])) for i in np.argsort(-output)[:TOP]]


def load(where: Path) -> keras.Model:
    """Load the network of an exported folder or a .keras file, without running code from the file (Keras' safe mode).

    Raises UserError where there is none or it cannot be loaded.
    """
    path = model_file(where)
    try:
        with framework_noise_to(Path(os.devnull)):
            import keras

            keras_settings.use_defaults()
            return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:
        if own := re.search(r"Could not locate (class|function) '([^']+)'", str(error)):
            advice = "whose code predict does not run: load it in Python, once the module that registers it is imported"
            raise UserError(f"'{path}' has a {own[1]} of its own, '{own[2]}', {advice}") from error
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"'{path}' cannot be loaded as a Keras model: {first[:300]}") from error


def model_file(where: Path) -> Path:
    """The .keras file of a folder, or the file itself."""
    if where.is_dir():
        for folder in (where, where / "data", where / "best"):
            if (folder / "model.keras").is_file():
                return folder / "model.keras"
        wanted = "name a folder that export wrote, that of a finished sweep, or a .keras file"
        raise UserError(f"'{where}' holds no model.keras; {wanted}")
    if not where.is_file():
        raise UserError(f"there is no model at '{where}'{_nearest_file(where)}")
    if where.suffix != ".keras":
        raise UserError(f"'{where}' is no .keras file; name a folder that export wrote, or a .keras file")
    return where


def read_labels(where: Path) -> Labels | None:
    """The labels.json beside the model; None where there is no such file."""
    from cnnsweep.training.evaluate import LABELS

    path = model_file(where).parent / LABELS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stored, shape = content["decoding"], content["input_shape"]
        kind = content["kind"]
        if kind == "multi_input":
            raise UserError(f"'{where}' takes several inputs ({', '.join(shape)}): load model.keras with Keras "
                            "and give them to its predict by name")  # fmt: skip
        plain = decoding_of(kind, stored) if stored else None
        decoding = plain or (_plain(shape) if kind == "image" else ArrayFile(tuple(map(int, shape))))
        return Labels(content["task"], tuple(content["classes"]), float(content["scale"]), decoding)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from error


def inputs_in(where: Path, inputs: Sequence[str]) -> list[str]:
    """The inputs with the files that a network takes in place of folders. Raises UserError for a folder without."""
    labels = read_labels(where)
    arrays = FileKind("array", (".npy",))
    kinds = {TextDecoding: TEXTS, AudioDecoding: SOUNDS, VideoDecoding: VIDEOS, ArrayFile: arrays}
    kind = kinds.get(type(labels.decoding) if labels else Decoding, IMAGES)
    found: list[str] = []
    for given in inputs:
        if not Path(given).is_dir():
            found.append(given)
            continue
        folder = read_folder(Path(given), kind)
        files = [given] if folder.is_input else [str(path) for path in folder.walk() if kind.fits(path)]
        if not files:
            raise UserError(f"'{given}' holds no {kind.noun}s ({', '.join(kind.suffixes)})")
        found += files
    return found


def read_inputs(inputs: Sequence[str | Path], labels: Labels) -> np.ndarray:
    """Decode files or texts as those of the training data. Raises UserError for one that cannot be used."""
    if isinstance(labels.decoding, TextDecoding):
        return np.stack([labels.decoding.decode(_text(each, labels.decoding.encoding)) for each in inputs])
    if isinstance(labels.decoding, AudioDecoding):
        return np.stack([_media(Path(each), labels.decoding, "audio file", "soundfile", "audio") for each in inputs])
    if isinstance(labels.decoding, VideoDecoding):
        return np.stack([_media(Path(each), labels.decoding, "video", "av", "video") for each in inputs])
    if isinstance(labels.decoding, ArrayFile):
        return np.stack([_array(Path(each), labels.decoding) for each in inputs])
    return read_images([Path(each) for each in inputs], labels)


def _media(path: Path, decoding: AudioDecoding | VideoDecoding, noun: str, package: str, extra: str) -> np.ndarray:
    try:
        with _reading(path, noun):
            return decoding.read(path)
    except ImportError:
        needed = f"which needs {package}: pip install 'cnnsweep[{extra}]'"
        raise UserError(f"this network takes {noun}s, {needed}") from None


def _array(path: Path, decoding: ArrayFile) -> np.ndarray:
    with _reading(path, ".npy file"):
        return decoding.read(path)


@contextmanager
def _reading(path: Path, noun: str) -> Iterator[None]:
    """Raise UserError where a file is not there, cannot be read, or is not what its name says."""
    try:
        yield
    except (BadAudioError, BadImageError, BadVideoError) as error:
        raise UserError(f"'{path}' {error}") from error
    except FileNotFoundError:
        raise UserError(f"there is no {noun} '{path}'{_nearest_file(path)}") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from error
    except ValueError as error:  # of another encoding, or a zero byte in the path
        raise UserError(f"'{path}' cannot be read ({error})") from error


def _text(given: str | Path, encoding: str) -> str:
    """The text itself, or the content of a file."""
    path = Path(given)
    with _reading(path, "text"):
        text = path.read_text(encoding=encoding) if path.suffix == ".txt" or _is_file(path) else str(given)
    if fault := fault_of(text):
        raise UserError(f"the text '{given}' {fault}")
    return text


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a long sentence is no file's name."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_images(paths: Sequence[Path], labels: Labels) -> np.ndarray:
    """Decode image files as those of the training data: float32 (images, height, width, channels), in their range.

    Raises UserError for a file that is no image.
    """
    assert isinstance(labels.decoding, Decoding)
    return np.stack([_read(path, labels.decoding) for path in paths]).astype("float32") / (255 * labels.scale)


def _plain(shape: Sequence[int | None]) -> Decoding:
    decoding = Decoding.plain(shape)
    if decoding is None:
        raise UserError(f"the model takes inputs of the shape {tuple(shape)}, not images with 1 or 3 channels")
    return decoding


def _read(path: Path, decoding: Decoding) -> np.ndarray:
    with _reading(path, "image"):
        return read(path, decoding)


def _nearest_file(path: Path) -> str:
    return nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])

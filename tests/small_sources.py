"""A small data set of every source, with the overrides that name it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import video_files
from PIL import Image

from cnnsweep.config import shipped
from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.data.loading import Dataset, load, save

COUNT = 12
"""Inputs of each class."""
TONES = {"high": 0.9, "low": 0.2}


def _wave(name: str, number: int) -> np.ndarray:
    return np.sin(np.arange(400) * TONES[name] + number).astype(np.float32)


def _audio(root: Path) -> list[str]:
    import soundfile

    for name in TONES:
        (root / name).mkdir()
        for number in range(COUNT):
            soundfile.write(root / name / f"{number}.wav", _wave(name, number), 4000)
    return ["data.rate=4000", "data.seconds=0.1"]


def _npz(root: Path) -> list[str]:
    x, y = np.stack([_wave(n, i) for n in TONES for i in range(COUNT)])[:, :40, None], np.arange(2 * COUNT) // COUNT
    test = x[::6] + 0.01  # up to a little above 1, where the training signals are below it
    np.savez(root / "own.npz", x_train=x, y_train=y, x_test=test, y_test=y[::6])
    return [f"data.file={root / 'own.npz'}", "data.kind=signal"]


def _sentences() -> list[tuple[str, str]]:
    adjectives = {"praise": "fine good great", "criticism": "bad dull poor"}
    nouns = ("plot", "end", "cast", "film")
    return [(f"a {a} {noun}", label) for label, words in adjectives.items() for a in words.split() for noun in nouns]


def _csv(root: Path) -> list[str]:
    lines = ["text,label", *(f"{text},{label}" for text, label in _sentences())]
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    return [f"data.dir={root / 'all.csv'}", "data.test=0.2"]


def _texts(root: Path) -> list[str]:
    for number, (text, label) in enumerate(_sentences()):
        (root / label).mkdir(exist_ok=True)
        (root / label / f"{number}.txt").write_text(text)
    return []


def _images(folder: Path, size: tuple[int, int] = (8, 8)) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.png" for number in range(2 * COUNT)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full(size, 10 * number, np.uint8)).save(path)
    return paths


def _image_folder(root: Path) -> list[str]:
    for number, path in enumerate(_images(root / "all")):
        (root / "data" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        path.rename(root / "data" / "ab"[number % 2] / path.name)
    return [f"data.dir={root / 'data'}", "data.image_size=8"]


def _image_table(root: Path) -> list[str]:
    rows = [f"{path.name},{number % 2}" for number, path in enumerate(_images(root / "images"))]
    (root / "labels.csv").write_text("\n".join(["file,class", *rows]) + "\n")
    return ["data.image_size=8"]


def _masks(root: Path) -> list[str]:
    _images(root / "images")
    (root / "masks").mkdir()
    for number in range(2 * COUNT):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / "masks" / f"{number}.png")
    return ["data.image_size=8", "task=segmentation", "model=unet", "space=none"]


def _videos(root: Path) -> list[str]:
    for number, name in enumerate(("brighter", "darker")):
        for each in range(COUNT):
            pictures = video_files.frames(6, 16, 16, first=each)[:: 1 - 2 * number]
            video_files.write_frames(root / name / str(each), pictures)
        video_files.write(root / name / "file.mkv", video_files.frames(6, 16, 16, first=50)[:: 1 - 2 * number])
    return ["data.frames=4", "data.image_size=16", "data.color=grey"]


WITHOUT_FILES = ("digits", "made_signals", "made_texts", "moving_digits")
WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "audio_folder": _audio,
    "image_folder": _image_folder,
    "image_table": _image_table,
    "mask_folder": _masks,
    "npz": _npz,
    "text_csv": _csv,
    "text_folder": _texts,
    "video_folder": _videos,
}
DOWNLOADED = ("fashion_mnist", "mnist")  # tests/data/test_mnist.py
SOURCES = sorted(
    {path.stem for path in (shipped() / "data").glob("[!_]*.yaml")} - {*DOWNLOADED, "none"}
)  # so that a new one needs an entry above


def overrides(source: str, root: Path) -> list[str]:
    """Write the files of a source below `root`, which is new; return the overrides that name them."""
    root.mkdir()
    if source in WITHOUT_FILES:
        return [f"data={source}", "data.limit=80"]
    settings = WRITERS[source](root)
    own = [] if any(each.startswith(("data.dir=", "data.file=")) for each in settings) else [f"data.dir={root}"]
    return [f"data={source}", *own, *settings]


def loaded(root: Path, source: str, *others: str) -> tuple[Config, Dataset]:
    """A source's data, saved to the folder `root`/data, and the config with other overrides as well."""
    config = compose([f"tracking.dir={root / 'mlruns'}", "space=none", *overrides(source, root / "files"), *others])
    data = load(config.data, config.seed, config.task)
    save(data, root / "data")
    return config, data

"""Feed the program malformed configs, command lines, journals and data files, and look at what it says.

    python experiments/benchmarks/bad_input.py [--processes 3]

Each must give exit code 2 and a message under 12 lines that names the cause, without a traceback and before any
training. All cases run in this process; a few run once more as a user would run them. Takes about two minutes.
bad_input.yaml lists those that need no files but a config.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.util
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml

from cnnsweep import cli

MOST_LINES = 11


@dataclass(frozen=True)
class Case:
    """A command line, and a word that a message about its fault must have."""

    arguments: Sequence[str]
    word: str


def journals() -> dict[str, tuple[str, str]]:
    """Journals that `resume` and what they say of each."""
    head = {"event": "sweep", "time": 1.0, "id": "x", "name": "x", "format": 1, "config": {}}
    return {
        "empty": ("", "no event"),
        "zeros": ("\0" * 9 + "\n", "line 1"),
        "newer": (json.dumps({**head, "format": 99}) + "\n", "format 99"),
        "headless": ('{"event":"epoch","time":1}\n', "line 1"),
        "middle": (json.dumps(head) + "\n{broken\n" + json.dumps({"event": "stop", "time": 2}) + "\n", "line 2"),
        "listed": ("[1]\n", "line 1"),
        "bare": (json.dumps(head) + "\n", "line 1"),
    }


def data_files(folder: Path) -> Iterator[Case]:
    """Data sets with a fault each, and the word for it."""
    rng = np.random.default_rng(0)
    good = {"x_train": rng.integers(0, 256, (60, 8, 8), "uint8"), "y_train": np.arange(60) % 3}
    good |= {"x_test": rng.integers(0, 256, (12, 8, 8), "uint8"), "y_test": np.arange(12) % 3}
    nan = np.full((60, 8, 8), 0.5, "float32")
    nan[7, 0, 0] = np.nan
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({"y_test": None}, "y_test"),
        "misspelt": ({"y_test": None, "y_tset": good["y_test"]}, "y_tset"),
        "short": ({"y_train": good["y_train"][:-1]}, "59 labels"),
        "nan": ({"x_train": nan}, "NaN"),
        "negative": ({"y_train": good["y_train"] - 1}, "label -1"),
        "flat": ({"x_train": np.zeros((60, 64))}, "shape"),
        "floats": ({"y_train": good["y_train"] + 0.5}, "dtype"),
        "onehot": ({"y_train": np.eye(3)[good["y_train"]]}, "one-hot"),
        "none": ({"x_train": good["x_train"][:0], "y_train": good["y_train"][:0]}, "no images"),
        "oneclass": ({"y_train": good["y_train"] * 0, "y_test": good["y_test"] * 0}, "1 class"),
        "absent": ({"y_test": good["y_test"] * 0}, "one class only"),
        "sizes": ({"x_test": np.zeros((12, 9, 9), "uint8")}, "(9, 9, 1)"),
        "large": ({"x_train": good["x_train"].astype("float32") * 9}, "values from"),
        "words": ({"x_train": np.full((60, 8, 8), "a")}, "dtype"),
        "pickle": ({"x_train": np.array([{}], object)}, "x_train"),
        "single": ({"y_train": np.array([0] * 58 + [1, 2]), "y_test": good["y_test"]}, "one image only"),
        "leak": ({"x_test": good["x_train"], "y_test": good["y_train"]}, "test images are the training"),
    }
    for name, (changes, word) in faults.items():
        path = folder / f"{name}.npz"
        np.savez(path, **{k: v for k, v in {**good, **changes}.items() if v is not None})
        yield Case(("data=npz", f"data.file={path}"), word)
    whole = (folder / "short.npz").read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "noise": b"PK" + bytes(99), "nothing": b""}.items():
        (folder / f"{name}.npz").write_bytes(content)
        yield Case(("data=npz", f"data.file={folder / name}.npz"), f"{name}.npz")
    yield Case(("data=npz", f"data.file={folder}"), "is a folder")
    yield from _idx_files(folder)
    yield from _image_folders(folder)
    yield from _texts(folder)
    if importlib.util.find_spec("soundfile"):
        yield from _sounds(folder)
    yield from _videos(folder)


TEXTS: dict[str, tuple[str, str]] = {
    "column": ("words,label\ngood,a\nbad,b\n", "no column 'text'"),
    "divided": ("words;label\ngood;a\nbad;b\n", "no column 'text'"),
    "empty": ("text,label\ngood,a\n ,b\nbad,\n", "line 3: 'text' is empty"),
    "fields": ("text,label\ngood, very good,a\nbad,b\n", "has to be in quotes"),
    "missing": ("text,label\ngood\nbad,b\n", "'label' is empty"),
    "one": ("text,label\ngood,a\nbetter,a\n", "1 class (a)"),
    "header": ("text,label\n", "0 classes"),
    "nothing": ("", "no column 'text'"),
    "few": ("text,label\ngood,a\nbad,b\nbetter,a\n", "one text only for class b"),
}
"""CSV files of texts, and the word for the fault of each."""


def _texts(folder: Path) -> Iterator[Case]:
    for name, (content, word) in TEXTS.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
        yield Case(("+sweep=text", "data=text_csv", f"data.dir={folder / name}.csv"), word)
    (folder / "latin.csv").write_bytes("text,label\nschön,a\nbad,b\n".encode("latin-1"))
    yield Case(("+sweep=text", "data=text_csv", f"data.dir={folder / 'latin.csv'}"), "data.encoding=latin-1")
    yield Case(("+sweep=text", "data=text_csv", f"data.dir={folder}"), "expected train.csv")
    pictures = f"data.dir={folder / 'images' / 'broken'}"
    yield Case(("+sweep=text", "data=text_folder", pictures), "cats/1.png: is not utf-8")


def _sounds(folder: Path) -> Iterator[Case]:
    import soundfile

    tone = np.sin(np.arange(4000) / 5).astype(np.float32)
    faults = {
        "text": b"no sound",
        "silent": tone * 0,
        "empty": tone[:0],
        "nan": tone * np.nan,
        "cut": b"RIFF" + bytes(9),
    }
    for name in (*faults, "good", "one"):
        for label in ("high", "low")[: 1 if name == "one" else 2]:
            (folder / "sounds" / name / label).mkdir(parents=True)
            for number in range(10):
                soundfile.write(folder / "sounds" / name / label / f"{number}.wav", tone, 8000, subtype="FLOAT")
    preset = ("+sweep=spoken_digits", f"data.cache={folder / 'cache'}")
    for name, content in faults.items():
        bad = folder / "sounds" / name / "low" / "bad.wav"
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            soundfile.write(bad, content, 8000, subtype="FLOAT")
        yield Case((*preset, f"data.dir={folder / 'sounds' / name}"), "low/bad.wav")
    yield Case((*preset, f"data.dir={folder / 'sounds' / 'one'}"), "1 class")
    yield Case((*preset, f"data.dir={folder / 'images' / 'broken'}"), "bad.png")
    good = f"data.dir={folder / 'sounds' / 'good'}"
    yield Case((*preset, good, "data.seconds=0"), "data.seconds")
    one = (*preset, good, "space=none", "model.padding=valid")
    yield Case((*one, "model.representation=mel", "data.seconds=0.02"), "window of 256 samples")
    yield Case((*one, "model.representation=waveform", "model.kernel_size=9000"), "model.kernel_size")
    yield Case((*preset, good, "model=cnn"), "model.representation")


def _videos(folder: Path) -> Iterator[Case]:
    """Folders of frames, which need no PyAV; files where it is installed."""
    from PIL import Image

    home = folder / "videos"
    for kind in ("short", "torn", "file", "good"):
        for label in ("left", "right"):
            for number in range(10):
                place = home / kind / label / str(number)
                place.mkdir(parents=True)
                for frame in range(4):
                    Image.new("L", (8, 8), 10 * frame + number).save(place / f"{frame}.png")
    (home / "short" / "left" / "3" / "2.png").unlink()
    (home / "torn" / "left" / "3" / "2.png").write_text("no image")
    (home / "file" / "left" / "notes.mp4").write_text("no video")
    chosen = ("data=video_folder", "model=cnn3d", "space=none", "model.blocks=1", "data.frames=4", "data.image_size=8")
    preset = (*chosen, f"data.cache={folder / 'cache'}")
    faults = {"short": "left/3: has 3 frames", "torn": "its frame 2.png"}
    if importlib.util.find_spec("av"):
        faults["file"] = "notes.mp4: is no video"
    for name, word in faults.items():
        yield Case((*preset, f"data.dir={home / name}"), word)
    good = (*preset, f"data.dir={home / 'good'}")
    yield Case((*good, "model.padding=valid", "model.kernel_size=5"), "model.kernel_size")
    yield Case((*good, "data.fps=0"), "data.fps")
    yield Case((*good, "model=cnn", "space=none"), "cnn3d")
    yield Case((*good, "model=cnn_rnn", "space=none"), "model.each_frame")


IMAGE_FOLDERS = {
    "nothing": ([], "no folders of images"),
    "patients": (["a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png"], "data.class_depth=2"),
    "high": (["one/cats/1.png", "one/dogs/1.png"], "high/one"),
    "twice": (["train/train/cats/1.png", "train/train/dogs/1.png"], "twice/train/train"),
    "single": (["cats/1.png"], "1 class (cats)"),
    "loose": (["train/1.png", "test/2.png"], "no class folders"),
    "flat": (["train/cats/1.png", "train/dogs/1.png", "test/1.png"], "no class folders"),
    "strange": (["train/cats/1.png", "train/dogs/1.png", "test/birds/1.png", "test/fish/1.png"], "is a class"),
    "untrained": (["dev/cats/1.png", "dev/dogs/1.png"], "no train/"),
    "double": (["train/cats/1.png", "train/dogs/1.png", "val/cats/1.png", "valid/cats/1.png"], "which of them"),
    "broken": (["train/cats/1.png", "train/dogs/bad.png"], "bad.png"),
}


def _image_folders(folder: Path) -> Iterator[Case]:
    from PIL import Image

    for name, (files, word) in IMAGE_FOLDERS.items():
        (folder / "images" / name).mkdir(parents=True)
        for file in files:
            path = folder / "images" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(path) if path.name != "bad.png" else path.write_text("no image")
        yield Case(("data=image_folder", f"data.dir={folder / 'images' / name}"), word)
    great = folder / "images" / "great"
    for label in ("cats", "dogs"):
        (great / label).mkdir(parents=True)
        Image.new("1", (20_000, 10_000)).save(great / label / "1.png")
    yield Case(("data=image_folder", f"data.dir={great}"), "data.max_megapixels=180")
    for fault in ("class_depth=0", "max_megapixels=-1", "resize=zoom", "color=blue"):
        yield Case(("data=image_folder", f"data.dir={great}", f"data.{fault}"), fault.partition("=")[0])


def _idx_files(folder: Path) -> Iterator[Case]:
    images = gzip.compress(struct.pack(">4i", 2051, 20, 28, 28) + bytes(20 * 784))
    labels = gzip.compress(struct.pack(">2i", 2049, 20) + bytes(range(10)) * 2)
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    faults = {
        "truncated": {0: images[:-30]},
        "swapped": {0: labels, 1: images},
        "plain": {1: b"not gzip at all"},
        "header": {0: gzip.compress(struct.pack(">4i", 2051, 21, 28, 28) + bytes(20 * 784))},
        "gone": {3: None},
        "counts": {1: gzip.compress(struct.pack(">2i", 2049, 10) + bytes(range(10)))},
    }
    for name, changes in faults.items():
        place = folder / name / "mnist"
        place.mkdir(parents=True)
        for index, (file, content) in enumerate(zip(names, (images, labels, images, labels), strict=True)):
            content = changes.get(index, content)
            if content is not None:
                (place / file).write_bytes(content)
        yield Case(("data=mnist", f"data.dir={folder / name}"), names[min(changes)])


def cases(folder: Path) -> Iterator[Case]:
    """Every malformed input; files that it needs are written to `folder`."""
    store = f"tracking.dir={folder / 'mlruns'}"
    listed = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for override, word in listed["overrides"].items():
        yield Case(("executor=inline", store, override), word)
    for line, word in listed["lines"]:
        yield Case(line if line[0] == "predict" or "tracking.dir" in line[0] else (*line, store), word)
    for name, (content, word) in journals().items():
        sweep = folder / "mlruns" / "sweeps" / name
        sweep.mkdir(parents=True)
        (sweep / "journal.jsonl").write_text(content)
        yield Case(("resume", name, store), word)
    for file in (".mlflow.lock", "mlflow.db"):
        (folder / f"store{file}" / file).mkdir(parents=True)
        yield Case(("executor=inline", f"tracking.dir={folder}/store{file}"), file)
    for case in data_files(folder):
        yield Case(("executor=inline", store, *case.arguments), case.word)
    for name, (content, word) in listed["configs"].items():
        path = folder / f"conf-{name.replace('/', '-')}" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(content, encoding="utf-8")
        chosen = [f"+{name.replace('/', '=')}"] if name.startswith("sweep/") else []
        yield Case((store, "--config-dir", str(folder / path.relative_to(folder).parts[0]), *chosen), word)


class NotRefusedError(Exception):
    """Training was about to begin."""


def run(arguments: Sequence[str]) -> tuple[Any, str]:
    """Run a command in this process; return its exit code, or what it raised, and its stderr."""
    said = io.StringIO()
    with (
        mock.patch("cnnsweep.sweep.loop.search", side_effect=NotRefusedError),
        mock.patch("cnnsweep.data.mnist.download", side_effect=_no_download),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            code: Any = cli.main(list(arguments))
        except SystemExit as end:
            code = end.code
        except Exception as error:
            code = repr(error)
    return code, said.getvalue()


def _no_download(*_: Any) -> Any:
    from cnnsweep.errors import UserError

    raise UserError("this machine is not connected")


def fault(case: Case, code: Any, said: str) -> str | None:
    """What is wrong with an answer."""
    if code != 2:
        return f"exit code {code}"
    if "Traceback" in said:
        return "a traceback"
    if len(said.splitlines()) > MOST_LINES:
        return f"{len(said.splitlines())} lines"
    return None if case.word in said else f"does not name {case.word!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=3, help="so many cases once more as processes")
    options = parser.parse_args()
    wrong = 0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    before = os.environ.pop("CNNSWEEP_DATA_DIR", None)
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        every = list(cases(Path(made)))
        for case in every:
            code, said = run(case.arguments)
            if found := fault(case, code, said):
                wrong += 1
                print(f"{' '.join(case.arguments)}\n  {found}\n  {said.strip()[:600]}")
        for case in random.Random(0).sample(every, options.processes):
            command = [sys.executable, "-m", "cnnsweep", *case.arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if found := fault(case, done.returncode, done.stderr):
                wrong += 1
                print(f"as a process: {' '.join(case.arguments)}\n  {found}\n  {done.stderr.strip()[:600]}")
    if before is not None:
        os.environ["CNNSWEEP_DATA_DIR"] = before
    print(f"{len(every)} malformed inputs, {wrong} not answered well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

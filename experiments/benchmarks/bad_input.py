"""Feed the program malformed configs, command lines, journals and data files, and look at what it says.

    python experiments/benchmarks/bad_input.py [--processes 3]

Each must give exit code 2 and a message under 12 lines that names the cause, without a traceback and before any
training. All cases run in this process; a few run once more as a user would run them. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
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

from cnnsweep import cli

MOST_LINES = 11


@dataclass(frozen=True)
class Case:
    """A command line, and a word that a message about its fault must have."""

    arguments: Sequence[str]
    word: str


OVERRIDES = {
    # unknown names
    "budget.trails=5": "trials",
    "model.filter=3": "filters",
    "nonsense=1": "nonsense",
    "search=randon": "random",
    "data=fashon_mnist": "fashion_mnist",
    "+sweep=fasion": "fashion",
    "model=resnet99": "resnet99",
    "space=cn": "cnn",
    "executor=gpuu": "gpu",
    "tracking=locl": "local",
    "backend=theano": "backend",
    "objective=val_acuracy": "val_accuracy",
    "training.optimizer=adamm": "adam",
    "model.activation=rellu": "relu",
    "model.padding=valud": "valid",
    "model.pooling=maxx": "max",
    "model.head=flat": "flatten",
    "training.schedule=cosin": "cosine",
    "executor.device=tpu": "device",
    "search.factor=3": "factor",
    "data.file=x.npz": "file",
    # wrong types and numbers
    "budget.trials=many": "budget.trials",
    "budget.trials=0": "budget.trials",
    "budget.trials=-3": "budget.trials",
    "budget.trials=1.5": "budget.trials",
    "budget.minutes=0": "budget.minutes",
    "budget.epochs=-1": "budget.epochs",
    "budget.trials=null": "budget",
    "budget=null": "budget",
    "seed=-1": "seed",
    "seed=abc": "seed",
    "seed=99999999999999": "seed",
    "name=../../x": "name",
    "name=''": "name",
    "name=[a]": "name",
    "training.epochs=0": "training.epochs",
    "training.learning_rate=-1": "learning_rate",
    "training.batch_size=0": "batch_size",
    "training.patience=0": "patience",
    "training.weight_decay=-1": "weight_decay",
    "training.steps_per_execution=0": "steps_per_execution",
    "training.deterministic=maybe": "deterministic",
    "training.retry_smaller_batch=7e": "retry_smaller_batch",
    "training=null": "training",
    "model=null": "model",
    "model.blocks=0": "model.blocks",
    "model.filters=0": "filters",
    "model.filters=[]": "filters",
    "model.kernel_size=-3": "kernel_size",
    "model.dropout=1.5": "dropout",
    "model.dense_units=-4": "dense_units",
    "model.batch_norm=perhaps": "batch_norm",
    "data.validation=0": "validation",
    "data.validation=1.2": "validation",
    "data.limit=0": "data.limit",
    "data.limit=5": "data.limit=5",
    "data.augment.shift=2": "shift",
    "data.augment.flip=often": "flip",
    "limits.parameters=-5": "limits.parameters",
    "limits.parameters=lots": "limits",
    "limits.mmacs=[1]": "limits.mmacs",
    "tracking.gallery=-1": "gallery",
    "tracking.tags=5": "tags",
    "search.max_failures=0": "max_failures",
    "executor.trial_minutes=0": "trial_minutes",
    "executor.hang_minutes=-1": "hang_minutes",
    "executor.grace_seconds=-2": "grace_seconds",
    "executor.threads=0": "threads",
    # components
    "model._target_=no.such.module.build": "no.such.module",
    "model._target_=cnnsweep.models.cnn.biuld": "build",
    "data._target_=os.getcwd": "data",
    "data._target_=sklearn": "_target_",
    "search._target_=json.dumps2": "dumps",
    # spaces
    "space.model.filters.values=[]": "space.model.filters",
    "space.model.filters.values=[16,16]": "twice",
    "space.model.filters.values=[16,x]": "space.model.filters",
    "space.model.filters.values=[-4]": "filters",
    "space.model.filtres={values: [1]}": "filtres",
    "space.model.blocks.min=9": "space.model.blocks",
    "space.training.learning_rate.min=0": "log",
    "space.training.learning_rate.min=1": "min",
    "space.training.learning_rate.max=no": "max",
    "space.model.dropout={min: 0, max: 2}": "dropout",
    "space.model.filters={vaules: [1]}": "values",
    "space.model.filters=5": "space.model.filters",
    "space.model.padding.values=[same,valud]": "valid",
    "space.model.pool_size.when={model.nope: [1]}": "model.nope",
    "space.training.epochs={min: 0, max: 3}": "epochs",
    "space.budget={trials: {values: [1, 2]}}": "budget",
    # grammar
    "budget.trials": "budget.trials",
    "budget.trials=[1": "budget.trials",
    "=5": "=5",
    "a=b=c": "a",
    "budget.trials=${nope}": "nope",
    "+budget.trials.x=1": "budget",
    "~budget": "budget",
    "data.validation=nan": "validation",
    "training.learning_rate=inf": "learning_rate",
}
LINES = {
    ("",): "''",
    ("frobnicate",): "frobnicate",
    ("rusume",): "resume",
    ("--confg-dir", "x"): "--config-dir",
    ("--config-dir",): "--config-dir",
    ("--config-dir", "/no/such/folder"): "/no/such/folder",
    ("search=grid",): "values",
    ("executor=gpu", "executor.gpus=64"): "GPU",
    ("executor=gpu",): "GPU",
    ("data=npz",): "data.file",
    ("data=npz", "data.file=/no/such.npz"): "/no/such.npz",
    ("data=mnist", "data.dir=/no/such"): "/no/such",
    ("tracking=server",): "tracking.uri",
    ("tracking.dir=/proc/nope",): "/proc/nope",
    ("tracking.dir=/dev/null/x",): "/dev/null/x",
    ("tracking.uri=http://127.0.0.1:9",): "127.0.0.1:9",
    ("tracking.uri=ftp://x",): "ftp://x",
    ("tracking.uri=gpu1:5000",): "http://gpu1:5000",
    ("tracking.uri=http://gpu1:50OO",): "50OO",
    ("tracking.uri=http://gpu1:5000/#/experiments/1",): "http://gpu1:5000",
    ("tracking.uri=sqlite:////proc/x.db",): "/proc/x.db",
    ("tracking.experiment=",): "experiment",
    ("resume", "nothing"): "nothing",
    ("resume", "../../etc"): "../../etc",
    ("resume", "seed=3"): "seed=3",
    ("resume", "budget.trails=3"): "trials",
    ("resume", "--hard"): "--hard",
    ("list", "budget.trials=1"): "budget.trials",
    ("list", "everything"): "everything",
    ("ui", "nothing"): "nothing",
    ("ui", "a", "b"): "a",
    ("resume", "a", "b"): "b",
    ("plan", "--no-forcast"): "--no-forecast",
    ("export", "--trial", "best"): "best",
    ("train", "--config-dir", "/no/such/folder"): "/no/such/folder",
}


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
        "absent": ({"y_test": good["y_test"] * 0}, "no image of class"),
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


CONFIGS = {
    "broken": ("budget: {trials: [", "broken"),
    "list": ("- 1\n- 2\n", "list"),
    "unknown": ("budget: {trails: 3}", "trials"),
    "group": ("defaults: [{override /search: randon}]", "random"),
    "type": ("budget: {trials: soon}", "budget.trials"),
    "tab": ("budget:\n\ttrials: 3\n", "tab"),
    "loop": ("seed: ${seed}", "seed"),
    "text": ("just words", "just words"),
}


def cases(folder: Path) -> Iterator[Case]:
    """Every malformed input; files that it needs are written to `folder`."""
    store = f"tracking.dir={folder / 'mlruns'}"
    for override, word in OVERRIDES.items():
        yield Case(("executor=inline", store, override), word)
    for line, word in LINES.items():
        yield Case(line if "tracking.dir" in line[0] else (*line, store), word)
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
    for name, (content, word) in CONFIGS.items():
        place = folder / f"conf-{name}" / "sweep"
        place.mkdir(parents=True)
        (place / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
        yield Case((store, "--config-dir", str(place.parent), f"+sweep={name}"), word)


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

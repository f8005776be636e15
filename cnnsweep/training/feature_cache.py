"""What a frozen backbone makes of the images: computed once, kept on disk, and shared by all trials that can use it.

A trial can while nothing before its head changes: no fine-tuning, no augmentation. Its head is then trained on the
features as if they were the images; the whole network is put together again for the one look at the test set.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnsweep.data.loading import Dataset, open_saved
from cnnsweep.data.mapped import Writer, open_map, put
from cnnsweep.errors import UserError
from cnnsweep.models import transfer
from cnnsweep.models.fine_tuning import is_off
from cnnsweep.trial import Step, TrialSpec

FORMAT = 1
BATCH = 64
TELL_SECONDS = 0.5
HEAD = "cnnsweep.models.transfer.build_head"


@dataclass(frozen=True)
class FeatureSpec:
    """Which features to compute, of which images, and where to put them. Plain values only."""

    config: Mapping[str, Any]
    data: Path
    folders: Mapping[str, Path]
    """For each pooling; one pass of the images through the backbone serves all."""


def prepare(spec: TrialSpec) -> Step | TrialSpec:
    """Return the step that computes the features of a trial, or the trial on its features where they are there.

    A trial that cannot use features is returned as it is.
    """
    if not uses_features(spec.config):
        return spec
    facts = json.loads((spec.data / "dataset.json").read_text(encoding="utf-8"))
    shape = np.load(spec.data / "x_train.npy", mmap_mode="r").shape[1:]
    folder = feature_folder(spec.config, facts, shape)
    if (folder / "features.json").exists():
        known = json.loads((folder / "features.json").read_text())
        return replace(spec, data=folder, builder=HEAD, frozen_parameters=known["parameters"])
    folders = {kind: feature_folder(with_pooling(spec.config, kind), facts, shape) for kind in poolings(spec.config)}
    missing = {kind: place for kind, place in folders.items() if not (place / "features.json").exists()}
    return Step(folder.parent.name, compute, FeatureSpec(spec.config, spec.data, missing))


def uses_features(config: Mapping[str, Any]) -> bool:
    """Whether a trial of this config trains its head on features that are computed once."""
    still = not any((config["data"].get("augment") or {}).values())
    return bool(config["model"]["cache"]) and still and is_off(config["training"]["unfreeze"])


def feature_folder(config: Mapping[str, Any], data: Mapping[str, Any], shape: tuple[int, ...]) -> Path:
    """The place of a config's features; `data` has the `digest` and `scale` of images of this shape."""
    model = config["model"]
    parts = [FORMAT, _keras_version(), model["backbone"], _weights_key(model["weights"]), model["cut"]]
    parts += [transfer.input_size(model, shape), data["digest"], round(data["scale"], 9)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return Path(model["cache"]).expanduser().absolute() / "features" / key / model["pooling"]


def poolings(config: Mapping[str, Any]) -> list[str]:
    """The poolings that the sweep may ask for, of which this config's own is one."""
    searched = ((config.get("space") or {}).get("model") or {}).get("pooling") or {}
    return sorted({config["model"]["pooling"], *(searched.get("values") or ())})


def compute(spec: FeatureSpec) -> Generator[str, bool, str]:
    """A job: write the features of the training and validation images; reports and returns lines for the screen.

    The test images are left for the final model. Memory stays bounded; a folder appears when it is complete.
    """
    began, told = time.monotonic(), 0.0
    use_all_cores()
    data = open_saved(spec.data)
    network = make_network(spec.config, data, list(spec.folders))
    model, total, done = spec.config["model"], len(data.x_train) + len(data.x_val), 0
    title = f"features of {model['backbone']}{' at ' + model['cut'] if model['cut'] else ''}"
    with contextlib.ExitStack() as stack:
        new = {kind: _scratch(stack, folder) for kind, folder in spec.folders.items()}
        for count in _pass(network, data, new):
            done += count
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                yield f"{title}: {done:,}/{total:,} images"
        parameters = network.get_layer("backbone").count_params()
        size = sum(_complete(new[kind], folder, data, parameters) for kind, folder in spec.folders.items())
    return f"{title}: {total:,} images in {time.monotonic() - began:.0f} s, {size / 1e6:,.1f} MB"


def _pass(network: Any, data: Dataset, folders: Mapping[str, Path]) -> Iterator[int]:
    """Send all images through the network and write its outputs, one a folder; yields how many images each time."""
    for split in ("train", "val"):
        x = getattr(data, f"x_{split}")
        with contextlib.ExitStack() as files:
            writers = [
                files.enter_context(Writer(folder / f"x_{split}.npy", (len(x), *output.shape[1:]), np.float32))
                for folder, output in zip(folders.values(), network.outputs, strict=True)
            ]
            for start in range(0, len(x), BATCH):
                batch = np.asarray(x[start : start + BATCH])
                found = network.predict_on_batch(batch)
                for writer, values in zip(writers, found if len(writers) > 1 else [found], strict=True):
                    writer.append(np.asarray(values, np.float32))
                yield len(batch)


def make_network(config: Mapping[str, Any], data: Dataset, kinds: list[str]) -> Any:
    """Images in, a list of their features out, one for each pooling."""
    import keras

    images = keras.Input(data.input_shape, name="image")
    maps = transfer.backbone_maps(config["model"], images, data.scale)
    return keras.Model(images, [transfer.pooled(maps, kind) for kind in kinds], name="features")


def _scratch(stack: contextlib.ExitStack, folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-"))
    (Path(scratch) / "new").mkdir()
    return Path(scratch) / "new"


def _complete(new: Path, folder: Path, data: Dataset, parameters: int) -> int:
    """Add what makes the folder a data set of its own, move it to its place, and return its size in bytes."""
    for split in ("train", "val"):
        put(getattr(data, f"y_{split}"), new / f"y_{split}.npy")
    shape = open_map(new / "x_train.npy").shape
    put(np.zeros((0, *shape[1:]), np.float32), new / "x_test.npy")
    put(np.zeros(0, np.int32), new / "y_test.npy")
    facts = {
        "name": data.name,
        "class_names": data.class_names,
        "source": data.source,
        "digest": data.digest,
        "scale": 1.0,
    }
    (new / "dataset.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    (new / "features.json").write_text(json.dumps({"parameters": parameters, "shape": shape[1:]}))
    size = sum(file.stat().st_size for file in new.iterdir())
    with contextlib.suppress(OSError):  # another process was faster
        os.rename(new, folder)
    if not (folder / "features.json").exists():
        raise OSError(f"model.cache: '{folder}' cannot be written")
    return size


def use_all_cores() -> None:
    """The other workers wait for this job; it can still be given their cores where no operation has run."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(0)


def with_pooling(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The same config with another pooling."""
    return {**config, "model": {**config["model"], "pooling": kind}}


def _keras_version() -> str:
    return importlib.metadata.version("keras")


def _weights_key(weights: str) -> str:
    """What tells two sets of weights apart: a file's content."""
    if weights in ("imagenet", "none"):
        return weights
    path = Path(weights).expanduser()
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"model.weights: '{weights}' cannot be read ({error.strerror})") from error
    return _content(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(64)
def _content(path: Path, size: int, time_ns: int) -> str:  # noqa: ARG001
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

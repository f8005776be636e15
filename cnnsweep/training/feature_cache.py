"""Features of a frozen backbone: computed once, kept on disk, and shared by all trials that can use them.

A trial can if nothing changes before its head: no fine-tuning, no augmentation. Its head is then trained on the
features as if they were the images; the whole network is put together again for the final evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.config.schema import Config
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.storage import Writer, new_folder, open_map, open_saved, save_array, write_description
from cnnsweep.errors import UserError
from cnnsweep.models import transfer
from cnnsweep.models.fine_tuning import is_off
from cnnsweep.training.precision import computing_in
from cnnsweep.trial import Step, TrialSpec

if TYPE_CHECKING:
    import keras

FORMAT = 2
BATCH = 64
"""Images that go through a backbone at a time; of videos as many frames."""
REPORT_SECONDS = 0.5
PREPARE = "cnnsweep.training.feature_cache.prepare"
"""As the config names it."""


@dataclass(frozen=True)
class FeatureSpec:
    """The features to compute, the images, and the folders to fill. Plain values only."""

    config: Config
    data: Path
    folders: Mapping[str, Path]
    """For each pooling; one pass of the images through the backbone serves all."""


def prepare(spec: TrialSpec) -> Step | TrialSpec:
    """Return the step that computes the features of a trial, or the trial on its features if they are there.

    A trial that cannot use features is returned as it is.
    """
    if not uses_features(spec.config):
        return spec
    data = open_saved(spec.data)
    folder = feature_folder(spec.config, data)
    if is_complete(folder):
        known = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        head = transfer.settings(spec.config).head_builder
        return dataclasses.replace(spec, data=folder, builder=head, frozen_parameters=known["parameters"])
    missing = missing_folders(spec.config, data)
    return Step(folder.parent.name, compute, FeatureSpec(spec.config, spec.data, missing))


def uses_features(config: Config) -> bool:
    """Whether a trial of this config trains its head on features that are computed once."""
    is_still = not config.data.augment.active and is_off(config.training.unfreeze)
    return is_still and bool(transfer.settings(config).cache)


def feature_folder(config: Config, data: Dataset) -> Path:
    """The folder of a config's features of this data."""
    model = transfer.settings(config)
    parts = [
        FORMAT,
        importlib.metadata.version("keras"),
        model.backbone,
        _weights_key(model.weights, config.backend),
        model.cut,
    ]
    parts += [transfer.input_size(model, data.input_shape), data.digest, round(data.scale, 9)]
    parts += [config.training.policy, data.task, data.class_names]  # the labels are in the folder too
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return Path(model.cache or "").expanduser().absolute() / "features" / key / model.pooling


def missing_folders(config: Config, data: Dataset) -> dict[str, Path]:
    """The folders of features that are not on disk, by pooling: the config's own, and those that are searched."""
    searched = (config.space.get("model") or {}).get("pooling") or {}
    kinds = sorted({transfer.settings(config).pooling, *(searched.get("values") or ())})
    folders = {kind: feature_folder(config.with_values({"model.pooling": kind}), data) for kind in kinds}
    return {kind: folder for kind, folder in folders.items() if not is_complete(folder)}


def is_complete(folder: Path) -> bool:
    """Whether all is there; a program that cleans up may have removed some."""
    try:
        open_saved(folder)
    except UserError:
        return False
    return (folder / "features.json").exists()


def compute(spec: FeatureSpec) -> Generator[str, bool, str]:
    """A job: write the features of the training and validation images; reports and returns lines for the screen.

    The test images are not touched. Memory stays bounded; a folder appears when it is complete.
    """
    began, reported = time.monotonic(), 0.0
    use_all_cores()
    data = open_saved(spec.data)
    network = make_network(spec.config, data, list(spec.folders))
    total, done = len(data.x_train) + len(data.x_val), 0
    title = f"features of {transfer.settings(spec.config).backbone_name}"
    with contextlib.ExitStack() as stack:
        new = {kind: stack.enter_context(new_folder(folder)) for kind, folder in spec.folders.items()}
        for count in _write_features(network, data, new):
            done += count
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                yield f"{title}: {done:,}/{total:,} {data.noun}"
        parameters = network.get_layer("backbone").count_params()
        size = sum(_complete(new[kind], folder, data, parameters) for kind, folder in spec.folders.items())
    return f"{title}: {total:,} {data.noun} in {time.monotonic() - began:.0f} s, {size / 1e6:,.1f} MB"


def _write_features(network: keras.Model, data: Dataset, folders: Mapping[str, Path]) -> Iterator[int]:
    """Send all images through the network and write its outputs, one a folder; yields the images of each batch."""
    size = max(1, BATCH // prod(data.input_shape[:-3]))
    for split in ("train", "val"):
        x = getattr(data, f"x_{split}")
        with contextlib.ExitStack() as files:
            writers = [
                files.enter_context(Writer(folder / f"x_{split}.npy", (len(x), *output.shape[1:]), np.float32))
                for folder, output in zip(folders.values(), network.outputs, strict=True)
            ]
            for start in range(0, len(x), size):
                batch = np.asarray(x[start : start + size])
                found = network.predict_on_batch(batch)
                for writer, values in zip(writers, found if len(writers) > 1 else [found], strict=True):
                    writer.append(np.asarray(values, np.float32))
                yield len(batch)


def make_network(config: Config, data: Dataset, kinds: list[str]) -> keras.Model:
    """Images in, a list of their features out, one for each pooling."""
    import keras

    with computing_in(config.training.policy):
        images = keras.Input(data.input_shape, name="image")
        found = transfer.all_features(transfer.settings(config), images, data.scale, kinds)
        return keras.Model(images, found, name="features")


def of_features(data: Dataset) -> Dataset:
    """The data of which features are computed; those of a video are a signal, with a step for each frame."""
    return dataclasses.replace(data, kind="signal", decoding=None) if data.kind == "video" else data


def _complete(new: Path, folder: Path, data: Dataset, parameters: int) -> int:
    """Add the files that make the folder a data set, move it to its place, and return its size in bytes."""
    for split in ("train", "val"):
        save_array(getattr(data, f"y_{split}"), new / f"y_{split}.npy")
    shape = open_map(new / "x_train.npy").shape[1:]
    save_array(np.zeros((0, *shape), np.float32), new / "x_test.npy")
    save_array(np.zeros(0, np.int32), new / "y_test.npy")
    write_description(dataclasses.replace(of_features(data), scale=1.0), new)
    (new / "features.json").write_text(json.dumps({"parameters": parameters, "shape": shape}), encoding="utf-8")
    size = sum(file.stat().st_size for file in new.iterdir())
    if not is_complete(folder):  # else another process was faster
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rename(new, folder)
    if not is_complete(folder):
        raise OSError(f"model.cache: '{folder}' cannot be written")
    return size


def use_all_cores() -> None:
    """Use the cores of the other workers, which wait for this job; it works until the first operation has run."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(0)


def _weights_key(weights: str, backend: str) -> str:
    """A digest of a file of weights, or the name of others; random ones are drawn by the backend."""
    if weights in ("imagenet", "none"):
        return weights if weights == "imagenet" else f"none, {backend}"
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

"""MNIST and Fashion-MNIST: from the four gzipped IDX files, else Keras' cache, else Keras' download."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import DataConfig
from cnnsweep.data.arrays import Array, Arrays, refuse
from cnnsweep.data.npz import REQUIRED, read_npz
from cnnsweep.errors import UserError

FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
HOLDS = {2049: "labels", 2051: "images"}
"""Meaning of the magic number at the start of a file: unsigned bytes in one dimension, or in three."""
SIZE = (28, 28)
ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
ANSWER_SECONDS = 6.0
STALL_SECONDS = 30.0


@dataclass(frozen=True)
class _Family:
    folder: str
    title: str
    module: str
    """The name in keras.datasets."""
    cached: str | None
    """The one file that Keras caches; None: the four IDX files, in `folder`."""
    first_labels: tuple[int, ...]
    """Of the training set: they identify the family, as the files of both have the same names."""
    class_names: tuple[str, ...]


_FASHION = _Family(
    folder="fashion-mnist",
    title="Fashion-MNIST",
    module="fashion_mnist",
    cached=None,
    first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)
_MNIST = _Family(
    folder="mnist",
    title="MNIST",
    module="mnist",
    cached="mnist.npz",
    first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    class_names=tuple("0123456789"),
)


@configured_by(DataConfig)
def fashion_mnist(config: DataConfig) -> Arrays:
    """60,000 + 10,000 images of clothes, 28×28 grey. Raises one UserError for all faults of the files."""
    return _load(_FASHION, config.dir)


@configured_by(DataConfig)
def mnist(config: DataConfig) -> Arrays:
    """60,000 + 10,000 handwritten digits, 28×28 grey. Raises one UserError for all faults of the files."""
    return _load(_MNIST, config.dir)


def read_idx(path: Path, holds: str) -> Array:
    """Read one IDX file, gzipped or not, of "images", uint8 (n, height, width), or "labels", uint8 (n,).

    Raises ValueError with the fault.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except EOFError:
        raise ValueError("truncated: the compressed data ends too early") from None
    except (OSError, zlib.error) as error:
        raise ValueError(f"cannot be read as gzip ({error})") from None
    magic = int.from_bytes(raw[:4], "big")
    if HOLDS.get(magic) != holds:
        found = f"holds {HOLDS[magic]}" if magic in HOLDS else "is no IDX file"
        raise ValueError(f"{found} (magic number {magic}), expected {holds}")
    start = 4 + 4 * (3 if holds == "images" else 1)
    shape = tuple(np.frombuffer(raw[4:start], ">u4").tolist()) if len(raw) >= start else ()
    expected = start + int(np.prod(shape, dtype=object))
    if len(raw) != expected or not shape:
        raise ValueError(f"{len(raw):,} bytes, but its header {shape} promises {expected:,}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _load(family: _Family, folder: str | None) -> Arrays:
    tried: list[str] = []
    if folder:
        base = Path(folder).expanduser()
        for place in (base / family.folder, base):
            missing = [name for name in FILES.values() if not _file(place, name).is_file()]
            if not missing:
                return _read_folder(family, place, hint="")
            if len(missing) < len(FILES):
                refuse([f"{place / name}: not found, though others of the four files are" for name in missing])
            tried.append(f"{place} ({'no IDX files' if place.is_dir() else 'no such folder'})")
    else:
        tried.append("data.dir and CNNSWEEP_DATA_DIR (not set)")
    for cache in cache_folders():
        if (arrays := _read_cache(family, cache)) is not None:
            return arrays
        tried.append(f"Keras' cache {cache / (family.cached or family.folder)} (not there or incomplete)")
    return _download(family, tried)


def _file(folder: Path, name: str) -> Path:
    """One of `FILES`, which some browsers unpack."""
    return next((path for path in (folder / name, folder / name.removesuffix(".gz")) if path.is_file()), folder / name)


def _read_cache(family: _Family, cache: Path) -> Arrays | None:
    hint, path = "; delete it and Keras downloads it again", cache / (family.cached or family.folder)
    if not all(file.is_file() for file in ([path] if family.cached else [path / name for name in FILES.values()])):
        return None
    if family.cached is None:
        return _read_folder(family, path, hint)
    try:
        found = read_npz(path, REQUIRED)
    except UserError as error:
        raise UserError(f"{error}{hint}") from error
    return _arrays(family, found, str(path), {}, hint)


def _read_folder(family: _Family, folder: Path, hint: str) -> Arrays:
    found: dict[str, Array] = {}
    faults = []
    for key, name in FILES.items():
        try:
            found[key] = read_idx(_file(folder, name), "images" if key.startswith("x") else "labels")
        except ValueError as error:
            faults.append(f"{folder / name}: {error}{hint}")
    if faults:
        refuse(faults)
    return _arrays(family, found, str(folder), {key: str(folder / name) for key, name in FILES.items()}, hint)


def _arrays(family: _Family, found: dict[str, Array], source: str, files: dict[str, str], hint: str) -> Arrays:
    arrays = Arrays(
        x_train=found["x_train"],
        y_train=found["y_train"],
        x_test=found["x_test"],
        y_test=found["y_test"],
        class_names=family.class_names,
        source=source,
        name=family.module,
        files=files,
    )
    other = _MNIST if family is _FASHION else _FASHION
    faults = [
        f"{arrays.place(key)}: images of {found[key].shape[1:]}, expected {SIZE}"
        for key in ("x_train", "x_test")
        if found[key].shape[1:] != SIZE
    ]
    if tuple(found["y_train"][:10].tolist()) == other.first_labels:
        faults.append(f"{arrays.place('y_train')}: the labels of {other.title}, expected {family.title}")
    if len(found["x_test"]) > len(found["x_train"]):
        counts = f"{len(found['x_train']):,} training and {len(found['x_test']):,} test images"
        faults.append(f"{arrays.place('x_train')}: {counts}, so the two look swapped")
    if faults:
        refuse([fault + hint for fault in faults])
    return arrays


def _download(family: _Family, tried: list[str]) -> Arrays:
    try:
        (x_train, y_train), (x_test, y_test) = download(family.module, family.cached or FILES["x_train"])
    except UserError as error:
        tried.append(f"a download by Keras ({error})")
        put = f"Put {', '.join(FILES.values())} into DIR/{family.folder}/ and set data.dir=DIR"
        free = "data=digits (or +sweep=digits) needs no download."
        lines = "".join(f"\n  {place}" for place in tried)
        raise UserError(
            f"{family.title} was not found. Tried:{lines}\n{put} (or CNNSWEEP_DATA_DIR).\n{free}"
        ) from error
    found = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return _arrays(family, found, f"{ORIGIN} (downloaded by Keras)", {}, "")


def cache_folders() -> list[Path]:
    """The folders where Keras keeps data sets, found without importing it; the first is where people put files."""
    spare = Path("/tmp/.keras")
    home = Path(os.path.expanduser("~"))
    default = home / ".keras" if os.access(home, os.W_OK) else spare
    base = Path(os.path.expanduser(os.environ["KERAS_HOME"])) if "KERAS_HOME" in os.environ else default
    # Keras itself looks into its spare folder only where it cannot write to the first.
    bases = [base] if os.access(base, os.W_OK) or base == spare else [base, spare]
    return [folder / "datasets" for folder in bases]


def download(module: str, file: str) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Let `keras.datasets.<module>` download and read its files, of which `file` is one.

    Raises UserError within seconds where the server cannot be reached.
    """
    reason = find_obstacle(ORIGIN + file)
    if reason:
        raise UserError(f"no answer from {ORIGIN}{file}: {reason}")
    import keras

    try:
        with stall_limit():
            return getattr(keras.datasets, module).load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise UserError(f"the download failed: {error}") from error


def find_obstacle(url: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """The reason why no server answers at `url`; None if one answers, with any status. Honours proxy settings."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                outcome.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            outcome.append(None)
        except Exception as error:  # any error is the reason
            outcome.append(str(getattr(error, "reason", error)))

    # In a thread, because a name server that does not answer is outside any socket's timeout.
    thread = threading.Thread(target=ask, name="cnnsweep-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"none within {seconds:g} s"


@contextmanager
def stall_limit() -> Iterator[None]:
    """Give up connections that are silent for `STALL_SECONDS`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

"""Decoded images on disk, keyed by the files' content and by how they are decoded.

A second key, of names, sizes and times, spares reading the files again where nothing has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from cnnsweep.data.arrays import Array
from cnnsweep.data.decode import BadImageError, decode
from cnnsweep.data.layout import File, Layout
from cnnsweep.data.mapped import Writer
from cnnsweep.errors import UserError

FORMAT = 1
"""Raised when the files or the decoding change."""
AHEAD = 32
"""Images a thread that may wait in memory to be written."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Decoding:
    """How files become pixels; see `decode`."""

    size: tuple[int, int]
    """(height, width)"""
    color: str
    resize: str


def open_decoded(cache: Path, layout: Layout, decoding: Decoding) -> tuple[Path, list[str]]:
    """Return the folder with the decoded images, and a line for each file that could not be decoded.

    For each split the folder holds SPLIT.npy, uint8 (images, height, width, channels), and SPLIT-labels.npy; its
    name is a digest of the content. Memory stays bounded, however many images there are. Raises UserError where
    the cache cannot be written.
    """
    root = cache.expanduser().absolute() / "images"
    try:
        (root / "index").mkdir(parents=True, exist_ok=True)
        known = root / "index" / _hash([FORMAT, str(layout.root.resolve()), layout.stat_key(), astuple(decoding)])
        if known.exists() and (root / known.read_text() / "manifest.json").exists():
            folder = root / known.read_text()
        else:
            folder = root / _content_key(layout, decoding)
            if not folder.exists():
                _build(folder, layout, decoding)
            _write(known, folder.name)
        return folder, json.loads((folder / "manifest.json").read_text())["skipped"]
    except OSError as error:
        raise UserError(f"data.cache '{cache}' cannot be used: {error}") from error


def _build(folder: Path, layout: Layout, decoding: Decoding) -> None:
    """Decode into a new folder, which appears under its name when it is complete."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        skipped: list[str] = []
        for split, files in layout.splits.items():
            skipped += _decode_split(new, split, files, layout, decoding)
        (new / "manifest.json").write_text(json.dumps({"skipped": skipped, "classes": layout.classes}))
        try:
            os.rename(new, folder)
        except OSError:  # another process was faster
            if not (folder / "manifest.json").exists():
                raise


def _decode_split(new: Path, split: str, files: list[File], layout: Layout, decoding: Decoding) -> list[str]:
    def pixels(file: File) -> Array | str:
        try:
            return decode(file.path.read_bytes(), *astuple(decoding))
        except BadImageError as error:
            return f"{layout.relative(file.path)}: {error}"
        except OSError as error:
            return f"{layout.relative(file.path)}: cannot be read ({error.strerror})"

    channels = 3 if decoding.color == "rgb" else 1
    labels, skipped = [], []
    with Writer(new / f"{split}.npy", (len(files), *decoding.size, channels), np.uint8) as writer:
        results = _in_order(pixels, _shown(files, f"decoding {split}"))
        for file, result in zip(files, results, strict=True):
            if isinstance(result, str):
                skipped.append(result)
            else:
                writer.append(result[np.newaxis])
                labels.append(file.label)
    np.save(new / f"{split}-labels.npy", np.array(labels, np.int32))
    return skipped


def _content_key(layout: Layout, decoding: Decoding) -> str:
    def content(file: File) -> str:
        try:
            return hashlib.sha256(file.path.read_bytes()).hexdigest()
        except OSError as error:
            return str(error.strerror)

    entries: list[Any] = [FORMAT, astuple(decoding), layout.classes]
    for split, files in layout.splits.items():
        hashes = _in_order(content, _shown(files, f"reading {split}"))
        entries += [(split, layout.relative(f.path), h) for f, h in zip(files, hashes, strict=True)]
    return _hash(entries)


def _in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map in parallel with a bounded number of results waiting; decoding and hashing leave the interpreter free."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _shown(files: list[File], words: str) -> Iterable[File]:
    console = Console(stderr=True)
    return track(files, words, console=console, transient=True, disable=not console.is_terminal)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    with contextlib.suppress(FileNotFoundError):
        os.replace(partial, path)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

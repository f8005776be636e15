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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from cnnsweep.data.arrays import Array
from cnnsweep.data.folder_layout import File, Layout
from cnnsweep.data.image_decoding import BadImageError, decode
from cnnsweep.data.mapped import Writer
from cnnsweep.errors import UserError

FORMAT = 2
"""Raised when the files or the decoding change."""
PORTION = 8
"""Files that a thread takes at a time."""
AHEAD = 4
"""Portions a thread that may wait in memory to be written."""
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
            folder = _find(root, layout, decoding) or _build(root, layout, decoding)
            _write(known, folder.name)
        return folder, json.loads((folder / "manifest.json").read_text())["skipped"]
    except OSError as error:
        raise UserError(f"data.cache '{cache}' cannot be used: {error}") from error


def _find(root: Path, layout: Layout, decoding: Decoding) -> Path | None:
    """Look for the same content under other names or times; files are only read where their sizes fit."""
    sizes = [json.loads(manifest.read_text())["sizes"] for manifest in root.glob("*/manifest.json")]
    if layout.sizes() not in sizes:
        return None
    hashes = {split: list(_in_order(_hash_file, files, f"reading {split}")) for split, files in layout.splits.items()}
    folder = root / _content_key(layout, decoding, hashes)
    return folder if folder.exists() else None


def _build(root: Path, layout: Layout, decoding: Decoding) -> Path:
    """Decode into a new folder, which appears under its name when it is complete."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        skipped: list[str] = []
        hashes: dict[str, list[str]] = {}
        for split in layout.splits:
            hashes[split] = _decode_split(new, split, layout, decoding, skipped)
        manifest = {"skipped": skipped, "classes": layout.classes, "sizes": layout.sizes()}
        (new / "manifest.json").write_text(json.dumps(manifest))
        folder = root / _content_key(layout, decoding, hashes)
        try:
            os.rename(new, folder)
        except OSError:  # another process was faster
            if not (folder / "manifest.json").exists():
                raise
    return folder


def _decode_split(new: Path, split: str, layout: Layout, decoding: Decoding, skipped: list[str]) -> list[str]:
    """Write one split's images and labels; returns the hash of each file."""

    def read(file: File) -> tuple[str, Array | str]:
        try:
            raw = file.path.read_bytes()
            return hashlib.sha256(raw).hexdigest(), decode(raw, *astuple(decoding))
        except BadImageError as error:
            return hashlib.sha256(raw).hexdigest(), str(error)
        except OSError as error:
            return str(error.strerror), f"cannot be read ({error.strerror})"

    files, channels = layout.splits[split], 3 if decoding.color == "rgb" else 1
    labels, hashes = [], []
    with Writer(new / f"{split}.npy", (len(files), *decoding.size, channels), np.uint8) as writer:
        for file, (content, pixels) in zip(files, _in_order(read, files, f"decoding {split}"), strict=True):
            hashes.append(content)
            if isinstance(pixels, str):
                skipped.append(f"{layout.relative(file.path)}: {pixels}")
            else:
                writer.append(pixels[np.newaxis])
                labels.append(file.label)
    np.save(new / f"{split}-labels.npy", np.array(labels, np.int32))
    return hashes


def _hash_file(file: File) -> str:
    try:
        return hashlib.sha256(file.path.read_bytes()).hexdigest()
    except OSError as error:
        return str(error.strerror)


def _content_key(layout: Layout, decoding: Decoding, hashes: Mapping[str, list[str]]) -> str:
    entries: list[Any] = [FORMAT, astuple(decoding), layout.classes]
    for split, files in layout.splits.items():
        entries += [(split, layout.relative(f.path), h) for f, h in zip(files, hashes[split], strict=True)]
    return _hash(entries)


def _in_order(function: Callable[[File], R], files: list[File], words: str) -> Iterator[R]:
    """Map in parallel, a few files at a time, with a bounded number of results waiting.

    Threads will do: reading, hashing and decoding leave the interpreter free. Two a core, since some wait for a disk.
    """
    threads = 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    portions = [files[start : start + PORTION] for start in range(0, len(files), PORTION)]
    waiting: deque[Future[list[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for portion in _shown(portions, words):
            waiting.append(pool.submit(lambda some: [function(file) for file in some], portion))
            if len(waiting) > AHEAD * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _shown(portions: list[list[File]], words: str) -> Iterable[list[File]]:
    console = Console(stderr=True)
    return track(portions, words, console=console, transient=True, disable=not console.is_terminal)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    with contextlib.suppress(FileNotFoundError):
        os.replace(partial, path)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

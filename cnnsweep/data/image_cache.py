"""Decoded images on disk, keyed by the files' content and by how they are decoded.

A second key, of names, sizes and times, spares reading files again that have not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from cnnsweep.data.arrays import Array
from cnnsweep.data.duplicates import fingerprint
from cnnsweep.data.folder_tree import show
from cnnsweep.data.storage import Writer, new_folder, open_map
from cnnsweep.errors import UserError

if TYPE_CHECKING:
    from cnnsweep.data.image_decoding import Decoding

FORMAT = 4  # raised when the files or the decoding change
PORTION = 8  # files that a thread takes at a time
AHEAD = 4  # portions a thread that may wait in memory to be written
R = TypeVar("R")


class ImageFile(NamedTuple):
    """One image file and its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class ImageFiles:
    """The files of each split of a folder, sorted by class and path."""

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, list[ImageFile]]
    folders: Mapping[str, Path]
    """The folder of each split."""
    faults: tuple[str, ...]
    """Classes and splits that cannot be used; `splits` does not have them."""
    notes: tuple[str, ...]
    """What else is not used, and what was taken for what."""

    def stat_key(self) -> list[tuple[object, ...]]:
        """Changes with every change of a file that the file system knows of."""
        stats = ((s, f, _stat(f.path)) for s, files in self.splits.items() for f in files)
        return [(s, self.relative(f.path), f.label, t.st_size, t.st_mtime_ns, t.st_ctime_ns) for s, f, t in stats]

    def sizes(self) -> list[int]:
        """The number of files, and of bytes in them."""
        files = [file for split in self.splits.values() for file in split]
        return [len(files), sum(_stat(file.path).st_size for file in files)]

    def content_key(self, decoding: Decoding, hashes: Mapping[str, list[str]]) -> str:
        """Equal for the same files' contents, classes and decoding; `hashes` are those of each split's files."""
        entries: list[object] = [FORMAT, astuple(decoding), self.classes]
        for split, files in self.splits.items():
            entries += [(split, self.relative(f.path), h) for f, h in zip(files, hashes[split], strict=True)]
        return _hash(entries)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def kept(self, decoded: Decoded) -> dict[str, list[str]]:
        """The names of the files of each split that could be decoded."""
        places = {split: decoded.array(split, "kept") for split in self.splits}
        return {s: [show(self.relative(self.splits[s][i].path)) for i in found] for s, found in places.items()}

    def without(self, classes: Collection[str], splits: Collection[str], reasons: Sequence[str]) -> ImageFiles:
        """Leave out classes and splits; the reasons are added to the faults."""
        kept = [name for name in self.classes if name not in classes]
        labels = {self.classes.index(name): label for label, name in enumerate(kept)}
        files = {
            split: [ImageFile(f.path, labels[f.label]) for f in found if f.label in labels]
            for split, found in self.splits.items()
            if split not in splits
        }
        return replace(self, classes=tuple(kept), splits=files, faults=(*self.faults, *reasons))


@dataclass(frozen=True)
class Decoded:
    """The folder with the decoded images: for each split SPLIT.npy, uint8 (images, height, width, channels),
    SPLIT-labels.npy, SPLIT-kept.npy, the places of these files in the list of all, and SPLIT-prints.npy, the
    fingerprints of their pixels. Its name is a digest of the content.
    """

    folder: Path
    skipped: list[str]
    """A line for each file that could not be decoded."""
    decoding: Decoding
    """With the range of values, where there are grey images of more than 8 bits."""
    deep_colours: int
    """Images of more than 8 bits a colour, of which the upper 8 are read."""

    def array(self, split: str, name: str = "") -> Array:
        """One of the arrays of a split, mapped: its images, or its "labels", "kept" or "prints"."""
        return open_map(self.folder / (f"{split}-{name}.npy" if name else f"{split}.npy"))


def open_decoded(cache: Path, images: ImageFiles, decoding: Decoding) -> Decoded:
    """Decode the images, or find them decoded.

    Memory stays bounded, however many images there are. Raises UserError where the cache cannot be written.
    """
    root = cache.expanduser().absolute() / "images"
    try:
        (root / "index").mkdir(parents=True, exist_ok=True)
        known = root / "index" / _hash([FORMAT, str(images.root.resolve()), images.stat_key(), astuple(decoding)])
        if known.exists() and (root / known.read_text(encoding="utf-8") / "manifest.json").exists():
            folder = root / known.read_text(encoding="utf-8")
        else:
            folder = _find(root, images, decoding) or _build(root, images, decoding)
            _write(known, folder.name)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"data.cache '{cache}' cannot be used: {error}") from error
    return Decoded(folder, manifest["skipped"], decoding.of(manifest["decoding"]), manifest["deep_colours"])


def _find(root: Path, images: ImageFiles, decoding: Decoding) -> Path | None:
    """Look for the same content under other names or times; files are only read where their sizes fit."""
    sizes = [json.loads(manifest.read_text(encoding="utf-8"))["sizes"] for manifest in root.glob("*/manifest.json")]
    if images.sizes() not in sizes:
        return None
    hashes = {split: list(_in_order(_hash_file, files, f"reading {split}")) for split, files in images.splits.items()}
    folder = root / images.content_key(decoding, hashes)
    return folder if folder.exists() else None


def _build(root: Path, images: ImageFiles, decoding: Decoding) -> Path:
    """Decode into a new folder, which appears under its name when it is complete."""
    from cnnsweep.data import image_decoding

    with new_folder(root / "images") as new, image_decoding.any_size():
        full, deep_colours = _find_values(images, decoding)
        skipped: list[str] = []
        hashes = {split: _decode_split(new, split, images, full, skipped) for split in images.splits}
        manifest = {
            "skipped": skipped,
            "classes": images.classes,
            "sizes": images.sizes(),
            "decoding": asdict(full),
            "deep_colours": deep_colours,
        }
        (new / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        folder = root / images.content_key(decoding, hashes)
        try:
            os.rename(new, folder)
        except OSError:  # another process was faster
            if not (folder / "manifest.json").exists():
                raise
    return folder


def _find_values(images: ImageFiles, decoding: Decoding) -> tuple[Decoding, int]:
    """Add the range of values of the training images of more than 8 bits; count those that have colours."""
    from cnnsweep.data import image_decoding

    def look(file: ImageFile) -> tuple[float, float] | str | None:
        try:
            with file.path.open("rb") as opened:
                start = opened.read(image_decoding.START)
                if not image_decoding.may_be_deep(start):
                    return None
                return image_decoding.deep_values(start + opened.read(), decoding.max_megapixels)
        except OSError:
            return None

    found = [deep for deep in _in_order(look, images.splits["train"], "reading train") if deep]
    grey = [values for values in found if not isinstance(values, str)]
    if grey:
        low, high = min(low for low, _ in grey), max(high for _, high in grey)
        decoding = replace(decoding, values=image_decoding.value_range(low, high))
    return decoding, len(found) - len(grey)


def _decode_split(new: Path, split: str, images: ImageFiles, decoding: Decoding, skipped: list[str]) -> list[str]:
    """Write one split's images and labels; returns the hash of each file."""
    from cnnsweep.data import image_decoding

    def read(file: ImageFile) -> tuple[str, Array | str]:
        try:
            raw = file.path.read_bytes()
            return hashlib.sha256(raw).hexdigest(), image_decoding.decode(raw, decoding)
        except image_decoding.BadImageError as error:
            return hashlib.sha256(raw).hexdigest(), str(error)
        except OSError as error:
            return str(error.strerror), f"cannot be read ({error.strerror})"

    files, channels = images.splits[split], 3 if decoding.color == "rgb" else 1
    labels, hashes, kept, prints = [], [], [], []
    with Writer(new / f"{split}.npy", (len(files), *decoding.size, channels), np.uint8) as writer:
        read_files = zip(files, _in_order(read, files, f"decoding {split}"), strict=True)
        for position, (file, (content, pixels)) in enumerate(read_files):
            hashes.append(content)
            if isinstance(pixels, str):
                skipped.append(f"{show(images.relative(file.path))}: {pixels}")
            else:
                writer.append(pixels[np.newaxis])
                labels.append(file.label)
                kept.append(position)
                prints.append(fingerprint(pixels))
    np.save(new / f"{split}-labels.npy", np.array(labels, np.int32))
    np.save(new / f"{split}-kept.npy", np.array(kept, np.int32))
    np.save(new / f"{split}-prints.npy", np.array(prints, np.uint64))
    return hashes


def _hash_file(file: ImageFile) -> str:
    try:
        return hashlib.sha256(file.path.read_bytes()).hexdigest()
    except OSError as error:
        return str(error.strerror)


def _in_order(function: Callable[[ImageFile], R], files: list[ImageFile], text: str) -> Iterator[R]:
    """Map in parallel, a few files at a time, with a bounded number of results waiting.

    Threads suffice: reading, hashing and decoding release the interpreter. Two a core, since some wait for a disk.
    """
    from rich.console import Console
    from rich.progress import track

    threads = 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    portions = [files[start : start + PORTION] for start in range(0, len(files), PORTION)]
    waiting: deque[Future[list[R]]] = deque()
    console = Console(stderr=True)
    with ThreadPoolExecutor(threads) as pool:
        for portion in track(portions, text, console=console, transient=True, disable=not console.is_terminal):
            waiting.append(pool.submit(lambda some: [function(file) for file in some], portion))
            if len(waiting) > AHEAD * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    with contextlib.suppress(FileNotFoundError):
        os.replace(partial, path)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        return path.lstat()

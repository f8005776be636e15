"""Decoded images, sounds and videos on disk, keyed by the files' content and by how they are decoded.

A second key, of names, sizes and times, spares reading files again that have not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from cnnsweep.data import image_depth
from cnnsweep.data.arrays import Array
from cnnsweep.data.duplicates import fingerprint
from cnnsweep.data.folder_tree import show
from cnnsweep.data.storage import Writer, new_folder, open_map
from cnnsweep.errors import UserError

if TYPE_CHECKING:
    from cnnsweep.data.decoding import FileDecoding

FORMAT = 6  # raised when the files or the decoding change
PORTION = 8  # files that a thread takes at a time
BYTES = 2**21  # and that they decode to; more than one file at a time only where these are enough
AHEAD = 4  # portions a thread that may wait in memory to be written
R = TypeVar("R")


class ImageFile(NamedTuple):
    """One file and its class: an image, a sound or a video, which may be a folder of frames."""

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
        found = ((s, f.label, path) for s, files in self.splits.items() for f in files for path in _parts(f.path))
        stats = ((s, label, path, _stat(path)) for s, label, path in found)
        return [(s, self.relative(path), label, t.st_size, t.st_mtime_ns, t.st_ctime_ns) for s, label, path, t in stats]

    def sizes(self) -> list[int]:
        """The number of files, and of bytes in them."""
        files = [part for split in self.splits.values() for file in split for part in _parts(file.path)]
        return [len(files), sum(_stat(file).st_size for file in files)]

    def content_key(self, decoding: FileDecoding, hashes: Mapping[str, list[str]]) -> str:
        """Equal for the same files' contents, classes and decoding; `hashes` are those of each split's files."""
        entries: list[object] = [FORMAT, type(decoding).__name__, astuple(decoding), self.classes]
        for split, files in self.splits.items():
            entries += [(split, self.relative(f.path), f.label, h) for f, h in zip(files, hashes[split], strict=True)]
        return _hash(entries)

    def relative(self, path: Path) -> str:
        if path.is_relative_to(self.root):
            return path.relative_to(self.root).as_posix()
        return Path(os.path.relpath(path, self.root)).as_posix()  # a table may name any

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
    """The folder with the decoded files: for each split SPLIT.npy, of images uint8 (images, height, width, channels),
    SPLIT-labels.npy, SPLIT-kept.npy, the places of these files in the list of all, and SPLIT-prints.npy, the
    fingerprints of what they hold. Its name is a digest of the content.
    """

    folder: Path
    skipped: list[str]
    """A line for each file that could not be decoded."""
    decoding: FileDecoding
    """With the range of values, where there are grey images of more than 8 bits."""
    deep: image_depth.Counts
    """Of images of more than 8 bits."""

    def array(self, split: str, name: str = "") -> Array:
        """One of the arrays of a split, mapped: its images, or its "labels", "kept" or "prints"."""
        return open_map(self.folder / (f"{split}-{name}.npy" if name else f"{split}.npy"))


def open_decoded(cache: Path, images: ImageFiles, decoding: FileDecoding) -> Decoded:
    """Decode the files, or find them decoded.

    Memory stays bounded, however many there are. Raises UserError where the cache cannot be written.
    """
    root = cache.expanduser().absolute() / "decoded"
    try:
        (root / "index").mkdir(parents=True, exist_ok=True)
        settings = [type(decoding).__name__, astuple(decoding)]
        known = root / "index" / _hash([FORMAT, str(images.root.resolve()), images.stat_key(), settings])
        folder = root / known.read_text(encoding="utf-8") if known.exists() else None
        if folder is None or not _is_whole(folder, images):
            folder = _find(root, images, decoding) or _build(root, images, decoding)
            _write(known, folder.name)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"data.cache '{cache}' cannot be used: {error}") from error
    return Decoded(folder, manifest["skipped"], decoding.of(manifest["decoding"]), manifest["deep"])


def _find(root: Path, images: ImageFiles, decoding: FileDecoding) -> Path | None:
    """Look for the same content under other names or times; files are only read where their sizes fit."""
    sizes = [json.loads(manifest.read_text(encoding="utf-8"))["sizes"] for manifest in root.glob("*/manifest.json")]
    if images.sizes() not in sizes:
        return None
    hashes = {split: list(_in_order(_hash_file, files, f"reading {split}")) for split, files in images.splits.items()}
    folder = root / images.content_key(decoding, hashes)
    return folder if _is_whole(folder, images) else None


def _is_whole(folder: Path, images: ImageFiles) -> bool:
    """Whether a folder of decoded files is complete; a program that cleans up may have removed some."""
    try:
        for split in images.splits:
            for name in ("", "-labels", "-kept", "-prints"):
                open_map(folder / f"{split}{name}.npy")
        return (folder / "manifest.json").exists()
    except (OSError, ValueError):
        return False


def _build(root: Path, images: ImageFiles, decoding: FileDecoding) -> Path:
    """Decode into a new folder, which appears under its name when it is complete."""
    from cnnsweep.data import image_decoding

    with new_folder(root / "files") as new, image_decoding.any_size():
        full, deep = _find_depth(images, decoding)
        skipped: list[str] = []
        hashes = {split: _decode_split(new, split, images, full, skipped) for split in images.splits}
        manifest = {
            "skipped": skipped,
            "classes": images.classes,
            "sizes": images.sizes(),
            "decoding": asdict(full),
            "deep": deep,
        }
        (new / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        folder = root / images.content_key(decoding, hashes)
        try:
            os.rename(new, folder)
        except OSError:  # another process was faster
            if not _is_whole(folder, images):
                shutil.rmtree(folder)
                os.rename(new, folder)
    return folder


def _find_depth(images: ImageFiles, decoding: FileDecoding) -> tuple[FileDecoding, dict[str, list[int]]]:
    """Add the range of values of the training images of more than 8 bits; count those of each split."""
    image = image_depth.decoding_of_images(decoding)
    if image is None:
        return decoding, {}
    most = image.max_megapixels
    found = {
        split: list(_in_order(lambda file: image_depth.depth_of(file.path, most), files, f"reading {split}"))
        for split, files in images.splits.items()
    }
    counts = {split: image_depth.count(each) for split, each in found.items()}
    return image_depth.with_values(decoding, image, found["train"]), counts


def _decode_split(new: Path, split: str, images: ImageFiles, decoding: FileDecoding, skipped: list[str]) -> list[str]:
    """Write one split's inputs and labels; returns the hash of each file."""
    files = images.splits[split]
    labels, hashes, kept, prints = [], [], [], []
    with Writer(new / f"{split}.npy", (len(files), *decoding.shape), decoding.dtype) as writer:
        portion = max(1, min(PORTION, BYTES // writer.row_bytes))
        read = _in_order(lambda file: _decode(file, decoding), files, f"decoding {split}", portion)
        for position, (file, (content, found)) in enumerate(zip(files, read, strict=True)):
            hashes.append(content)
            if isinstance(found, str):
                skipped.append(f"{show(images.relative(file.path))}: {found}")
            else:
                writer.append(found[np.newaxis])
                labels.append(file.label)
                kept.append(position)
                prints.append(fingerprint(found))
    np.save(new / f"{split}-labels.npy", np.array(labels, np.int32))
    np.save(new / f"{split}-kept.npy", np.array(kept, np.int32))
    np.save(new / f"{split}-prints.npy", np.array(prints, np.uint64))
    return hashes


def _decode(file: ImageFile, decoding: FileDecoding) -> tuple[str, Array | str]:
    """The hash of a file, and what it holds, or the reason why it cannot be used."""
    from cnnsweep.data import audio_decoding, image_decoding, video_decoding

    content = _hash_file(file)
    try:
        if isinstance(decoding, image_decoding.Decoding):
            return content, image_decoding.decode(file.path.read_bytes(), decoding)
        return content, decoding.read(file.path)
    except (image_decoding.BadImageError, audio_decoding.BadAudioError, video_decoding.BadVideoError) as error:
        return content, str(error)
    except OSError as error:
        return content, f"cannot be read ({error.strerror})"


def _hash_file(file: ImageFile) -> str:
    """A digest of a file's content, or of that of all files of a folder with their names."""
    found = []
    try:
        for path in _parts(file.path):
            with path.open("rb") as opened:
                found.append((path.name, hashlib.file_digest(opened, "sha256").hexdigest()))
    except OSError as error:
        return str(error.strerror)
    return _hash(found) if file.path.is_dir() else found[0][1]


def _parts(path: Path) -> list[Path]:
    """The file, or the files of a folder."""
    return sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]


def _in_order(
    function: Callable[[ImageFile], R], files: list[ImageFile], text: str, portion: int = PORTION
) -> Iterator[R]:
    """Map in parallel, a few files at a time, with a bounded number of results waiting.

    Threads suffice: reading, hashing and decoding release the interpreter. Two a core, since some wait for a disk.
    """
    from rich.console import Console
    from rich.progress import track

    threads = 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    portions = [files[start : start + portion] for start in range(0, len(files), portion)]
    waiting: deque[Future[list[R]]] = deque()
    console = Console(stderr=True)
    with ThreadPoolExecutor(threads) as pool:
        for some in track(portions, text, console=console, transient=True, disable=not console.is_terminal):
            waiting.append(pool.submit(lambda files: [function(file) for file in files], some))
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

"""The files of a job, on their way from the driver to a node's own folder and back."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cnnsweep.executors.base import Job

PIECE = 32 * 2**20
"""Bytes that travel as one object, so that memory stays bounded for a folder of any size."""
Stamp = tuple[int, int, int]
Piece = Any
"""Bytes, or a reference to them in Ray's object store."""
Files = Mapping[str, list[Piece] | None]
"""Relative names, and each file's pieces; None for one that was removed."""


@dataclass(frozen=True)
class Package:
    """A job with its files: those of paths that it writes to, and those of paths that it only reads."""

    task: bytes
    """The job and its argument, pickled: a node's worker can import what they need, its actor need not."""
    written: Mapping[Path, Files]
    read: Mapping[Path, tuple[str, Files]]
    """With a name that is the same for the same content of the same path."""


class Sender:
    """The driver's side. `put` moves the bytes of files that are only read to where every node can get them, once."""

    def __init__(self, put: Callable[[bytes], Piece]) -> None:
        self._put = put
        self._sent: dict[str, Files] = {}

    def pack(self, job: Job, argument: object) -> Package:
        """Read the files of all paths in a job's argument."""
        found: dict[Path, bool] = {}

        def note(path: Path, written: bool) -> Path | None:
            if written or path.exists():
                found[path] = written or found.get(path, False)
            return path if path in found else None

        task = pickle.dumps((job, replace_paths(argument, note)))
        read = [path for path, written in found.items() if not written]
        folders = [path for path, written in found.items() if written]
        return Package(
            task,
            {path: _read(path, _stamps(path, without=read)) for path in folders},
            {path: self._keep(path) for path in read},
        )

    def _keep(self, path: Path) -> tuple[str, Files]:
        folder, stamps = (path.parent, {path.name: _stamp(path)}) if path.is_file() else (path, _stamps(path))
        name = hashlib.sha256(repr((path, stamps)).encode()).hexdigest()[:24]
        if name not in self._sent:
            self._sent[name] = _read(folder, stamps, self._put)
        return name, self._sent[name]


@dataclass
class Receiver:
    """A node's side. Puts files below a folder of the node's own, and finds which of them a job has changed."""

    home: Path
    fetch: Callable[[Piece], bytes]
    _work: Path | None = None
    _folders: dict[Path, tuple[Path, dict[str, Stamp]]] = field(default_factory=dict)
    """For each of the driver's paths: the folder here, and its files when they were last sent."""

    def unpack(self, package: Package) -> dict[Path, Path]:
        """Write the files; return where each of the driver's paths is here."""
        self._work = self.home / "work" / uuid.uuid4().hex
        places = {path: self._shared(path, *sent) for path, sent in package.read.items()}
        for number, (path, files) in enumerate(package.written.items()):
            places[path] = folder = self._work / str(number)
            folder.mkdir(parents=True)
            _write(files, folder, self.fetch)
            self._folders[path] = folder, _stamps(folder)
        return places

    def changed(self) -> dict[Path, Files]:
        """The files that the job has written or removed since the last call, by the driver's paths."""
        found: dict[Path, Files] = {}
        for path, (folder, before) in self._folders.items():
            now = _stamps(folder)
            self._folders[path] = folder, now
            written = [name for name, stamp in now.items() if before.get(name) != stamp]
            if files := {**_read(folder, written), **dict.fromkeys(before.keys() - now.keys())}:
                found[path] = files
        return found

    def translate(self, value: Any) -> Any:
        """A text, such as a path or an error message, with the driver's folders in place of those here."""
        for path, (folder, _) in self._folders.items() if isinstance(value, str) else ():
            value = value.replace(str(folder), str(path))
        return value

    def clear(self) -> None:
        """Remove the job's folders; files that are only read stay for the next job."""
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
        self._work, self._folders = None, {}

    def _shared(self, path: Path, name: str, files: Files) -> Path:
        """Where this node keeps what is only read: written by the first actor that needs it, used by all."""
        folder = self.home / "data" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{name}.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _write_complete(files, folder, self.fetch)
        return folder / path.name if list(files) == [path.name] else folder


def replace_paths(value: Any, replace: Callable[[Path, bool], Path | None], name: str = "") -> Any:
    """Return a job's argument with other paths; `replace` gets each, and whether it is written to.

    Those called `data` and the file that a config's `weights` names are only read. None leaves a path as it is.
    """
    if isinstance(value, Path):
        return replace(value.absolute(), name != "data") or value
    if isinstance(value, str):
        file = replace(Path(value).expanduser().absolute(), False) if name == "weights" else None
        return value if file is None else str(file)
    changes = {}
    for key, part in _fields(value).items():
        if (changed := replace_paths(part, replace, str(key))) is not part:
            changes[key] = changed
    if not changes:
        return value
    if isinstance(value, BaseModel):
        return value.model_copy(update=changes)
    return {**value, **changes} if isinstance(value, Mapping) else dataclasses.replace(value, **changes)


def write_changed(changed: Mapping[Path, Files]) -> None:
    """Write and remove in the driver's folders what a job has; a folder that is not there yet appears complete."""
    for path, files in changed.items():
        _apply(files, path)


def _apply(files: Files, folder: Path) -> None:
    if not folder.exists():
        if new := {name: pieces for name, pieces in files.items() if pieces is not None}:
            _write_complete(new, folder)
        return
    below: dict[str, dict[str, list[Piece] | None]] = {}
    for name, pieces in files.items():
        if os.sep in name:
            first, _, rest = name.partition(os.sep)
            below.setdefault(first, {})[rest] = pieces
    for first, part in below.items():
        _apply(part, folder / first)
        with contextlib.suppress(OSError):  # there are files left
            (folder / first).rmdir()
    _write({name: pieces for name, pieces in files.items() if os.sep not in name}, folder)


def _fields(value: Any) -> Mapping[str, Any]:
    if isinstance(value, BaseModel):
        return dict(value)
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value):
        return {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    return {}


def _stamps(folder: Path, without: Collection[Path] = ()) -> dict[str, Stamp]:
    """A stamp for each file below a folder that changes with it; hidden and unfinished files are skipped."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and Path(place, f) not in without]
        for name in names:
            if not (name.startswith(".") or ".npz." in name):
                with contextlib.suppress(OSError):
                    found[os.path.relpath(os.path.join(place, name), folder)] = _stamp(Path(place, name))
    return found


def _stamp(file: Path) -> Stamp:
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(folder: Path, names: Collection[str], put: Callable[[bytes], Piece] = bytes) -> Files:
    """Read files. Names of one file, such as the last epoch that is also the best, share its pieces."""
    files: dict[str, list[Piece] | None] = {}
    seen: dict[int, list[Piece]] = {}
    for name in names:
        with (folder / name).open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode not in seen:
                seen[inode] = [put(piece) for piece in iter(lambda: file.read(PIECE), b"")]
            files[name] = seen[inode]
    return files


def _write_complete(files: Files, folder: Path, fetch: Callable[[Piece], bytes] = bytes) -> None:
    """Write a folder in one step."""
    new = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    _write(files, new, fetch)
    os.rename(new, folder)


def _write(files: Files, folder: Path, fetch: Callable[[Piece], bytes] = bytes) -> None:
    """Write files, each in one step, or remove them."""
    for name, pieces in files.items():
        path = folder / name
        if pieces is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with new.open("wb") as file:
                file.writelines(map(fetch, pieces))
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise

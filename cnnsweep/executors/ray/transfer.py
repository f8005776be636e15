"""What a job reads and writes, told from its argument, and carried to where the driver's folders cannot be seen."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE = 32 * 2**20
"""Bytes that travel as one object, so that memory stays bounded whatever a folder holds."""
MARK = ".cnnsweep-seen-by-"
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A path in a job's argument, and how another machine can tell that it sees the very same."""

    path: Path
    written: bool
    key: str
    """Names the place in a storage."""
    mark: Path | None
    """A file that only the driver can have put there, near a place that is written to."""
    token: str
    stamps: Mapping[str, tuple[int, int]]
    """Size and time of each file of a place that is only read."""

    def is_seen(self) -> bool:
        """Whether this machine sees the place as the driver does."""
        if not self.written:
            return bool(self.stamps) and told(self.path) == self.stamps
        with contextlib.suppress(OSError):
            return self.mark is not None and self.mark.read_text() == self.token
        return False


@dataclass(frozen=True)
class Cargo:
    """Files on their way: for each name its pieces, and what holds the same bytes under another name."""

    pieces: Mapping[str, list[Any]]
    links: Mapping[str, str]


def named(value: Any, name: str = "") -> Iterator[tuple[Path, bool]]:
    """The paths in a job's argument, and whether they are written to: those called `data` and weights are not."""
    if isinstance(value, Path):
        yield value.absolute(), name != "data"
    elif isinstance(value, str):
        if (file := _weights(value, name)) is not None:
            yield file, False
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for part in dataclasses.fields(value):
            yield from named(getattr(value, part.name), part.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from named(item, str(key))


def moved(value: Any, where: Mapping[Path, Path], name: str = "") -> Any:
    """The same argument with its paths replaced."""
    if isinstance(value, Path):
        return where.get(value.absolute(), value)
    if isinstance(value, str):
        file = _weights(value, name)
        return str(where[file]) if file is not None and file in where else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {p.name: getattr(value, p.name) for p in dataclasses.fields(value)}
        changes = {key: moved(part, where, key) for key, part in parts.items()}
        return dataclasses.replace(value, **{key: part for key, part in changes.items() if part is not parts[key]})
    if isinstance(value, Mapping):
        items = {key: moved(item, where, str(key)) for key, item in value.items()}
        return items if any(items[key] is not item for key, item in value.items()) else value
    return value


def told(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of a file, or of each in a folder; {} where there is none."""
    found = {}
    with contextlib.suppress(OSError):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                found[file.name] = stat.st_size, stat.st_mtime_ns
    return found


def stamps(folder: Path, without: Collection[Path] = ()) -> dict[str, Stamp]:
    """What changes with each file below a folder; hidden ones and what is being written aside."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and Path(place, f) not in without]
        for name in names:
            with contextlib.suppress(OSError):
                if not (name.startswith(".") or ".npz." in name):
                    stat = Path(place, name).stat()
                    found[os.path.relpath(os.path.join(place, name), folder)] = (
                        stat.st_ino, stat.st_size, stat.st_mtime_ns,
                    )  # fmt: skip
    return found


def pack(folder: Path, names: Collection[str], keep: Callable[[bytes], Any] = lambda piece: piece) -> Cargo:
    """Read files, each content once; `keep` puts a piece where it travels."""
    pieces: dict[str, list[Any]] = {}
    links: dict[str, str] = {}
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        with (folder / name).open("rb") as file:
            stat = os.fstat(file.fileno())
            first = seen.setdefault((stat.st_dev, stat.st_ino), name)
            if first != name:
                links[name] = first
            else:
                pieces[name] = [keep(piece) for piece in iter(lambda: file.read(PIECE), b"")]
    return Cargo(pieces, links)


def unpack(cargo: Cargo, folder: Path, fetch: Callable[[Any], bytes] = lambda piece: piece) -> None:
    """Write the files, each in one step; `fetch` gets a piece from where `keep` put it."""
    for name, pieces in cargo.pieces.items():
        with _replaced(folder / name) as new, new.open("wb") as file:
            for piece in pieces:
                file.write(fetch(piece))
    for name, first in cargo.links.items():
        with _replaced(folder / name) as new:
            try:
                os.link(folder / first, new)
            except OSError:  # a file system without hard links
                shutil.copyfile(folder / first, new)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _weights(value: str, name: str) -> Path | None:
    file = Path(value).expanduser().absolute() if name == "weights" else None
    return file if file is not None and file.is_file() else None

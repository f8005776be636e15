"""The driver's side of what travels: the places of a job, their files to the node that lacks them, and back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from cnnsweep.executors.ray import transfer as cargo
from cnnsweep.executors.ray.depot import Depot
from cnnsweep.executors.ray.transfer import MARK, Cargo, Place


class Manifest:
    """Knows what is where. `base` is the folder that a driver works in; `put` keeps bytes where nodes can get them."""

    def __init__(self, base: Path | None, storage: str | None, put: Callable[[bytes], Any]) -> None:
        self._base = base
        self._depot = Depot(storage) if storage is not None else None
        self._put = put
        self._token = uuid.uuid4().hex
        self._marks: dict[Path, Path | None] = {}
        self._kept: dict[str, Cargo] = {}
        self._stored: set[str] = set()

    def places(self, argument: Any) -> list[Place]:
        """The places that a job's argument names."""
        found: dict[Path, bool] = {}
        for path, written in cargo.named(argument):
            found[path] = written or found.get(path, False)
        return [self.place(path, written) for path, written in found.items()]

    def place(self, path: Path, written: bool) -> Place:
        """One place as it is now."""
        key = _digest(platform.node(), path)
        if self._base is not None and path.is_relative_to(self._base):
            home = f"{self._base.name}-{_digest(platform.node(), self._base)[:8]}"
            key = f"{home}/{path.relative_to(self._base)}"
        if written:
            return Place(path, True, key, self._mark(path), self._token, {})
        stamps = cargo.told(path)
        return Place(path, False, key, None, _digest(str(path), stamps), stamps)

    def load(self, places: Collection[Place]) -> dict[Path, Cargo]:
        """The files of these places, on their way to a node."""
        return {place.path: self._load(place, places) for place in places}

    def unload(self, arrived: Mapping[Path, Cargo]) -> None:
        """Write what a job has written on its node. A folder that is not there yet appears complete."""
        for path, files in arrived.items():
            if path.exists():
                cargo.unpack(files, path)
                continue
            new = path.with_name(f".{path.name}-{os.getpid()}")
            shutil.rmtree(new, ignore_errors=True)
            cargo.unpack(files, new)
            os.rename(new, path)

    def fetch(self, places: Collection[Place]) -> None:
        """Bring home what a job has left in the storage, and clear it there."""
        for place in places:
            if self._depot is not None and place.key in self._stored:
                self._depot.get(place.key, place.path)
                self._depot.remove(place.key)
                self._stored.discard(place.key)

    def close(self) -> None:
        """Remove the marks."""
        for mark in self._marks.values():
            if mark is not None:
                with contextlib.suppress(OSError):
                    mark.unlink()
        self._marks.clear()

    def _load(self, place: Place, places: Collection[Place]) -> Cargo:
        if not place.written:
            if place.token not in self._kept:
                folder = place.path if place.path.is_dir() else place.path.parent
                self._kept[place.token] = cargo.pack(folder, list(place.stamps), self._put)
            return self._kept[place.token]
        names = cargo.stamps(place.path, [p.path for p in places if not p.written])
        if self._depot is None:
            return cargo.pack(place.path, list(names))
        self._stored.add(place.key)
        self._depot.get(place.key, place.path)  # what a driver that died did not bring home
        self._depot.put(place.path, list(cargo.stamps(place.path)), place.key)
        return Cargo({}, {})

    def _mark(self, path: Path) -> Path | None:
        """A file near the path that tells a node that it sees the same folders as this driver."""
        root = self._base if self._base is not None and path.is_relative_to(self._base) else path
        while not root.is_dir() and root != root.parent:
            root = root.parent
        if root not in self._marks:
            mark = root / f"{MARK}{self._token[:12]}"
            try:
                mark.write_text(self._token)
                self._marks[root] = mark
            except OSError:
                self._marks[root] = None
        return self._marks[root]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

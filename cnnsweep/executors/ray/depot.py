"""A storage that every node of a cluster reaches: a folder they share, or an address that fsspec understands."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError


class Depot:
    """Files under keys; each file is put in one step."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = _open(address)

    def put(self, folder: Path, names: Collection[str], key: str) -> None:
        """Store files of a folder under a key."""
        for name in names:
            target = f"{self._root}/{key}/{name}"
            self._files.makedirs(os.path.dirname(target), exist_ok=True)
            self._files.put_file(str(folder / name), f"{target}.part")
            self._files.mv(f"{target}.part", target)

    def get(self, key: str, folder: Path) -> None:
        """Write all files of a key to a folder, each in one step."""
        root = f"{self._root}/{key}"
        self._files.invalidate_cache()  # others write here
        for found in self._files.find(root) if self._files.exists(root) else ():
            if found.endswith(".part"):
                continue
            path = folder / os.path.relpath(found, root)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.{os.getpid()}")
            self._files.get_file(found, str(new))
            os.replace(new, path)

    def remove(self, key: str) -> None:
        """Forget a key, if it is there."""
        self._files.invalidate_cache()
        if self._files.exists(f"{self._root}/{key}"):
            self._files.rm(f"{self._root}/{key}", recursive=True)

    def write(self, key: str, text: str) -> None:
        """Store a short text."""
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{key}", text.encode())

    def read(self, key: str) -> str:
        """Return a text, or raise FileNotFoundError."""
        return bytes(self._files.cat_file(f"{self._root}/{key}")).decode()


def exchange(address: str, key: str, expected: str, answer: str) -> None:
    """A node's half of the probe: read what the driver wrote, and write an answer. Raises where it cannot."""
    depot = Depot(address)
    if (found := depot.read(key)) != expected:
        raise OSError(f"holds '{found}' where the driver wrote '{expected}'")
    depot.write(f"{key}-answer", answer)


def new_key() -> str:
    return f".probe-{uuid.uuid4().hex[:12]}"


def _open(address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UserError('executor.storage needs fsspec: pip install "cnnsweep[ray]"') from error
    try:
        files, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UserError(f"executor.storage: '{address}' cannot be used: {error}") from error
    return files, str(root).rstrip("/")

"""Layers and functions of the user's own in a saved model, which Keras finds only once their module is imported."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path


def own_layers(model: Path) -> tuple[str, ...]:
    """The names of those in a .keras file, by alphabet."""
    with zipfile.ZipFile(model) as file:
        saved = json.loads(file.read("config.json"))
    return tuple(sorted({*_own({**saved, "compile_config": None})}))


def _own(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        registered = str(part.get("registered_name") or "")
        if ">" in registered:  # PACKAGE>NAME, of keras.saving.register_keras_serializable
            yield registered.partition(">")[2]
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from _own(inner)

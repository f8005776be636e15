"""Keras, imported without scikit-learn, SciPy and pyplot, which take a third of the time and which few jobs use.

Keras imports them for its scikit-learn wrappers and its galleries of images. Once this module is imported, they are
loaded at their first use.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

LAZY = ("keras.wrappers", "matplotlib.pyplot")


class _LazyFinder(MetaPathFinder):
    """Finds the modules of `LAZY`, each to be executed when an attribute of it is asked for."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LAZY else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


if "keras" not in sys.modules:
    _finder = _LazyFinder()
    sys.meta_path.insert(0, _finder)
    try:
        importlib.import_module("keras")
    finally:
        sys.meta_path.remove(_finder)

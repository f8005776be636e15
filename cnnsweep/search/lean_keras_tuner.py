"""KerasTuner's `Oracle`, imported without the rest of KerasTuner, which imports Keras and TensorFlow.

A driver trains nothing: without them it starts seconds earlier and needs half a gigabyte less. KerasTuner's packages
are put in place unexecuted; each is executed when an attribute of it is asked for that is no module of its own.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import Any

LAZY = ("keras_tuner", "keras_tuner.src", "keras_tuner.src.backend", "keras_tuner.src.backend.keras")


def _postpone(spec: ModuleSpec) -> None:
    """Put a module in place that is executed at its first use."""
    module = module_from_spec(spec)

    def execute(attribute: str) -> Any:
        if attribute.startswith("__") and attribute not in ("__all__", "__version__"):
            raise AttributeError(f"module '{spec.name}' has no attribute '{attribute}'")
        name = f"{spec.name}.{attribute}"
        if PathFinder.find_spec(name, spec.submodule_search_locations or ()):
            return importlib.import_module(name)
        if spec.loader is not None and module.__dict__.pop("__getattr__", None):
            spec.loader.exec_module(module)
        return getattr(module, attribute)

    module.__dict__["__getattr__"] = execute  # as in PEP 562
    sys.modules[spec.name] = module
    parent, _, name = spec.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)


if not {"keras", "keras_tuner"} & sys.modules.keys():
    _path = None
    for _name in LAZY:
        _spec = PathFinder.find_spec(_name, _path)
        if _spec is None:
            break
        _postpone(_spec)
        _path = _spec.submodule_search_locations

from keras_tuner.src.engine.objective import Objective  # noqa: E402
from keras_tuner.src.engine.oracle import Oracle  # noqa: E402

__all__ = ["Objective", "Oracle"]

"""Components are named in the config by a dotted path, so that a user's own stand in the user's own package."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from cnnsweep.errors import UserError, nearest
from cnnsweep.formatting import from_here

Component = TypeVar("Component")
_BELOW = 'below if __name__ == "__main__":'
_imported: list[str] = []
"""The modules that are being imported because a config names them."""


def locate(key: str, path: str) -> Any:
    """Import the class or function that a dotted path names; `key` is the config's, for the error.

    >>> locate("model.layers", "math.sqrt")(9.0)
    3.0
    """
    found = find(key, path)
    if not callable(found):
        module, _, name = str(path).rpartition(".")
        raise UserError(f"{key}: '{module}' has no class or function '{name}'")
    return found


def find(key: str, path: str) -> Any:
    """Import what a dotted path names, such as "package.module.name", of any type."""
    module_name, _, name = str(path).rpartition(".")
    _imported.append(module_name)
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:
        raise UserError(f"{key}: cannot import '{path}': {module_name} ends the program when it is imported "
                        f"(exit {error.code}); put what it runs {_BELOW}") from error  # fmt: skip
    except Exception as error:  # of any kind: the module is the user's own
        text = f"{key}: cannot import '{path}' (expected package.module.name): "
        if not isinstance(error, (ImportError, ValueError, TypeError)):
            raise UserError(f"{text}{type(error).__name__}: {error}") from error
        missing = str(error.name) if isinstance(error, ModuleNotFoundError) else ""
        where = _where_looked(missing) if missing and f"{module_name}.".startswith(f"{missing}.") else ""
        raise UserError(f"{text}{error}{where}") from error
    finally:
        _imported.pop()
    found = getattr(module, name, None)
    if module_name == "__main__" and (found is None or multiprocessing.parent_process()):  # its own is another
        raise UserError(f"{key}: workers cannot import '{name}' from a notebook or from the program that was started; "
                        f"write it to a module of its own, my_code.py, and name it my_code.{name}")  # fmt: skip
    if found is None:
        public = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(f"{key}: '{module_name}' has no class or function '{name}'{nearest(name, public)}")
    return found


def refuse_in_import() -> None:
    """Raise UserError where a module that a config names starts a sweep as it is imported: so would each worker."""
    if _imported:
        raise UserError(f"{_imported[-1]} starts a sweep when it is imported: put cnnsweep.run(...) {_BELOW}")


def _where_looked(module: str) -> str:
    """Where a module was looked for, and the nearest match there."""
    package, _, name = module.rpartition(".")
    folders = list(getattr(sys.modules.get(package), "__path__", ())) if package else [os.getcwd()]
    close = nearest(name, [found.name for found in pkgutil.iter_modules(folders)])
    more = "" if package else " and among the installed packages"
    return f"{close}; looked for in {', '.join(folders)}{more}"


def configured_by(type_: type) -> Callable[[Component], Component]:
    """Name the type of a component's section of the config, for the class or function that is decorated."""

    def decorate(component: Component) -> Component:
        component.config_type = type_  # type: ignore[attr-defined]
        return component

    return decorate


def config_type(group: str, target: str) -> Any:
    """The type that belongs to a component of this package; None for one of the user's own."""
    if not target.startswith("cnnsweep."):
        return None
    return getattr(locate(f"{group}._target_", target), "config_type", None)


def program() -> str:
    """How to start this program from here, in words to type: `python -m cnnsweep`, or with this interpreter's path."""
    found = shutil.which("python")
    known = found is not None and os.path.realpath(os.path.dirname(found)) == os.path.realpath(
        os.path.dirname(sys.executable)
    )
    path = from_here(sys.executable)
    return f"{'python' if known else shlex.quote(sys.executable if path.startswith('..') else path)} -m cnnsweep"


def short_name(target: str) -> str:
    """A component of ours as `conf/` names it, another by its whole path.

    >>> [short_name(f"cnnsweep.{name}") for name in ("search.gp.BayesianOracle", "data.npz.load", "data.mnist.mnist")]
    ['bayesian', 'npz', 'mnist']
    """
    if not target.startswith("cnnsweep."):
        return target
    module, name = target.split(".")[-2:]
    return module if name in ("load", "run") else name.removesuffix("Oracle").lower()

"""Modules of the user's own, which stand in the working folder."""

from __future__ import annotations

import os
import sys

from cnnsweep.errors import UserError

NEEDED = (
    "hydra", "keras", "keras_tuner", "matplotlib", "mlflow", "numpy", "omegaconf", "optuna", "pandas", "PIL", "plotly",
    "scipy", "sklearn", "tensorflow",
)  # fmt: skip
"""Packages that a file of their name in the working folder would hide."""


def import_from_working_folder() -> None:
    """Let a component of the user's own stand in a module beside the configs; raise where one there hides a package."""
    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working folder was removed: change to another one (cd)") from error
    for name in NEEDED:
        if os.path.isfile(path := os.path.join(folder, f"{name}.py")):
            raise UserError(f"{path} would be imported in place of the package {name}: rename it")
    sys.path.insert(0, folder)

"""No network: the job makes its own."""

from __future__ import annotations

from typing import NoReturn

from cnnsweep.errors import UserError


def build(*_: object, **__: object) -> NoReturn:
    """Raise UserError: there is nothing to build."""
    raise UserError(
        "model=none is no network: choose one (model=cnn), or a job with a function of yours (job=function)"
    )

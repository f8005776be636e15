"""Imported first by a fork server, so that it forks workers with Keras loaded; elsewhere it does nothing."""

from __future__ import annotations

import gc
import importlib
import json
import os
import traceback
from collections.abc import Sequence

from cnnsweep.executors.worker import SERVER_VARIABLE, become_background, end_with_parent


def prepare(log: str, modules: Sequence[str], driver: int | None) -> None:
    """Turn this process into the fork server: quiet, ended with `driver` (a process id), `modules` loaded."""
    become_background(log)
    if driver is not None:
        end_with_parent()
        if os.getppid() != driver:
            os._exit(0)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # the worker will meet it again and say so as its job's reason
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # a collection in a worker would touch, and so copy, all pages it shares with its siblings


if SERVER_VARIABLE in os.environ:
    prepare(**json.loads(os.environ.pop(SERVER_VARIABLE)))

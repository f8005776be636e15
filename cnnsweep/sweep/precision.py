"""The precision of a sweep's trials, settled before the first of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.executors.base import Executor, run_all
from cnnsweep.executors.devices import visible_gpus
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.training.cost_model import machine
from cnnsweep.training.precision import PRECISIONS, Device, cpu_has_bfloat16, examine

FILE = "precision.json"
KEY = "training.precision"


def settle(config: Config, executor: Executor, say: Callable[[str], None]) -> Config:
    """Replace `training.precision: auto` by the precision that suits the workers' device, the same for all trials.

    It is found once on a machine and kept in `tracking.dir`. Raises UserError where a precision that is asked for,
    or searched, is not possible on the device.
    """
    if not config.trains_networks:
        return _with(config, "float32")
    searched = [value for p in parse_space(config).parameters if p.name == KEY for value in p.choices or ()]
    if "auto" in searched:
        raise UserError(f"space.{KEY}: auto is no precision to compare; name some of {', '.join(PRECISIONS)}")
    asked = {str(value) for value in (*searched, config.training.precision)} - {"float32", "auto"}
    if config.training.precision != "auto" or searched:
        found = "float32" if config.training.precision == "auto" else config.training.precision
        if asked:
            _check(asked, _ask(executor, measure=False))
        return _with(config, found)
    if _is_plain_cpu(executor):
        return _with(config, "float32")
    path, name = Path(config.tracking.dir).absolute() / FILE, machine(config, 0)
    known = _read(path)
    if known.get(name) in PRECISIONS:
        return _with(config, known[name])
    device = _ask(executor, measure=True)
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(known | {name: device.chosen}, indent=1), encoding="utf-8")
    if device.chosen != "float32":
        say(f"training in {device.chosen}: {device.speedup:.1f} times the speed of float32 on {device.name}")
    return _with(config, device.chosen)


def _with(config: Config, precision: str) -> Config:
    return config.replace(training=config.training.replace(precision=precision))


def _is_plain_cpu(executor: Executor) -> bool:
    """Whether the workers are cores of this machine that have no instructions for bfloat16."""
    kinds = {worker.rstrip("0123456789") for worker in executor.workers}
    local = kinds == {"cpu"} or (kinds == {"inline"} and not visible_gpus())
    return local and not cpu_has_bfloat16()


def _ask(executor: Executor, measure: bool) -> Device:
    (end,) = run_all(executor, [(examine, measure)])
    if end.kind != "result" or not isinstance(end.value, Device):
        raise UserError(f"{KEY}: a worker could not say what its device computes in: {end.value}")
    return end.value


def _check(asked: set[str], device: Device) -> None:
    for precision in sorted(asked - {*device.possible}):
        raise UserError(f"{KEY}={precision}: {device.name} cannot; it can: {', '.join(device.possible)}")


def _read(path: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}

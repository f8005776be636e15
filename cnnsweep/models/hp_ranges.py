"""The values of KerasTuner's hyperparameters, as the `space` group describes them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from cnnsweep.config.section import Plain
from cnnsweep.search_space.space import Value

if TYPE_CHECKING:
    from keras_tuner.engine.hyperparameters import HyperParameter

MOST = 32
"""Values of one that are tried."""


def range_of(p: HyperParameter) -> Plain:
    """A hyperparameter's values, as in the `space` group."""
    kind = type(p).__name__
    if kind == "Boolean":
        return {"values": [False, True]}
    if kind == "Choice":
        return {"values": list(dict.fromkeys(p.values))}
    low, high, step, log = p.min_value, p.max_value, p.step, p.sampling == "log"
    if p.sampling != "linear" and step is not None:  # then it multiplies
        return {"values": sorted(_geometric(low, high, step, whole=kind == "Int", mirrored=not log))}
    if low == high or (step is not None and step > high - low):
        return {"values": [low]}
    if kind == "Float":
        low, high = float(low), float(high)
    return {"min": low, "max": high, **({"step": step} if step not in (None, 1) or (kind == "Float" and step) else {}),
            **({"log": True} if log else {})}  # fmt: skip


def _geometric(low: float, high: float, factor: float, whole: bool, mirrored: bool) -> Generator[float, None, None]:
    value = low
    while value <= high * (1 + 1e-9):
        place = low + (high - value) if mirrored else value
        yield int(place) if whole else float(f"{place:.12g}")
        value *= factor


def tried(p: HyperParameter) -> tuple[list[Value], bool]:
    """The values to be tried, and whether these are all: of a range of fractions, or of many numbers, the ends."""
    entry, every = range_of(p), None
    if "values" in entry:
        every = entry["values"]
    elif type(p).__name__ == "Int":
        every = range(entry["min"], entry["max"] + 1, entry.get("step", 1))
    if every is not None and (len(every) <= MOST or isinstance(every[0], str)):
        return list(every), True
    return [every[0], every[-1]] if every else [entry["min"], entry["max"]], False

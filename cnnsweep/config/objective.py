"""What a sweep optimises: a metric, or several and costs, each with the direction in which it is better."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsweep.config import own_code, tasks
from cnnsweep.config.measure_settings import check_searched
from cnnsweep.config.tasks import Direction, kind_of
from cnnsweep.errors import UserError, unknown

COSTS = ("parameters", "mmacs")
"""Known of a network before it is trained; one may be an objective beside a metric."""


@dataclass(frozen=True)
class Objective:
    metric: str
    direction: Direction
    also: tuple[Objective, ...] = ()
    """Further objectives: then this one, the first that training measures, says which epoch of a trial counts."""

    @classmethod
    def of(cls, names: str | Sequence[str]) -> Objective:
        """Losses and costs are minimised, the rest is maximised.

        >>> Objective.of("val_loss").direction
        'min'
        >>> [o.metric for o in Objective.of(["parameters", "val_accuracy"]).all]
        ['val_accuracy', 'parameters']
        """
        if isinstance(names, str):
            names = json.loads(names) if names.startswith("[") else [names]
        first = next(name for name in names if name not in COSTS)
        return cls(*named(first), tuple(cls(*named(n)) for n in names if n != first))

    @property
    def name(self) -> str:
        """The metric without `val_`, as it is measured on the test data too."""
        return self.metric.removeprefix("val_")

    def tested(self, metrics: Sequence[str]) -> str:
        """The metric that stands for the final test, of those with `test_`: its own, else the first but the loss."""
        others = [name for name in metrics if name != "test_loss"]
        own = f"test_{self.name}"
        return own if own in others else [*others, "test_loss"][0]

    @property
    def sign(self) -> float:
        """Multiplied by it, smaller values are better."""
        return -1.0 if self.direction == "max" else 1.0

    @property
    def all(self) -> tuple[Objective, ...]:
        return (self, *self.also)

    @property
    def metrics(self) -> list[str]:
        """The objectives that training measures, this one first."""
        return [o.metric for o in self.all if o.metric not in COSTS]

    def point(self, values: Mapping[str, Any]) -> tuple[float, ...] | None:
        """A trial's values of all objectives, the smaller the better; None where one is missing or not finite."""
        found = [o.sign * float(values.get(o.metric, math.nan)) for o in self.all]
        return tuple(found) if all(math.isfinite(value) for value in found) else None

    def better(self, value: float, than: float | None) -> bool:
        """True where `value` beats `than`; anything beats None and NaN, NaN beats nothing."""
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than if self.direction == "max" else value < than

    def best(self, values: Iterable[float]) -> int | None:
        """The index of the best value, the first of equals; None where there is none."""
        known = {index: value for index, value in enumerate(values) if not math.isnan(value)}
        return (max if self.direction == "max" else min)(known, key=known.__getitem__, default=None)


def named(name: str) -> tuple[str, Direction]:
    """A metric and its direction, which stands behind the name of one that only the user's own code knows."""
    metric, given = own_code.split(name)
    return metric, "max" if given == "max" else "min" if given == "min" else direction(metric)


def direction(name: str) -> Direction:
    """The direction in which a metric or a cost is better."""
    kind = kind_of(name)
    known = kind.direction if kind else own_code.direction_of(name)
    return "min" if name in COSTS or known == "min" else "max"


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices of the Pareto front: no other point is as good in everything and better in something.

    >>> front([(1, 5), (2, 2), (3, 3), (2, 2)])
    [0, 1, 3]
    """
    found: list[tuple[float, ...]] = []
    for point in sorted(set(points)):  # a point that dominates another comes before it
        if not any(all(a <= b for a, b in zip(better, point, strict=True)) for better in found):
            found.append(point)
    best = set(found)
    return [index for index, point in enumerate(points) if point in best]


def read(value: Any, measured: Sequence[str]) -> str | list[str]:
    """Check a config's `objective`: a name, {name: direction}, or a list of these; `auto` is the first metric.

    `measured` is what training measures. Raises `UserError`.
    """
    names: list[str] = []
    for entry in value if isinstance(value, list) else [value]:
        single = own_code.split(entry) if isinstance(entry, str) else (entry, None)
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [single]
        for name, wanted in pairs or [(entry, None)]:
            name = measured[0] if name == "auto" else name
            if name not in measured and name not in COSTS:
                raise _unmeasured(name, measured)
            if wanted not in (None, "max", "min"):
                raise unknown(f"direction of objective {name}", wanted, ("max", "min"))
            of_keras = name in COSTS or kind_of(name) is not None
            if of_keras and wanted not in (None, direction(name)):
                larger = "larger" if direction(name) == "max" else "smaller"
                raise UserError(f"objective: {name}: {wanted} contradicts it: {name} is better the {larger} it is")
            if name in (own_code.split(other)[0] for other in names):
                raise UserError(f"objective: {name} is given twice")
            names.append(name if of_keras else own_code.with_direction(name, wanted))
    if not any(own_code.split(name)[0] in measured for name in names):
        given = ", ".join(names) or "an empty list"
        raise UserError(f"objective: {given} is known without training; add one of {', '.join(measured)}")
    return names if len(names) > 1 else names[0]


def check(value: Any, task: Any, training: Mapping[str, Any], space: object) -> str | list[str]:
    """Check a config's `objective` with its losses and metrics, all of which have to fit the task, and return it.

    Raises `UserError`.
    """
    if task not in tasks.LABELS:
        raise unknown("task", task, tasks.LABELS)
    tasks.check_metrics(training["metrics"], task)
    searched = space.get("training") if isinstance(space, Mapping) else None
    entry = searched.get("loss") if isinstance(searched, Mapping) else None
    losses = entry.get("values") if isinstance(entry, Mapping) else None
    tasks.check_losses(losses or [training["loss"]], training["loss_settings"], task)
    if isinstance(searched, Mapping):
        check_searched(searched.get("loss_settings"))
    for loss in losses or [training["loss"]]:
        tasks.check_class_weights(training["class_weights"], task, loss)
    found = read(value, tasks.measured(training["metrics"], task))
    if losses and {"loss", "val_loss"} & {*([found] if isinstance(found, str) else found)}:
        raise UserError("objective: trials of different losses (space.training.loss) cannot be compared by their loss")
    return found


def _unmeasured(name: object, measured: Sequence[str]) -> UserError:
    """The error for an objective that is no metric, or one that is not among the config's."""
    kind = kind_of(name) if isinstance(name, str) else None
    if kind is None:
        return unknown("objective", name, [*measured, *COSTS])
    metric = str(name).removeprefix("val_")
    return UserError(
        f"objective: {name} is not measured (measured: {', '.join(measured)}); "
        f"add {metric} to training.metrics, or name one of these"
    )

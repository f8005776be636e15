"""What may be proposed: the space, the networks it describes, and the limits on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnsweep import space as spaces
from cnnsweep.components import locate
from cnnsweep.errors import UserError
from cnnsweep.geometry import Layer, Network, measure

TRIES = 20_000
"""So many configurations are drawn before a space is taken for empty."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a configuration before it is trained."""

    signature: Hashable = None
    """Equal for two configurations that train the same network in the same way."""
    network: Network | None = None
    """None where the model family has no geometry."""
    fault: str | None = None
    """Why it cannot be built or exceeds a limit: "limits.parameters: 1,204,010 > 100,000"; None if it is fine."""


@dataclass(frozen=True)
class Problem:
    """A checked config with its space, for images of one shape and a number of classes."""

    config: Mapping[str, Any]
    space: spaces.Space
    input_shape: tuple[int, int, int]
    classes: int
    layers: Callable[..., list[Layer]] | None = None
    _verdicts: dict[Hashable, Verdict] = field(default_factory=dict, repr=False, compare=False)

    def judge(self, values: Mapping[str, Any]) -> Verdict:
        """Tell whether these values make a network that can be built within the limits, and which network."""
        rest = tuple(item for item in values.items() if not item[0].startswith("model."))
        model = tuple(item for item in values.items() if item[0].startswith("model."))
        verdict = self._verdicts.get(model)
        if verdict is None:
            verdict = self._judge_model(dict(model))
            if len(self._verdicts) < 100_000:
                self._verdicts[model] = verdict
        return Verdict((verdict.signature, rest), verdict.network, verdict.fault)

    def _judge_model(self, values: Mapping[str, Any]) -> Verdict:
        if self.layers is None:
            return Verdict(tuple(values.items()))
        try:
            model = spaces.apply({"model": self.config["model"]}, values)["model"]
            network = measure(self.layers(model, self.input_shape, self.classes), self.input_shape)
        except UserError as error:
            return Verdict(fault=str(error))
        for name, limit in self.config["limits"].items():
            if limit is not None and getattr(network, name) > limit:
                return Verdict(fault=f"limits.{name}: {getattr(network, name):,.6g} > {limit:,.6g}")
        return Verdict(network.signature, network)


def pose(config: Mapping[str, Any], input_shape: tuple[int, int, int], classes: int) -> Problem:
    """Put a checked config and the shape of its data together. Raises `UserError`."""
    family = config["model"].get("layers")
    layers = locate("model.layers", family) if family else None
    problem = Problem(config, spaces.read(config), input_shape, classes, layers)
    _check_possible(problem)
    return problem


def _check_possible(problem: Problem) -> None:
    """Raise `UserError` where no configuration is valid, as far as drawing many of them can tell."""
    rng = np.random.default_rng(0)
    tries = min(TRIES, 20 * problem.space.size)
    faults: list[str] = []
    for _ in range(tries):
        fault = problem.judge(problem.space.draw(rng)).fault
        if fault is None:
            return
        faults.append(fault)
    drawn = f"none of {tries:,} configurations drawn from the space is valid, " if problem.space.parameters else ""
    closest = next((f for f in faults if f.startswith("limits.")), faults[0])
    raise UserError(f"{drawn}{'for example ' if drawn else ''}{closest}")


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial, from the sweep's seed and the trial's number: 31 bits of SHA-256.

    >>> trial_seed(0, 1) == trial_seed(0, 1) != trial_seed(0, 2)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big") >> 1


def short_name(number: int, model: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The network in a few characters, for lists and legends: "022 · 32-64-96 k3 same max"."""
    if "filters" not in model:
        words = [_word(v) for k, v in values.items() if k.startswith("model.")]
        return f"{number:03d} · {' '.join(words) or model['_target_'].rpartition('.')[2]}"
    blocks = int(model["blocks"])
    parts = [
        "-".join(per_block(model["filters"], blocks)),
        f"k{_joined(model['kernel_size'], blocks)}",
        "" if set(per_block(model["stride"], blocks)) == {"1"} else f"s{_joined(model['stride'], blocks)}",
        _joined(model["padding"], blocks),
        _joined(model["pooling"], blocks),
    ]
    return f"{number:03d} · {' '.join(p for p in parts if p)}"


def per_block(setting: Any, blocks: int) -> list[str]:
    return [str(s) for s in setting[:blocks]] if isinstance(setting, list) else [str(setting)] * blocks


def _joined(setting: Any, blocks: int) -> str:
    each = per_block(setting, blocks)
    return each[0] if len(set(each)) == 1 else "-".join(each)


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

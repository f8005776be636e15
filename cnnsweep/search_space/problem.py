"""What may be proposed: the space, the networks it describes, and the limits on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cnnsweep.config.components import locate
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Layer, Network, measure
from cnnsweep.search_space import space as spaces

REMEMBERED = 20_000
"""Verdicts on networks, the latest: about 2 kB each."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a configuration before it is trained."""

    signature: Hashable = None
    """Equal for two configurations that train the same network in the same way."""
    network: Network | None = None
    """None where the model family has no geometry."""
    fault: str | None = None
    """Why it cannot be built or exceeds a limit: "limits.parameters: 1,204,010 > 100,000"; None if it is fine."""
    mistake: bool = False
    """Whether a setting is wrong wherever it stands, such as a kernel of size 0, and not just too large here."""


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
            if len(self._verdicts) >= REMEMBERED:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[model] = verdict
        return replace(verdict, signature=(verdict.signature, rest))

    def _judge_model(self, values: Mapping[str, Any]) -> Verdict:
        if self.layers is None:
            return Verdict(tuple(values.items()))
        try:
            model = spaces.apply({"model": self.config["model"]}, values)["model"]
            network = measure(self.layers(model, self.input_shape, self.classes), self.input_shape)
        except UserError as error:
            return Verdict(fault=str(error), mistake=getattr(error, "mistake", True))
        for name, limit in self.config["limits"].items():
            if limit is not None and getattr(network, name) > limit:
                return Verdict(fault=f"limits.{name}: {getattr(network, name):,.6g} > {limit:,.6g}")
        return Verdict(network.signature, network)


def pose(config: Mapping[str, Any], input_shape: tuple[int, int, int], classes: int) -> Problem:
    """Put a checked config and the shape of its data together.

    Raises `UserError`, also where no configuration can be built within the limits.
    """
    from cnnsweep.search_space import feasibility as feasible  # which counts the configurations of problems

    family = config["model"].get("layers")
    layers = locate("model.layers", family) if family else None
    if layers is None:
        _refuse_limits(config)
    problem = Problem(config, spaces.read(config), input_shape, classes, layers)
    feasible.check(problem)
    return problem


def _refuse_limits(config: Mapping[str, Any]) -> None:
    """Nothing is known of a network without geometry before it is built, so that a limit would be silently ignored."""
    for name, limit in config["limits"].items():
        if limit is not None:
            what = config["model"].get("backbone") or config["model"]["_target_"]
            raise UserError(f"limits.{name}: {limit:,.6g} cannot be kept: the sizes of {what} are not known before it "
                            f"is built (they are with model=cnn). Leave it out: limits.{name}=null")  # fmt: skip


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial, from the sweep's seed and the trial's number: 31 bits of SHA-256.

    >>> trial_seed(0, 1) == trial_seed(0, 1) != trial_seed(0, 2)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big") >> 1


def short_name(number: int, model: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The network in a few characters, for lists and legends: "022 · 32-64-96 k3 same max"."""
    if "backbone" in model:
        head = [str(model["dense_units"])] * model["dense_layers"]
        cut = model["cut"] if "model.cut" in values else None
        parts = [model["backbone"], cut, model["pooling"], "-".join(head) or "no dense"]
        return f"{number:03d} · {' '.join(p for p in parts if p)}"
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

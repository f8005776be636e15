"""A search problem: the space, the networks that it describes, and the limits on them, checked before any training."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import _lru_cache_wrapper, cached_property, lru_cache
from typing import Any

import numpy as np

from cnnsweep.config.augment import COLOUR, MIXING, SPECTRAL, check_mixing, refuse_change
from cnnsweep.config.components import locate
from cnnsweep.config.schema import Config, ModelConfig
from cnnsweep.config.tasks import check_fit
from cnnsweep.errors import UserError
from cnnsweep.formatting import amount
from cnnsweep.geometry.network import GeometryError, Layer, Network, measure
from cnnsweep.geometry.settings import Shape
from cnnsweep.search_space.counting import UNITS, ValidConfigurations
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.search_space.space import Parameter, Space, Value
from cnnsweep.search_space.stages import Uncountable

Layers = Callable[[Any, Shape, int], list[Layer]]
"""A model family's geometry: (the config's model section, input shape, classes) to a stack of layers."""
FEW_DRAWS = 300
"""Without a valid one, after which the valid configurations are counted."""
MAX_DRAWS = 20_000
MAX_BUILT = 30
"""Of networks that are built to be measured."""
MAX_VALUES = 100
"""Of a key that are each tried."""
MAX_OTHERS = 100
"""Values of the other keys beside which a word is tried: `causal` is wrong with two axes alone."""
NOUNS = {"parameters": "parameters", "mmacs": "million multiply-adds", "activation_mb": "MB of activations"}


@dataclass(frozen=True)
class Validity:
    """The network of a configuration, or why there is none."""

    signature: Hashable = None
    """Equal for two configurations that train the same network in the same way."""
    network: Network | None = None
    """None where the model family has no geometry."""
    fault: str | None = None
    """Why it cannot be built or exceeds a limit: "limits.parameters: 1,204,010 > 100,000"; None where it is valid."""
    mistake: bool = False
    """A setting is wrong in any place, such as a kernel of size 0, and not just too large here."""

    @property
    def buildable(self) -> bool:
        """Whether it can be built, within the limits or not."""
        return self.fault is None or self.fault.startswith("limits.")


@dataclass(frozen=True)
class Problem:
    """A checked config with its space, for inputs of one shape and a number of classes."""

    config: Config
    space: Space
    input_shape: Shape
    classes: int
    layers: Layers | None = None
    sizes: Callable[[Any, Shape, int], Network] | None = None
    """Measures a network by building it, where the family has no `layers`: it takes as long as that."""
    images: tuple[int, int] = (50_000, 10_000)
    """For training and for validation in an epoch, from which searches reckon what a configuration costs."""

    @property
    def priced(self) -> bool:
        """Whether a network's sizes are known before it is trained."""
        return self.layers is not None or self.sizes is not None

    def validate(self, values: Mapping[str, Any]) -> Validity:
        """Return the network that these values make, or why it cannot be built within the limits."""
        rest = tuple(item for item in values.items() if not item[0].startswith("model."))
        validity = self._of_model(tuple(item for item in values.items() if item[0].startswith("model.")))
        return replace(validity, signature=(validity.signature, rest))

    def with_limits(self, names: Sequence[str]) -> Problem:
        """The same problem with these of its limits only."""
        dropped = dict.fromkeys(name for name in UNITS if name not in names)
        return replace(self, config=self.config.replace(limits=self.config.limits.replace(**dropped)))

    @cached_property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        return {name: limit for name, limit in self.config.limits.plain().items() if limit is not None}

    @cached_property
    def _of_model(self) -> _lru_cache_wrapper[Validity]:
        return lru_cache(maxsize=20_000)(self._validate_model)  # about 2 kB each

    def _validate_model(self, items: tuple[tuple[str, Value], ...]) -> Validity:
        if not self.priced:
            return Validity(items)
        try:
            network = self._measure(self.config.with_values(dict(items)).model)
        except UserError as error:
            return Validity(fault=str(error), mistake=not isinstance(error, GeometryError) or error.mistake)
        for name, limit in self.limits.items():
            if (size := network.sizes[name]) > limit:
                return Validity(fault=f"limits.{name}: {amount(size)} > {amount(limit)}")
        return Validity(items if self.layers is None else network.signature, network)

    def _measure(self, model: ModelConfig) -> Network:
        argument = model.argument()
        if self.layers is not None:
            return measure(self.layers(argument, self.input_shape, self.classes), self.input_shape)
        assert self.sizes is not None
        return self.sizes(argument, self.input_shape, self.classes)


def make_problem(
    config: Config, input_shape: Shape, classes: int, kind: str = "image", images: tuple[int, int] = Problem.images
) -> Problem:
    """Put a checked config and the shape, kind and size of its data together.

    Raises `UserError` for a value that no network can have, and where no configuration meets the limits. Takes
    milliseconds where some do; a few seconds where that has to be found out by counting.
    """
    config.model.check_input(kind)
    layers = locate("model.layers", config.model.layers) if config.model.layers else None
    sizes = locate("model.measure", config.model.measure) if config.model.measure else None
    if not images[0]:  # a training function has data of its own, of which nothing is known
        images = Problem.images
    problem = Problem(config, parse_space(config), input_shape, classes, layers, sizes, images)
    if not problem.priced:
        _refuse_limits(problem)
    _check_augment(problem, kind)
    _check_mixing(problem)
    rng = np.random.default_rng(0)
    if sizes is None:
        _check_values(problem, rng)
    _check_limits(problem, rng, MAX_DRAWS if sizes is None else MAX_BUILT)
    return problem


def _refuse_limits(problem: Problem) -> None:
    """A network without geometry has no sizes before it is built, so that a limit would be silently ignored."""
    for name, limit in problem.limits.items():
        model = problem.config.model.plain()
        own = None if problem.config.trains_networks else problem.config.job.plain().get("call", "this job")
        what = own or model.get("backbone") or model["_target_"]
        raise UserError(f"limits.{name}: {amount(limit)} cannot be kept: the sizes of {what} are not known before it "
                        f"is built (they are with model=cnn). Leave it out: limits.{name}=null")  # fmt: skip


def _check_augment(problem: Problem, kind: str) -> None:
    """Raise for a change of the training data that is on, or searched, and cannot be made of these data."""
    config, channels = problem.config, problem.input_shape[-1]
    searched = {p.name.rpartition(".")[2] for p in problem.space.parameters if p.name.startswith("data.augment.")}
    names = sorted({*config.data.augment.on, *searched})
    check_fit(config.task, config.model.target, config.model.fits, bool(names))
    for name in names:
        refuse_change(name, kind)
        if name in COLOUR and channels != 3:
            raise UserError(f"data.augment.{name}: changes colours, which images of {channels} channels do not have")
        if name in SPECTRAL and not _has_spectrogram(problem):
            raise UserError(f"data.augment.{name}: masks frequencies of a spectrogram, which this network does not "
                            "compute: set model.representation=mel or spectrogram")  # fmt: skip


def _check_mixing(problem: Problem) -> None:
    """Raise where any configuration mixes images, and has a loss that cannot be of mixtures."""
    space, loss = problem.space, problem.space.by_name.get("training.loss")
    keys = [p for p in space.parameters if p.name.removeprefix("data.augment.") in MIXING]
    shares = {p.name: max(p.grid or (p.high,)) for p in keys}
    for drawn in [{"training.loss": value} | shares for value in loss.grid or ()] if loss else [shares]:
        found = problem.config.with_values({p.name: drawn[p.name] for p in space.active(drawn) if p.name in drawn})
        check_mixing([name for name in found.data.augment.on if name in MIXING], found.training.loss)


def _has_spectrogram(problem: Problem) -> bool:
    """Whether any network of the space computes one."""
    grids = [p.grid or () for p in problem.space.parameters if p.name == "model.representation"]
    found = grids[0] if grids else (problem.config.model.plain().get("representation", "waveform"),)
    return any(value != "waveform" for value in found)


def _check_values(problem: Problem, rng: np.random.Generator) -> None:
    """Raise for the first value of a key of the model that is wrong in any network."""
    space = problem.space
    words = {q.key for q in space.parameters if q.categorical}
    for p in space.parameters or [None]:
        for value in (p.grid or ())[:MAX_VALUES] if p and p.name.startswith("model.") else [None]:
            found = _beside_others(problem, rng, p, value)
            if found.mistake and p and (key := str(found.fault).partition(":")[0]) in words:
                others = (_beside_others(problem, rng, p, value) for _ in range(MAX_OTHERS))
                found = replace(found, mistake=p.key == key and not any(other.buildable for other in others))
            if found.mistake:
                raise UserError(found.fault)


def _beside_others(problem: Problem, rng: np.random.Generator, p: Parameter | None, value: Value | None) -> Validity:
    """A value of a key beside random ones of the others; no mistake where it does not count."""
    space = problem.space
    drawn = {q.name: q.at(rng.random()) for q in space.parameters}
    if p:
        drawn |= {name: allowed[0] for name, allowed in p.when} | {p.name: value}
    values = {q.name: drawn[q.name] for q in space.active(drawn)}
    counts = p is None or value is None or p.name in values
    return problem.validate(values) if counts else Validity(fault="it does not count")


def _check_limits(problem: Problem, rng: np.random.Generator, most: int) -> None:
    """Raise where no configuration is valid, with the constraint that rules everything out."""
    faults: Counter[str] = Counter()
    for drawn in range(1, most + 1):
        fault = problem.validate(problem.space.draw(rng)).fault
        if fault is None:
            return
        faults[fault] += 1
        if drawn == FEW_DRAWS:
            with contextlib.suppress(Uncountable):
                if ValidConfigurations(problem).total:
                    return
                raise UserError(_explain(problem, faults.most_common(1)[0][0]))
    if problem.sizes and len(faults) == 1:
        raise UserError(next(iter(faults)))
    example = next((fault for fault in faults if fault.startswith("limits.")), faults.most_common(1)[0][0])
    raise UserError(f"none of {most:,} configurations drawn from the space is valid, for example {example}")


def _explain(problem: Problem, example: str) -> str:
    """The constraint that rules everything out, with the number that would have to change."""
    if not ValidConfigurations(problem.with_limits([])).total:
        one = not problem.space.parameters
        return example if one else f"no configuration of the space can be built; for example\n{example}"
    limits = problem.limits
    alone = [name for name in limits if not ValidConfigurations(problem.with_limits([name])).total]
    if alone:
        return "\n".join(_too_small(problem, name, []) for name in alone)
    words = " and ".join(f"limits.{name}={amount(limit)}" for name, limit in limits.items())
    lines = [_too_small(problem, name, [other for other in limits if other != name]) for name in limits]
    return "\n".join([f"{words} together rule out every configuration:", *lines])


def _too_small(problem: Problem, name: str, others: list[str]) -> str:
    limit = f"limits.{name}: {amount(problem.limits[name])}"
    found = ValidConfigurations(problem.with_limits(others), also=name)
    if not found.total:
        return f"{limit}, and without it the others still rule everything out"
    network = problem.with_limits([]).validate(found.extreme(name, largest=False)).network
    assert network is not None
    least = f"the least is {amount(network.sizes[name])} {NOUNS[name]}"
    if others:
        return f"{limit}, but within the other limits {least}"
    return f"{limit} rules out every configuration: {least}\n{network.table()}"

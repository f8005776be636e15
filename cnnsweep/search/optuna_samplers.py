"""Optuna's samplers on a study that is made again from the history for each ask: TPE and NSGA-II."""

from __future__ import annotations

import datetime
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.config.section import Plain
from cnnsweep.config.validation import Int
from cnnsweep.search.observations import History, Sampler, neighbour
from cnnsweep.search.oracle import Oracle, Task
from cnnsweep.search_space.space import Parameter, Space, Values

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

ASKS = 4
"""After so many refused configurations their neighbours are tried: to ask again takes as long as the first time."""
NEIGHBOURS = 60
LONG_AGO = datetime.datetime(2000, 1, 1)
GENERATION = "NSGAIISampler:generation"


class TpeConfig(SearchConfig):
    startup: Int | None = Field(ge=1)


class Nsga2Config(SearchConfig):
    startup: Int | None = Field(ge=1)
    population: Int | None = Field(ge=2)


class Tpe(Sampler):
    """The tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023).

    Keys that occur together are modelled together; configurations still running count as bad ones.
    """

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        from optuna.samplers import TPESampler

        def make() -> TPESampler:
            seed = int(rng.integers(2**31))
            return TPESampler(n_startup_trials=1, multivariate=True, group=True, constant_liar=True, seed=seed)

        return _ask(history, rng, make)


class Nsga2(Sampler):
    """NSGA-II (Deb et al. 2002): each `population` trials that were started in a row are a generation."""

    def __init__(self, population: int | None = None) -> None:
        self._population = population

    def propose(self, history: History, rng: np.random.Generator) -> Iterator[Values]:
        from optuna.samplers import NSGAIISampler

        # Optuna's 50 would leave a sweep of 60 trials at random search.
        size = self._population or min(50, max(6, (history.max_trials or 60) // 7))
        return _ask(history, rng, lambda: NSGAIISampler(population_size=size, seed=int(rng.integers(2**31))), size)


@configured_by(TpeConfig)
class TpeOracle(Oracle):
    """Learns from finished trials which values good configurations have in common."""

    several = True
    sampler_type = Tpe

    def __init__(self, task: Task, *, startup: int | None = None) -> None:
        super().__init__(task, sampler=Tpe(), startup=startup)


@configured_by(Nsga2Config)
class Nsga2Oracle(Oracle):
    """Evolves a population of configurations towards a Pareto front."""

    several = True
    sampler_type = Nsga2

    def __init__(self, task: Task, *, startup: int | None = None, population: int | None = None) -> None:
        super().__init__(task, sampler=Nsga2(population), startup=startup)


def _ask(
    history: History,
    rng: np.random.Generator,
    make: Callable[[], optuna.samplers.BaseSampler],
    generation: int | None = None,
) -> Iterator[Values]:
    """Ask a sampler a few times, then yield neighbours of its answers.

    A configuration that was refused stays in the study as one that is still running.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would report every study
    objectives = len(history.seen[0].scores) if history.seen else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["minimize"] * objectives, sampler=make())
    codes = {p.name: _code(p) for p in history.space.parameters}
    for index, seen in enumerate(history.seen):
        attributes = {GENERATION: index // generation} if generation else {}
        study.add_trial(_trial(codes, seen.values, seen.scores, attributes))
    study.add_trials([_trial(codes, values, None, {}) for values in history.pending])
    answers: list[Values] = []
    for _ in range(ASKS):
        answers.append(_suggest(study.ask(), history.space, codes))
        yield answers[-1]
    for values in itertools.islice(itertools.cycle(answers), NEIGHBOURS):
        yield neighbour(history.space, values, rng)


def _suggest(trial: optuna.Trial, space: Space, codes: Mapping[str, _Code]) -> Values:
    """One more configuration: keys that are not active under the others are never asked for."""
    values: Values = {}
    for p in space.parameters:
        if all(name in values and values[name] in allowed for name, allowed in p.when):
            code = codes[p.name]
            values[p.name] = code.decode(trial._suggest(p.name, code.distribution))
    return values


class _Code(NamedTuple):
    """A parameter of ours as one of Optuna's."""

    distribution: BaseDistribution
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _code(p: Parameter) -> _Code:
    """Words as they are, values of a grid by their rank, everything else by its quantile."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if p.categorical:
        return _Code(CategoricalDistribution(p.choices or ()), lambda value: value, lambda value: value)
    if p.grid is not None and not p.log:
        grid = sorted(p.grid)
        return _Code(IntDistribution(0, len(grid) - 1), grid.index, grid.__getitem__)
    return _Code(FloatDistribution(0.0, 1.0), lambda value: min(1.0, max(0.0, p.quantile(value))), p.at)


@functools.cache
def _trial_type() -> type[optuna.trial.FrozenTrial]:
    """A trial that a study may keep as it is: copying 200 of them takes as long as asking."""
    from optuna.trial import FrozenTrial

    class KeptTrial(FrozenTrial):
        def __deepcopy__(self, memo: dict[int, Any]) -> KeptTrial:
            return self

    return KeptTrial


def _trial(
    codes: Mapping[str, _Code],
    values: Mapping[str, Any],
    scores: tuple[float, ...] | None,
    attributes: Plain,
) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState

    params = {name: code.encode(values[name]) for name, code in codes.items() if name in values}
    return _trial_type()(
        number=-1,
        trial_id=-1,
        state=TrialState.COMPLETE if scores is not None else TrialState.RUNNING,
        value=None,
        values=scores,
        datetime_start=LONG_AGO,
        datetime_complete=LONG_AGO if scores is not None else None,
        user_attrs={},
        intermediate_values={},
        params=params,
        distributions={name: codes[name].distribution for name in params},
        system_attrs=attributes,
    )

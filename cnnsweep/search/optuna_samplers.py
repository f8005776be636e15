"""A history as Optuna sees it. The study is made anew for each ask, so it never holds what the journal does not."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from cnnsweep.search.observations import History
from cnnsweep.search_space.space import Parameter, Space, Values, is_word

LONG_AGO = datetime.datetime(2000, 1, 1)


def rebuild(history: History, sampler: Any, generation: tuple[str, int] | None = None) -> optuna.Study:
    """A study of these trials; `generation` names the attribute that says each one's, and their size."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every study
    several = len(history.seen[0].scores) if history.seen else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["minimize"] * several, sampler=sampler)
    spread = {p.name: distribution(p) for p in history.space.parameters}
    trials = []
    for index, seen in enumerate(history.seen):
        attributes = {generation[0]: index // generation[1]} if generation else {}
        trials.append(_trial(history.space, spread, seen.values, seen.scores, attributes))
    trials += [_trial(history.space, spread, values, None, {}) for values in history.pending]
    study.add_trials(trials)
    return study


def ask(study: optuna.Study, space: Space) -> Values:
    """One more configuration: keys that are not active under the others are never asked for."""
    trial = study.ask()
    values: Values = {}
    for p in space.parameters:
        if all(name in values and values[name] in allowed for name, allowed in p.when):
            values[p.name] = decode(p, trial._suggest(p.name, distribution(p)))
    return values


def distribution(p: Parameter) -> BaseDistribution:
    """Words as they are, values of a grid by their rank, everything else by its quantile."""
    if is_word(p):
        return CategoricalDistribution(p.choices or ())
    if p.grid is not None and not p.log:
        return IntDistribution(0, len(p.grid) - 1)
    return FloatDistribution(0.0, 1.0)


def encode(p: Parameter, value: Any) -> Any:
    if is_word(p):
        return value
    if p.grid is not None and not p.log:
        return sorted(p.grid).index(value)
    return min(1.0, max(0.0, p.quantile(value)))


def decode(p: Parameter, found: Any) -> Any:
    if is_word(p):
        return found
    if p.grid is not None and not p.log:
        return sorted(p.grid)[found]
    return p.at(found)


class _Known(FrozenTrial):
    """A trial that a study may keep as it is: copying 200 of them takes as long as asking."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Known:
        return self


def _trial(
    space: Space,
    spread: Mapping[str, BaseDistribution],
    values: Mapping[str, Any],
    scores: tuple[float, ...] | None,
    attributes: dict[str, Any],
) -> FrozenTrial:
    params = {p.name: encode(p, values[p.name]) for p in space.parameters if p.name in values}
    return _Known(
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
        distributions={name: spread[name] for name in params},
        system_attrs=attributes,
    )

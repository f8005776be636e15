"""The search for any budget: a few epochs of many configurations, the most promising ones continued.

Half of the cost goes into first looks at new configurations, half into the continuation of those from whose end the
largest improvement is expected (as in freeze-thaw optimisation, Swersky et al. 2014, with the rungs of successive
halving, Jamieson and Talwalkar 2016). New configurations are drawn, the first ones with a prior, or proposed by an
ensemble of Gaussian processes that learns from curves of any length, by expected improvement in relation to cost (Snoek
et al. 2012). Costs are arithmetic and not measured, so that a seed gives the same sweep.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cnnsweep.config.components import configured_by
from cnnsweep.config.schema import SearchConfig
from cnnsweep.search.asha import ladder
from cnnsweep.search.candidates import Candidates
from cnnsweep.search.curve_model import Ensemble, Forecast, encode, expected_improvement, forecasts, most_promising
from cnnsweep.search.oracle import Oracle, Proposal, Task
from cnnsweep.search.prior import expected_error
from cnnsweep.search_space.space import Values
from cnnsweep.training.cost_model import Forecaster, amounts_of

FACTOR = 3
TYPICAL = 8
"""Configurations whose costs say how long a first look is."""
OF = 32
"""The first configurations are each the most likely, by rules of thumb, of so many drawn at random."""
LOOKS = 8
"""Configurations that are looked at before the model proposes any."""
FIRST_LOOKS = 5
"""Configurations that are looked at before one is continued."""
LOOKING = 0.7
"""Once less than this share of the time is left, fewer configurations are enough."""
RESERVE = 60.0
"""Seconds before the end, a fifth of the time at most, in which nothing new is started: a start takes seconds too."""
SHARE = 1.0
"""Cost of continued training in relation to that of first looks."""
THRIFT = 0.5
"""Exponent of a first look's cost, by which expected improvement is divided: with 1 it is improvement a second."""
MARGIN = 0.05
"""Mean of the improvement that is looked for, in the logarithm of the error: each proposal has a margin of its own
(several targets, Jones 2001). A large one is only to be had away from the best, so that not all proposals are near it.
"""
AT_RANDOM = 0.15
"""The share of configurations that the model has no say in."""
MUTATED, BEST = 16, 5
"""Candidates that are small changes of the best: few, so that the model cannot stay in one spot."""
MOST = 150
"""Curves that the model learns from: the best, and the latest."""


@configured_by(SearchConfig)
class AutoOracle(Oracle):
    """Needs no settings. Serves one objective."""

    promotes = True

    def __init__(self, task: Task) -> None:
        import scipy.linalg  # noqa: F401  before the controller is made, which finds the libraries that are loaded
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        super().__init__(task)
        self._threads = ThreadpoolController()
        self._units = Forecaster()
        self._seconds_in_all = 60.0 * (self.problem.config.budget.minutes or 0.0)
        self._candidates = Candidates(self.problem, self.seed, lambda values: self._cost_of(values)[0])
        self.rungs = ladder(self._first_look(), FACTOR, self.full_epochs)
        self._costs: dict[str, tuple[float, float]] = {}
        """Of the first and of each further epoch of a configuration."""
        self._measured = [0.0, 0.0]
        """Seconds of epochs, and what arithmetic says that they cost."""
        self._points: dict[str, list[float]] = {}
        self._goals: dict[str, int] = {}
        """The epoch to which each configuration is trained before it is compared again."""
        self._latest: dict[str, str] = {}
        """The last proposal of each configuration."""
        self._complete: set[str] = set()
        """Configurations that ended by themselves before their goal, as patience ends them."""
        self._forecasts: dict[str, Forecast] | None = None
        """Of all that is known, until more is."""
        self._followed: str | None = None
        """While a journal is replayed: the proposal that was continued then."""

    def _first_look(self) -> int:
        """Epochs after which configurations are first compared: as many as take the time of a start, typically."""
        if self.problem.layers is None:
            return 1
        rng, starts = np.random.default_rng(self.seed), []
        for _ in range(TYPICAL):
            if (values := self.untried.draw(rng)) is not None:
                first, other = self._cost_of(values)
                starts.append((first - other) / max(other, 1e-9))
        most = max(1, self.full_epochs // FACTOR)
        return int(np.clip(np.median(starts or [1.0]), 1, most))

    def repeat(self, id_: str, values: Mapping[str, Any], continues: str | None = None) -> Proposal | None:
        """The journal says too which proposal was continued: near the end of the time that depended on the clock."""
        self._followed = continues
        try:
            return super().repeat(id_, values)
        finally:
            self._followed = None

    def next(self, id_: str) -> Proposal | Literal["wait", "done"]:
        """Continue the most promising configuration, or start a new one."""
        if self._repeated is not None:
            origin = self.origin(self._followed) if self._followed else None
        else:
            origin = self._choose()
        if origin is None and (values := None if self.exhausted() else self.propose()) is not None:
            self._goals[id_], self._latest[id_] = self.rungs[0], id_
            return Proposal(id_, values, self.full_epochs)
        if origin is None and (origin := self._choose(last=True)) is None:
            return "wait" if self.running else "done"
        self._forecasts = None  # goals count in them, and a first look that goes on is no observation
        before, self._latest[origin] = self._latest[origin], id_
        self._goals[origin] = self._next_goal(origin)
        return Proposal(id_, self.values_of(origin), self.full_epochs, continues=before)

    def report(self, id_: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        if "epoch_seconds" in metrics:
            self._measured[0] += metrics["epoch_seconds"]
            self._measured[1] += self._cost(self.origin(id_))[epoch > 1]
        self._forecasts = None
        return super().report(id_, epoch, metrics)

    def learn(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Only from networks that are valid here: the model needs their size."""
        self._forecasts = None
        super().learn([trial for trial in earlier if self.problem.validate(trial["values"]).fault is None])

    def keep_on(self, id_: str, epoch: int) -> bool:
        """Go on between rungs, and at a rung where this is the configuration that would be continued now."""
        origin = self.origin(id_)
        if epoch >= self._goals[origin] and epoch < self.full_epochs:
            if self._choose(ended=origin) != origin:
                return False
            self._goals[origin], self._forecasts = self._next_goal(origin), None
        return True

    def end(self, id_: str, succeeded: bool, finished: bool = True) -> None:
        self._forecasts = None
        super().end(id_, succeeded, finished)
        if finished and self.curves.reached(origin := self.origin(id_)) < self._goals[origin]:
            self._complete.add(origin)

    def reopen(self, id_: str) -> None:
        self._forecasts = None
        super().reopen(id_)
        self._complete.discard(self.origin(id_))

    def next_rung(self, id_: str, epoch: int) -> int:  # noqa: ARG002
        return self._next_above(epoch)

    def promotable(self) -> set[str]:
        """All that can still be continued."""
        return {id_ for origin, id_ in self._latest.items() if not self._is_complete(origin)}

    def draw(self) -> Values | None:
        rng, known = self.rng(), self._known()
        if len(known) < LOOKS:
            return self._likely(rng)
        if rng.random() < AT_RANDOM:
            return self.untried.draw(rng)
        with self._threads.limit(limits=1):  # the cores are the workers'
            return self._proposed(known, rng) or self.untried.draw(rng)

    def _likely(self, rng: np.random.Generator) -> Values | None:
        """Of a few drawn at random the one that the rules of thumb expect most of."""
        drawn = [v for _ in range(OF) if (v := self.untried.draw(rng)) is not None]
        return min(drawn, key=lambda values: expected_error(self.problem, values), default=None)

    def _proposed(self, known: Mapping[str, Forecast], rng: np.random.Generator) -> Values | None:
        """The candidate whose expected improvement is largest; None where none fits into the time left."""
        ranked = sorted(known, key=lambda origin: known[origin].mean)
        kept = {*ranked[: MOST // 3], *list(known)[-2 * MOST // 3 :]}
        origins = [origin for origin in known if origin in kept]
        candidates = self._candidates.of(len(self.proposals) - len(self._origins), self.untried, rng)
        for origin in itertools.islice(itertools.cycle(ranked[:BEST]), MUTATED):
            if (changed := self._candidates.changed(self.values_of(origin), rng)) in self.untried:
                candidates.append(self._candidates.measured(changed))
        if not candidates:
            return None
        y = np.array([known[origin].mean for origin in origins])
        low, middle = np.quantile(y, [0.1, 0.5])
        y = np.minimum(y, middle + 2 * max(middle - low, 1e-9))  # the very bad say little about the good
        noise = np.array([known[origin].deviation ** 2 for origin in origins])
        x = np.array([self._point(origin) for origin in origins])
        model = Ensemble(x, y, noise, rng)
        if pending := [o for o in map(self.origin, self.running) if o not in known]:
            there = np.array([self._point(origin) for origin in pending])
            x, model = np.vstack([x, there]), model.expecting(there)
        mean, deviation = model.predict(np.array([candidate.point for candidate in candidates]))
        least = min(float(y.min()), float(model.predict(x)[0].min())) - rng.exponential(MARGIN)
        cost = np.array([candidate.cost for candidate in candidates])
        order = np.argsort(-expected_improvement(mean, deviation, least) / cost**THRIFT, kind="stable")
        return next((found for index in order if self.untried.fits(found := candidates[index].values)), None)

    def _choose(self, ended: str | None = None, last: bool = False) -> str | None:
        """The configuration to continue; None: a new one is worth more.

        `ended`: one that has just reached its rung, and counts as waiting. `last`: there are no new ones.
        """
        known, running = self._known(), {self.origin(id_) for id_ in self.running} - {ended}
        idle = {origin: f for origin, f in known.items() if origin in self._latest and origin not in running}
        waiting = {origin: f for origin, f in idle.items() if not f.failed and not self._is_complete(origin)}
        looking = len(known) < FIRST_LOOKS and self.seconds_left > LOOKING * self._seconds_in_all
        if not waiting or (looking and not last):
            return None
        complete = [known[origin].mean for origin in known if self._is_complete(origin)]
        coming = [known[o].mean for o in running if o in known and self._goals[o] > known[o].epoch]
        best = most_promising(waiting, min([*complete, *coming] if complete else [], default=math.inf))
        if self._closing():
            in_time = [o for o in waiting if self._seconds(o, self.full_epochs) <= self.seconds_left]
            return min(in_time, key=lambda origin: waiting[origin].mean, default=best)
        if last:
            return best if self.problem.config.budget.minutes else self._among_the_best(known, waiting)
        if not complete and not any(self._goals[origin] > self.rungs[0] for origin in running):
            return best  # so that there is something complete early
        look = self.rungs[0]
        first = sum(self._cost(origin)[0] + self._cost(origin)[1] * (look - 1) for origin in self._latest)
        more = sum(self._cost(origin)[1] * (self._committed(origin, running) - look) for origin in self._latest)
        step = self._next_goal(best) - known[best].epoch
        return best if more + 0.5 * step * self._cost(best)[1] <= SHARE * first else None

    def _among_the_best(self, known: Mapping[str, Forecast], waiting: Mapping[str, Forecast]) -> str | None:
        """One that is among the best third of a rung, as successive halving continues them; the highest rung first."""
        for rung in reversed(self.rungs[:-1]):
            there = [origin for origin in known if known[origin].epoch >= rung and not known[origin].failed]
            value = {origin: self.curves.best(origin, rung) or 0.0 for origin in there}
            for origin in sorted(there, key=lambda o: value[o])[: -(-len(there) // FACTOR)]:
                if origin in waiting and known[origin].epoch < self._next_above(rung):
                    return origin
        return None

    def _is_complete(self, origin: str) -> bool:
        return origin in self._complete or self.curves.reached(origin) >= self.full_epochs

    def _known(self) -> dict[str, Forecast]:
        """What each configuration with an epoch is expected to reach; a failed one as much as the worst."""
        if self._forecasts is None:
            self._forecasts = self._forecast()
        return self._forecasts

    def _forecast(self) -> dict[str, Forecast]:
        failed = {self.origin(id_) for id_, trial in self.trials.items() if trial.status == "FAILED"}
        looking = {o for o in map(self.origin, self.running) if self.curves.reached(o) < self.rungs[0]}
        began = [o for o in self._latest if self.curves.reached(o) and o not in failed | looking]
        points = {origin: self._point(origin) for origin in [*self._earlier, *began]}
        goals = {origin: self._goals[origin] for origin in map(self.origin, self.running)}
        with self._threads.limit(limits=1):  # the cores are the workers'
            found = forecasts(self.curves, points, self.rungs, self.objective, goals)
        worst = max((forecast.mean for forecast in found.values()), default=0.0)
        return {**found, **{origin: Forecast(worst, 0.0, 0, failed=True) for origin in failed if found}}

    def _closing(self) -> bool:
        """Whether a configuration that is started now could not be trained to its end in the time left."""
        if math.isinf(self.seconds_left) or not self._costs:
            return False
        epoch = self._pace() * float(np.mean([other for _, other in self._costs.values()]))
        return self.seconds_left < max(self.full_epochs * epoch, min(RESERVE, 0.2 * self._seconds_in_all))

    def _seconds(self, origin: str, epochs: int) -> float:
        """Seconds until a configuration has so many epochs."""
        return self._pace() * self._cost(origin)[1] * (epochs - self.curves.reached(origin))

    def _pace(self) -> float:
        """Measured seconds for one of the arithmetic."""
        return self._measured[0] / max(self._measured[1], 1e-9)

    def _cost(self, origin: str) -> tuple[float, float]:
        if origin not in self._costs:
            self._costs[origin] = self._cost_of(self.values_of(origin))
        return self._costs[origin]

    def _cost_of(self, values: Mapping[str, object]) -> tuple[float, float]:
        network, config = self.problem.validate(values).network, self.problem.config.with_values(values)
        return self._units.parts(amounts_of(network, config, *self.problem.images))

    def _point(self, origin: str) -> list[float]:
        if origin not in self._points:
            self._points[origin] = encode(self.problem, self.values_of(origin))
        return self._points[origin]

    def _committed(self, origin: str, running: Collection[str]) -> int:
        """The epochs that a configuration has, or will have when it is compared again."""
        reached = self.curves.reached(origin)
        return max(self.rungs[0], reached, self._goals[origin] if origin in running else 0)

    def _next_goal(self, origin: str) -> int:
        return self._next_above(self.curves.reached(origin))

    def _next_above(self, epoch: int) -> int:
        return next((rung for rung in self.rungs if rung > epoch), self.full_epochs)

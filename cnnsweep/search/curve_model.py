"""Predictions from unfinished learning curves: the score of a trial at its end, and that of a new configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from cnnsweep.config.objective import Objective
from cnnsweep.search.log_errors import log_errors
from cnnsweep.search.observations import Curves
from cnnsweep.search.prior import expected_error
from cnnsweep.search_space.problem import Problem

MEMBERS, ROUNDS = 16, 4
"""Gaussian processes that are tried in a round, and rounds: after the first, around the likeliest so far."""
PARENTS, MUTATED, STEP = 6, 0.3, 0.5
"""The likeliest that the next round starts from; the share of scales that it changes, and by how much."""
SCALE, SPREAD = 1.3, 0.8
"""Mean and standard deviation of the prior of a length scale's logarithm, where a key's range is 0 to 1."""
NOISE, NOISE_SPREAD = -2.3, 1.0
"""The same of the logarithm of the noise's variance, as a share of the signal's."""
COOLING = 0.5
"""Exponent of the members' probabilities: below 1 no few of them decide alone."""
SLOPE, SLOPE_SPREAD, CHANCE = 0.7, 0.4, 0.15
"""Prior mean and standard deviation of the slope of what is observed in what the rules of thumb expect, and the
deviation of what they do not explain, in the logarithm of the error.
"""
GAIN, DOUBT = 0.15, 0.08
"""Assumed before curves tell: how far the logarithm of the error falls while epochs grow e-fold, and its spread."""
ASSUMED, ASSUMED_SPREAD = 2, 3
"""The number of curves that these assumptions count as."""
SHRINKING = 0.35
"""Leads in the logarithm of the error shrink in proportion to the number of epochs to the power of minus this
(experiments/LOG.md, 2026-11-28).
"""
OTHERS = 2.0
"""The mean change of all counts as much as that of so many configurations that are equal to the one in question."""
DOUBT_OF_NEW, EQUALS = 0.15, 0.1
"""The doubt about a configuration that is like none with a longer curve, assumed instead of `DOUBT` where it is chosen
what to continue; its variance is halved by so many that are equal to it. Curves show less (experiments/LOG.md,
2026-11-28).
"""
LATEST = 200
"""Curves from which changes are taken."""


@dataclass(frozen=True)
class Forecast:
    """What a trial is expected to reach at its end: the logarithm of the best error, or loss."""

    mean: float
    deviation: float
    epoch: int
    """Reached so far."""
    failed: bool = False
    doubt: float = 0.0
    """The deviation in view of how many similar ones were trained for longer."""


def forecasts(
    curves: Curves,
    points: Mapping[str, Sequence[float]],
    rungs: Sequence[int],
    objective: Objective,
    goals: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Forecast]:
    """Extrapolate curves from the last rung that each has reached, by the changes of longer ones from there on.

    `points`: the configurations, encoded. `goals`: the epochs that those in training will have; they count as trained
    that far in how much is unknown of others, so that copies promise little meanwhile. Leads shrink. Apart from that
    the changes of those most alike count most, so that a copy of what has ended is not expected to end better because
    it began well. In the mean of all, copies of one another count as one.
    """
    reached = {id_: epoch for id_ in points if (epoch := curves.reached(id_))}
    if not reached:
        return {}
    best = curves.table(list(reached), [*rungs, math.inf])  # the last column is never empty
    values = log_errors(np.where(np.isinf(best), best[:, -1:], best), objective).T
    at = dict(zip(rungs, values, strict=False))
    x, zeros = np.array([points[id_] for id_ in reached]), np.zeros(len(reached))
    change, doubt, variance = {rungs[-1]: zeros}, {rungs[-1]: zeros}, {rungs[-1]: 0.0}
    left = {rung: (rung / rungs[-1]) ** SHRINKING for rung in rungs}  # of a lead at a rung, in the end
    for rung, above in reversed(list(pairwise(rungs))):
        longer = [number for number, epoch in enumerate(reached.values()) if epoch >= above][-LATEST:]
        coming = [number for number, id_ in enumerate(reached) if reached[id_] < above <= goals.get(id_, 0)]
        near = np.exp(-_squared(x, x[[*longer, *coming]])) if longer or coming else np.zeros((len(x), 0))
        known = near[:, : len(longer)]
        changes, of_new, of_chance = _changes(at[rung], at[above][longer], longer, known, math.log(above / rung))
        change[rung] = change[above] + left[above] * changes
        doubt[rung] = doubt[above] + left[above] ** 2 * of_new * EQUALS / (near.sum(1) + EQUALS)
        variance[rung] = variance[above] + left[above] ** 2 * of_chance
    found: dict[str, Forecast] = {}
    for number, (id_, epoch) in enumerate(reached.items()):
        last = max((rung for rung in rungs if rung <= epoch), default=rungs[0])
        mean = left[last] * values[-1][number] + change[last][number]
        found[id_] = Forecast(float(mean), math.sqrt(variance[last]), epoch, doubt=math.sqrt(doubt[last][number]))
    return found


def _changes(
    start: np.ndarray, end: np.ndarray, longer: Sequence[int], near: np.ndarray, ratio: float
) -> tuple[np.ndarray, float, float]:
    """Expected changes from a rung to the next, apart from shrinking leads, with the variances of doubt and of chance.

    The doubt is about a configuration that is like no other.
    `start`: the n values at the rung; `end`: those of the m `longer` curves at the next; `near`, of shape (n, m): how
    much each is like these, 0 to 1; `ratio`: the logarithm of the ratio of the epochs. There are n changes. The
    value at the next rung is the change and what is left of the lead, start * exp(-SHRINKING * ratio).
    """
    share = 1 / near[longer].sum(1) if longer else np.zeros(0)
    lasting = math.exp(-SHRINKING * ratio)
    middle = (1 - lasting) * (np.average(start[longer], weights=share) if longer else start.mean())
    seen = end - lasting * start[longer] - middle
    mean = (share @ seen - ASSUMED * GAIN * ratio) / (share.sum() + ASSUMED)
    squares = (seen - mean) ** 2
    spread = squares.sum() + ASSUMED_SPREAD * (DOUBT * ratio) ** 2
    apart = share @ squares + ASSUMED_SPREAD * (DOUBT_OF_NEW * ratio) ** 2
    change = middle + (near @ seen + OTHERS * mean) / (near.sum(1) + OTHERS)
    return change, apart / (share.sum() + ASSUMED_SPREAD), spread / (len(seen) + ASSUMED_SPREAD)


def most_promising(waiting: Mapping[str, Forecast], least: float) -> str:
    """The trial from whose end the largest improvement is expected, on the least value that has ended.

    A copy of what has ended promises little, since little about it is unknown. Without a value, infinity, or where
    nothing can improve, it is the trial that is expected to end best.
    """
    names = list(waiting)
    means, doubts = (np.array(column) for column in zip(*((f.mean, f.doubt) for f in waiting.values()), strict=True))
    gains = expected_improvement(means, doubts, least) if math.isfinite(least) else np.zeros(len(names))
    return names[int(gains.argmax() if gains.max() > 0 else means.argmin())]


def encode(problem: Problem, values: Mapping[str, object]) -> list[float]:
    """A configuration as numbers of about 0 to 1: its keys, whether they are there, costs, what the prior expects."""
    vector: list[float] = []
    for p in problem.space.parameters:
        there = p.name in values
        if p.categorical:
            choices = p.choices or ()
            vector += [float(there and values[p.name] == c) for c in choices[: len(choices) if len(choices) > 2 else 1]]
        else:
            vector.append(p.quantile(values[p.name]) if there else 0.5)
        if p.when:
            vector.append(0.5 * there)
    network = problem.validate(values).network
    if network is not None:
        vector += [math.log10(1 + network.parameters) / 3, math.log10(1 + network.mult_adds) / 2]
    return [*vector, expected_error(problem, values)]


@dataclass(frozen=True)
class _Member:
    scales: np.ndarray
    """Logarithms of the length scales; the last one is that of the noise's variance."""
    probability: float
    """The logarithm, up to a constant."""
    factor: np.ndarray
    """The kernel's Cholesky factor, the lower one."""
    half: np.ndarray
    """The solution z of factor @ z = y, where y are the observations."""
    variance: float


class Ensemble:
    """Gaussian processes with length scales that are sampled and weighted by their probability, not fitted.

    With few observations of many keys the one most probable process is overconfident. Sampling starts from the prior
    and from each key's own correlation with what was observed (population Monte Carlo, Cappé et al. 2004, simplified).
    Their mean is a line in what the rules of thumb expect, the last column of `x`, by Bayesian linear regression
    (Rasmussen and Williams 2006, section 2.1).
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> None:
        """`x`: n encoded configurations, (n, keys); `y`: n logarithms of the error.

        `noise`: the variance of each observation's own, besides the common one; it counts as no more than the signal's.
        """
        self._x = x
        self._expected = float(x[:, -1].mean())
        self._slope = _slope(x[:, -1] - self._expected, y - y.mean())
        y = y - self._trend(x)
        self._mean, self._deviation = float(y.mean()), max(float(y.std()), 1e-9)
        self._y, self._noise = (y - self._mean) / self._deviation, np.minimum(noise / self._deviation**2, 1.0)
        width, relevance = x.shape[1], _relevance(x, self._y)
        found: list[_Member] = []
        for number in range(MEMBERS):
            centre = SCALE - 1.5 * np.sqrt(relevance) * (number % 2)
            scales = centre + 0.7 * SPREAD * rng.normal(size=width) * (number > 1)
            found.append(self._member(np.append(scales, NOISE + (number % 3 - 1) * NOISE_SPREAD)))
        for _ in range(ROUNDS - 1):
            parents = sorted(found, key=lambda m: -m.probability)[:PARENTS]
            for number in range(MEMBERS):
                one, other = parents[number % len(parents)], parents[int(rng.integers(len(parents)))]
                mixed = np.where(rng.random(width + 1) < 0.5, one.scales, other.scales)
                found.append(self._member(mixed + (rng.random(width + 1) < MUTATED) * rng.normal(0, STEP, width + 1)))
        shares = np.exp(COOLING * np.array([m.probability - max(f.probability for f in found) for m in found]))
        shares /= shares.sum()
        self._members = [(float(share), m) for share, m in zip(shares, found, strict=True) if share > 0.01]

    def _member(self, scales: np.ndarray) -> _Member:
        from scipy.linalg import solve_triangular

        count, x = len(self._x), self._x / np.exp(scales[:-1])
        kernel = _matern(x, x) + np.diag(np.exp(scales[-1]) + 1e-6 + self._noise)
        lower = np.linalg.cholesky(kernel)
        half = solve_triangular(lower, self._y, lower=True, check_finite=False)
        variance = max(float(half @ half) / count, 1e-9)
        likelihood = -0.5 * count * math.log(variance) - float(np.log(np.diag(lower)).sum())
        off = (scales - np.append(np.full(len(scales) - 1, SCALE), NOISE)) / np.append(
            np.full(len(scales) - 1, SPREAD), NOISE_SPREAD
        )
        return _Member(scales, likelihood - 0.5 * float(off @ off), lower, half, variance)

    def expecting(self, x: np.ndarray) -> Ensemble:
        """Processes of the same scales, for which k configurations, (k, keys), count as observed.

        Each is assumed to be half a deviation worse than expected, so that configurations that are proposed at the same
        time spread out (after the kriging believer, Ginsbourger et al. 2010).
        """
        mean, deviation = self.predict(x)
        found = copy(self)
        expected = (mean + 0.5 * deviation - self._trend(x) - self._mean) / self._deviation
        found._x, found._y = np.vstack([self._x, x]), np.append(self._y, expected)
        found._noise = np.append(self._noise, np.zeros(len(x)))
        found._members = [(share, found._member(member.scales)) for share, member in self._members]
        return found

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations, free of noise."""
        from scipy.linalg import solve_triangular

        mean, square, total = np.zeros(len(x)), np.zeros(len(x)), 0.0
        for share, m in self._members:
            scales = np.exp(m.scales[:-1])
            kernel = _matern(x / scales, self._x / scales)
            found = solve_triangular(m.factor, kernel.T, lower=True, check_finite=False)
            here = m.half @ found
            variance = m.variance * np.maximum(1 - (found**2).sum(0), 1e-6)
            mean, square, total = mean + share * here, square + share * (here**2 + variance), total + share
        mean, square = mean / total, square / total
        deviation = np.sqrt(np.maximum(square - mean**2, 1e-12))
        return self._trend(x) + self._mean + self._deviation * mean, self._deviation * deviation

    def _trend(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._slope * (x[:, -1] - self._expected))


def _slope(rules: np.ndarray, y: np.ndarray) -> float:
    """The mean of the slope's posterior; both columns have a mean of zero."""
    precision, prior = rules @ rules / CHANCE**2, 1 / SLOPE_SPREAD**2
    return float((rules @ y / CHANCE**2 + SLOPE * prior) / (precision + prior))


def _relevance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The share of the variance that a parabola of each key explains, less what it would by chance."""
    found = np.zeros(x.shape[1])
    for column, z in enumerate(x.T):
        if z.std() > 1e-9:
            basis = np.column_stack([np.ones(len(z)), z, z**2])
            rest = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
            found[column] = max(0.0, 1 - (rest @ rest) / max(y @ y, 1e-9) - 2 / len(y))
    return found


def _matern(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Matérn kernel of smoothness 5/2."""
    d = np.sqrt(np.maximum(5 * _squared(a, b), 1e-12))
    return np.asarray((1 + d + d**2 / 3) * np.exp(-d))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances, up to rounding."""
    return np.asarray((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T)


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, least: float) -> np.ndarray:
    """Jones et al. 1998, for values of which the smaller are the better."""
    from scipy.special import ndtr

    z = (least - mean) / np.maximum(deviation, 1e-12)
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))

"""Rankings and fronts are those that sorting and comparing all with all give."""

from __future__ import annotations

import math
import random

from cnnsweep.config.objective import front
from cnnsweep.statistics import Ranking, wilson


def test_the_order_is_that_of_sorting_after_any_changes() -> None:
    rng, ranking, values = random.Random(0), Ranking[int](), dict[int, float | None]()
    for _ in range(2000):
        number = rng.randrange(60)
        values[number] = rng.choice([None, -math.inf, rng.randrange(9), rng.random()])
        ranking.put(number, values[number])
    wanted = sorted((value, number) for number, value in values.items() if value is not None)
    assert ranking.first() == [number for _, number in wanted]
    assert ranking.first(3) == ranking.first()[:3]
    assert [ranking.place(number) for number in ranking.first()] == [*range(len(wanted))]
    some = [number for number in values if number % 2]
    assert ranking.first_of(some, 5) == [number for _, number in wanted if number % 2][:5]


def test_the_interval_of_a_share_is_one_of_shares() -> None:
    for count in range(1, 500):
        assert f"{wilson(0.0, count)[0]:.3f}" == "0.000"
        assert 0 < wilson(1.0, count)[0] < wilson(1.0, count)[1] <= 1


def test_the_front_is_what_comparing_all_with_all_gives() -> None:
    rng = random.Random(0)
    for size in (2, 3):
        points = [tuple(rng.randrange(12) for _ in range(size)) for _ in range(150)]
        slow = [
            index
            for index, point in enumerate(points)
            if not any(o != point and all(a <= b for a, b in zip(o, point, strict=True)) for o in points)
        ]
        assert front(points) == slow

"""The default search: many first epochs, then the most promising configuration."""

from __future__ import annotations

from searching import FLAT

from cnnsweep.search.auto import LOOKS


def test_configurations_have_an_epoch_each_before_the_best_goes_on_to_the_end(start):
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 40})
    looks = []
    for number in range(LOOKS):
        looks.append(search.ask("a"))
        assert looks[-1].continues is None
        value = 0.9 if number == 3 else 0.1 + number / 100
        assert not search.report(looks[-1].id, 1, {"val_accuracy": value}), "another is to be looked at first"
        search.end(looks[-1].id, succeeded=True)
    best = search.ask("a")
    assert (best.continues, best.values) == (looks[3].id, looks[3].values)
    kept_on = [search.report(best.id, epoch, {"val_accuracy": 0.9}) for epoch in range(2, 10)]
    assert kept_on[:7] == [True] * 7, "so that one is complete early"


def test_a_configuration_that_falls_behind_makes_way_at_its_rung(start):
    _, search = start("auto", FLAT, training={"epochs": 9}, budget={"trials": 40})
    for number in range(LOOKS):
        look = search.ask("a")
        search.report(look.id, 1, {"val_accuracy": 0.5 - number / 1000})
        search.end(look.id, succeeded=True)
    first = search.ask("a")
    assert search.report(first.id, 2, {"val_accuracy": 0.1})
    assert not search.report(first.id, 3, {"val_accuracy": 0.1})

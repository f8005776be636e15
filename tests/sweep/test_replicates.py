"""Finalists trained again with other seeds: the best mean wins, whatever happens in between."""

import statistics

import fake_sweeps
import pytest

from cnnsweep.journal import journal
from cnnsweep.tracking.run_updates import Records

SETTINGS = ("budget.replicates=3", "budget.finalists=2")


def finish(sweep):
    sweep.run()
    sweep._replicate()
    sweep.journal.close()
    return sweep


def test_the_best_mean_of_other_seeds_wins(tmp_path):
    ledger = finish(fake_sweeps.make(tmp_path, SETTINGS)).ledger
    results = ledger.winner["results"]
    assert len(results) == 2
    for number, told in results.items():
        values = [v for v in ledger.entries[int(number)].replicates.values() if v is not None]
        assert told["mean"] == pytest.approx(statistics.fmean(values))
        assert told["count"] == len(values)
    assert ledger.ranked()[0].number == ledger.winner["trial"] == int(max(results, key=lambda n: results[n]["mean"]))
    single = sorted(ledger.entries.values(), key=lambda e: -(e.best(ledger.objective) or -1))
    assert {e.number for e in single[:2]} == {int(number) for number in results}


def test_without_replicates_nothing_is_trained_again(tmp_path):
    ledger = finish(fake_sweeps.make(tmp_path)).ledger
    assert ledger.winner is None
    assert not any(e.replicates for e in ledger.entries.values())


def test_replicates_survive_a_crash_and_none_is_made_twice(tmp_path):
    whole = finish(fake_sweeps.make(tmp_path / "whole", SETTINGS))
    sweep = fake_sweeps.make(tmp_path / "broken", SETTINGS)
    sweep.run()
    made = []

    def crash(event):
        if event["event"] == "replicate":
            made.append(event)
            if len(made) == 4:
                raise OSError("power cut")

    sweep.listeners.append(type("Crash", (), {"log": staticmethod(crash)})())
    with pytest.raises(OSError, match="power cut"):
        sweep._replicate()
    sweep.journal.close()
    again = finish(fake_sweeps.make(tmp_path / "broken", SETTINGS))
    events = journal.read(tmp_path / "broken" / journal.FILE)
    done = [(e["trial"], e["replicate"]) for e in events if e["event"] == "replicate"]
    assert len(done) == len(set(done)) == 6
    assert again.ledger.winner["results"] == whole.ledger.winner["results"]


def test_mlflow_gets_the_mean_and_the_spread(tmp_path):
    sweep = finish(fake_sweeps.make(tmp_path, SETTINGS))
    records = Records(tmp_path, {})
    writes = [write for event in journal.read(tmp_path / journal.FILE) for write in records.writes(event)]
    parent = [w for w in writes if w.trial is None and "cnnsweep.winner" in w.tags]
    assert [w.tags["cnnsweep.winner"] for w in parent] == [str(sweep.ledger.winner["trial"])]
    assert {point[0] for point in parent[0].metrics} == {"mean_val_accuracy", "std_val_accuracy"}

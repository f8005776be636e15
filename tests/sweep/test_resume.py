"""A sweep that is killed and resumed ends as one that was not."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_sweeps
import pytest
import real_sweeps

from cnnsweep.config.components import program
from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.journal import journal
from cnnsweep.journal.events import Event, SweepStopped, TrialEnded
from cnnsweep.search.oracle import Oracle
from cnnsweep.sweep import loop, resume, session
from cnnsweep.sweep.limits import cut_off, go_on
from cnnsweep.sweep.sweep import Sweep
from cnnsweep.trial import EpochReport, TrialResult, TrialSpec

SEARCHES = {
    "random": (),
    "grid": ("search=grid", "space.training.learning_rate={values: [0.001, 0.01], min: null, max: null, log: null}"),
    "bayesian": ("search=bayesian", "search.initial_points=2"),
    "hyperband": ("search=hyperband", "training.epochs=9", "budget.trials=8"),
    "gp": ("search=gp", "search.startup=2"),
    "auto": ("search=auto", "training.epochs=9", "budget.trials=14"),
    "asha gp": ("search=asha", "search.sampler=gp", "search.startup=2", "training.epochs=9", "budget.trials=8"),
}
# A new search joins by being listed.


def finished(folder: Path, overrides: tuple[str, ...] = ()) -> tuple[list[Any], list[str], str | None]:
    sweep = fake_sweeps.make(folder, overrides)
    loop.search(sweep)
    return fake_sweeps.table(sweep), sweep.journal.path.read_text().splitlines(keepends=True), sweep.stopping


def resumed(folder: Path, lines: Sequence[str], overrides: tuple[str, ...] = ()) -> Sweep:
    """The sweep of these lines of a journal, continued to its end."""
    folder.mkdir()
    (folder / journal.FILE).write_text("".join(lines))
    sweep = fake_sweeps.make(folder, overrides)
    loop.search(sweep)
    return sweep


@pytest.fixture(autouse=True)
def _closed_journals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sweeps are dropped here where a real driver would be dead."""
    opened: list[journal.Journal] = []
    made = journal.Journal.__init__

    def remember(self: journal.Journal, path: Path) -> None:
        made(self, path)
        opened.append(self)

    monkeypatch.setattr(journal.Journal, "__init__", remember)
    monkeypatch.setattr("os.fsync", lambda _: None)  # these crashes are no power cuts
    yield
    for one in opened:
        one.close()


@pytest.mark.parametrize("name", SEARCHES)
def test_the_table_is_the_same_wherever_the_journal_was_cut_off(name: str, tmp_path: Path) -> None:
    overrides = SEARCHES[name]
    table, lines, stopping = finished(tmp_path / "whole", overrides)
    assert len(table) >= 6
    assert {"completed"} <= {row[2] for row in table}
    if name == "hyperband":
        assert stopping == "budget.trials (8) is reached"
        assert {row[3] for row in table if row[2] == "pruned"} == {f"left after epoch {n} of 9" for n in (1, 3)}
        assert {len(row[-1]) for row in table if row[2] == "completed"} == {9}
    cuts = range(1, len(lines))
    for cut in random.Random(0).sample(cuts, min(len(cuts), 10)):
        sweep = resumed(tmp_path / f"cut-{cut}", lines[:cut], overrides)
        assert fake_sweeps.table(sweep) == table, f"cut after line {cut}: {lines[cut - 1][:80]}"
        assert sweep.stopping == stopping
        ends = [e.trial for e in journal.read(sweep.journal.path) if isinstance(e, TrialEnded)]
        if not sweep.search.promotes:  # there, a promoted trial ends again
            assert sorted(ends) == sorted(set(ends)), "a finished trial ran twice"


def test_many_crashes_in_one_sweep_leave_no_trace_in_the_table(tmp_path: Path) -> None:
    overrides = SEARCHES["hyperband"]
    table, _, _ = finished(tmp_path / "whole", overrides)
    folder, drawn = tmp_path / "crashed", random.Random(3)
    for _ in range(100):
        sweep = fake_sweeps.make(folder, overrides)
        left = drawn.randrange(1, 20)
        append = sweep.journal.append

        def crash(event: Event, *, append: Any = append) -> Event:
            nonlocal left
            left -= 1
            if left == 0:
                raise InterruptedError
            return append(event)

        sweep.journal.append = crash  # type: ignore[method-assign]
        try:
            loop.search(sweep)
            break
        except InterruptedError:
            continue
    assert fake_sweeps.table(fake_sweeps.make(folder, overrides)) == table


def test_a_larger_budget_goes_on_and_does_what_it_would_have_done_at_once(tmp_path: Path) -> None:
    table, _, _ = finished(tmp_path / "large", ("budget.trials=9",))
    finished(tmp_path / "small", ("budget.trials=5",))
    grown = fake_sweeps.make(tmp_path / "small", ("budget.trials=9",))
    loop.search(grown)
    assert fake_sweeps.table(grown) == table
    assert grown.stopping == "budget.trials (9) is reached"


def test_time_in_which_the_sweep_did_not_run_does_not_count(tmp_path: Path) -> None:
    _, lines, _ = finished(tmp_path / "whole")
    events = [json.loads(line) for line in lines[:8]]
    for event in events:
        event["time"] -= 86400
    sweep = resumed(tmp_path / "old", [json.dumps(e) + "\n" for e in events], ("budget.minutes=5",))
    assert sweep.stopping == "budget.trials (6) is reached"
    assert all(entry.seconds < 60 for entry in sweep.state.trials.values())


def test_a_trial_that_the_search_had_stopped_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver died between the epoch after which the answer is "stop" and the trial's end."""
    asked = Oracle.report

    def stop_after_two(self: Oracle, proposal: str, epoch: int, metrics: Any) -> bool:
        return asked(self, proposal, epoch, metrics) and epoch < 2

    monkeypatch.setattr(Oracle, "report", stop_after_two)
    table, lines, _ = finished(tmp_path / "whole")
    cut = next(i for i, line in enumerate(lines) if '"epoch":2' in line) + 1
    again = fake_sweeps.table(resumed(tmp_path / "cut", lines[:cut]))
    assert [(row[2], row[6]) for row in again] == [(row[2], row[6]) for row in table]


def test_a_journal_that_does_not_fit_itself_is_refused_with_its_line(tmp_path: Path) -> None:
    _, lines, _ = finished(tmp_path / "whole")
    with pytest.raises(UserError, match=rf"{tmp_path / 'odd' / journal.FILE}, line 2 is damaged"):
        resumed(tmp_path / "odd", [lines[0], lines[2]])


def test_a_sweep_whose_folder_is_moved_stops_and_goes_on_at_the_new_place(tmp_path: Path) -> None:
    expected, _, _ = finished(tmp_path / "whole")
    before, now = tmp_path / "before", tmp_path / "now"

    def job(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        if spec.number == 3:
            before.rename(now)
            return TrialResult(3, "failed", f"FileNotFoundError: [Errno 2] No such file or directory: '{before}'")
        return (yield from fake_sweeps.train(spec))

    sweep = fake_sweeps.make(before, job=job)
    loop.search(sweep)
    assert sweep.stopping == "the sweep's folder was moved or removed; resume it where it is now"
    assert [trial.status for trial in sweep.state.trials.values()][2:] == ["interrupted"]
    sweep = fake_sweeps.make(now)
    loop.search(sweep)
    assert fake_sweeps.table(sweep) == expected


def again(folder: Path, overrides: tuple[str, ...], job: Any) -> Sweep:
    """As `resume --failed` does."""
    sweep = fake_sweeps.make(folder, overrides, job)
    sweep.pending |= {trial.number: True for trial in sweep.state.with_status("failed")}
    loop.search(sweep)
    return sweep


@pytest.mark.parametrize("name", SEARCHES)
def test_trials_that_failed_for_a_passing_reason_are_trained_again(name: str, tmp_path: Path) -> None:
    broken = True

    def job(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            wrong = 0.5 * (broken and spec.number > 1)
            metrics = {"val_accuracy": wrong + spec.number / 20 + 0.01 * epoch, "loss": 1.0}
            if not (yield EpochReport(spec.number, epoch, metrics)):
                return TrialResult(spec.number, "pruned")
            if broken and spec.number > 1:
                return TrialResult(spec.number, "failed", "the disk was away")
        return TrialResult(spec.number, "completed", None, spec.epochs)

    overrides = (*SEARCHES[name], "search.max_failures=null")
    first = fake_sweeps.make(tmp_path, overrides, job)
    loop.search(first)
    failed, total = first.state.with_status("failed"), len(first.state.trials)
    assert len(failed) == total - 1 >= 5
    broken = False
    sweep = again(tmp_path, overrides, job)
    assert (sweep.stopping, len(sweep.state.trials)) == (first.stopping, total)
    assert not sweep.state.with_status("failed", "running", "interrupted")
    values = [[m["val_accuracy"] for m in trial.curve] for trial in sweep.state.trials.values()]
    expected = [[n / 20 + 0.01 * e for e in range(1, len(v) + 1)] for n, v in enumerate(values, start=1)]
    assert values == expected, "nothing of the training that failed"
    search, best = sweep.search, pytest.approx([max(v) for v in values])
    proposals = [trial.proposal for trial in sweep.state.trials.values()]
    assert [search.trials[id_].score for id_ in proposals] == best
    assert [-(search.curves.best(search.origin(id_)) or 0) for id_ in proposals] == best
    if sweep.search.promotes:
        assert max(map(len, values)) == 9, "the best of them are promoted"
    assert fake_sweeps.table(fake_sweeps.make(tmp_path, overrides)) == fake_sweeps.table(sweep)


@pytest.mark.parametrize("search", ["random", "tpe", "asha search.variant=stopping"])
def test_a_trial_that_a_budget_cut_off_goes_on_with_a_larger_one(search: str, tmp_path: Path) -> None:
    def job(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            metrics = {"val_accuracy": spec.number / 20 + 0.01 * epoch, "loss": 1.0}
            if not (yield EpochReport(spec.number, epoch, metrics)):
                return TrialResult(spec.number, "pruned")
        return TrialResult(spec.number, "completed", None, spec.epochs)

    name, *more = f"search={search}".split()
    overrides = (name, *more, "training.epochs=3", "budget.trials=4")
    first = fake_sweeps.make(tmp_path / "cut", (*overrides, "budget.epochs=5"), job)
    loop.search(first)
    assert [(t.status, len(t.curve), cut_off(t)) for t in first.state.trials.values()] == [
        ("completed", 3, False),
        ("completed", 2, True),
    ]
    for _ in range(2):  # the second time nothing is left to go on with
        sweep = fake_sweeps.make(tmp_path / "cut", overrides, job)
        sweep.pending |= {trial.number: True for trial in sweep.state.trials.values() if cut_off(trial)}
        loop.search(sweep)
        sweep.journal.close()
    whole = fake_sweeps.make(tmp_path / "whole", overrides, job)
    loop.search(whole)
    assert fake_sweeps.table(sweep) == fake_sweeps.table(whole)


@pytest.mark.parametrize("epochs", [7, 9, 11])
@pytest.mark.parametrize("search", ["asha", "hyperband", "auto"])
def test_a_trial_that_a_budget_cut_off_in_any_rung_goes_on(search: str, epochs: int, tmp_path: Path) -> None:
    def job(spec: TrialSpec) -> Generator[EpochReport, bool, TrialResult]:
        for epoch in range(spec.initial_epoch + 1, spec.epochs + 1):
            metrics = {"val_accuracy": spec.number / 20 + 0.01 * epoch, "loss": 1.0}
            if not (yield EpochReport(spec.number, epoch, metrics)):
                return TrialResult(spec.number, "pruned", "stopped")
        return TrialResult(spec.number, "completed", None, spec.epochs)

    overrides = (f"search={search}", "training.epochs=9", "budget.trials=4")
    first = fake_sweeps.make(tmp_path / "cut", (*overrides, f"budget.epochs={epochs}"), job)
    loop.search(first)
    assert first.state.epochs == epochs
    assert first.state.with_status("completed") == []
    sweep = fake_sweeps.make(tmp_path / "cut", overrides, job)
    sweep.pending |= dict.fromkeys(go_on(sweep.config.budget, sweep.state), True)
    loop.search(sweep)
    whole = fake_sweeps.make(tmp_path / "whole", overrides, job)
    loop.search(whole)
    assert fake_sweeps.table(sweep) == fake_sweeps.table(whole)
    assert fake_sweeps.table(fake_sweeps.make(tmp_path / "cut", overrides)) == fake_sweeps.table(sweep)


class Lines(session.Watcher):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_command_for_a_missing_report_says_where_the_store_is(tmp_path: Path) -> None:
    server = "tracking.uri=http://ann:secret@host:5000"
    config = compose([*fake_sweeps.BASE, f"tracking.dir={tmp_path}", "tracking=server", server])
    (tmp_path / "tracking.jsonl").write_text('{"sent": 1}\n')
    resume._say_finished([SweepStopped(status="completed")], config, tmp_path, watcher := Lines())
    place = f"tracking=server 'tracking.uri=http://***@host:5000' tracking.dir={tmp_path}"
    assert watcher.said[0] == f"its report is missing; to make it: {program()} report {tmp_path.name} {place}"


@pytest.mark.slow
def test_what_a_driver_left_that_was_killed_after_the_last_event_is_put_in_order(tmp_path: Path) -> None:
    """The copy of the data is removed, and the report that was not made is named."""
    where, watcher = f"tracking.dir={tmp_path}", Lines()
    config = compose([*fake_sweeps.BASE, "data.limit=200", "tracking.gallery=0", "budget.trials=1", where])
    outcome = session.start(config, session.Watcher())
    (outcome.folder / "data").mkdir()
    assert resume.resume([], [where], watcher) is None
    assert not (outcome.folder / "data").exists()
    assert any(f"report is missing; to make it: {program()} report {outcome.id} {where}" in s for s in watcher.said)
    (outcome.folder / "report").mkdir()
    assert resume.resume([], [where], watcher := Lines()) is None
    assert not [line for line in watcher.said if "report" in line]


@pytest.mark.slow
def test_a_network_that_a_budget_cut_off_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    watcher, curves = Lines(), {}
    for name, budget in (("cut", "budget.epochs=5"), ("whole", "budget.epochs=null")):
        where = f"tracking.dir={tmp_path / name}"
        settings = (
            "search=random",
            "training.epochs=3",
            "budget.trials=2",
            "executor=inline",
            budget,
            where,
            *real_sweeps.FAST,
        )
        outcome: session.Outcome | None = session.start(compose(["data=digits", "data.limit=200", *settings]), watcher)
        assert outcome is not None
        if name == "cut":
            kept = [(path.parent.name, path.name) for path in outcome.folder.glob("trials/*/last.npz")]
            assert kept == [("002", "last.npz")], "of the trial that was cut off alone"
            spent = Lines()
            outcome = resume.resume([], [where, "budget.epochs=5", "budget.replicates=2"], spent)
            assert not [line for line in spent.said if "go on" in line], "there is nothing to go on with yet"
            outcome = resume.resume([], [where, "budget.epochs=100", "budget.replicates=null"], watcher)
        assert outcome is not None
        rows = [trial.curve for trial in outcome.state.trials.values()]
        curves[name] = [[row["val_loss"] for row in curve] for curve in rows]
    assert curves["cut"] == curves["whole"]
    assert not [line for line in watcher.said if "begins again" in line]


@pytest.mark.slow
def test_a_thousand_trials_are_replayed_in_seconds(tmp_path: Path) -> None:
    # Without the Gaussian process: a thousand real proposals would take minutes to make, not to replay.
    overrides = ("budget.trials=1000", "space=cnn", "search=bayesian", "search.initial_points=2000")
    sweep = fake_sweeps.make(tmp_path / "big", overrides)
    loop.search(sweep)
    events = journal.read(sweep.journal.path)
    assert len([e for e in events if isinstance(e, TrialEnded)]) == 1000
    began = time.monotonic()
    again = fake_sweeps.make(tmp_path / "big", overrides)
    assert time.monotonic() - began < 30
    assert fake_sweeps.table(again) == fake_sweeps.table(sweep)

"""Reports of sweeps in a real SQLite store: the page, the table and the figures."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tracked_sweeps import (
    NUMBERS,
    PROVENANCE,
    STATUSES,
    empty_store,
    follow,
    named,
    results,
    settings,
    shared,
    stop_event,
    sweep_event,
    trial_events,
    uri,
)

from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.journal.events import Event
from cnnsweep.report import figures, report, text
from cnnsweep.report.analysis import compare
from cnnsweep.report.axes import axis
from cnnsweep.search_space.space import Parameter
from cnnsweep.tracking.store import open_store

__all__ = ["empty_store", "shared", "uri"]
pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning")
ACCURACY = Objective.of("val_accuracy")


def page_of(tmp_path: Path, *sweeps: str) -> tuple[str, Path]:
    page = report.write([results(tmp_path, s) for s in sweeps or (None,)], tmp_path / "out")
    return page.read_text(), page.parent


def figures_on(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)]


@pytest.fixture(scope="module")
def written(shared: Any) -> tuple[str, Path, dict[int | None, str]]:
    """The page of a sweep of five trials, its folder, and the runs by trial."""
    folder, _, tracker = shared
    return *page_of(folder), tracker.runs


def test_every_trials_run_id_is_on_the_page(written: Any) -> None:
    page, _, runs = written
    for trial, run in runs.items():
        assert f'data-run="{run}"' in page, trial


def test_the_page_needs_nothing_from_elsewhere_and_stays_small(written: Any) -> None:
    page, folder, _ = written
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert not re.findall(r"@import|url\((?!data:)", page.partition('id="plotly"')[0])
    assert (folder / report.PAGE).stat().st_size < 5e6


def test_the_figures_are_valid_to_plotly(written: Any) -> None:
    import plotly.graph_objects as go

    page, _, _ = written
    shown = figures_on(page)
    kinds = {trace["type"] for figure in shown for trace in figure["data"]}
    assert kinds == {"scatter", "parcoords", "bar", "heatmap"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plotly's own
        for figure in shown:
            go.Figure(figure)  # raises ValueError for what it does not know


def test_the_table_and_the_summary_hold_all_trials(written: Any) -> None:
    _, folder, runs = written
    table = pd.read_csv(folder / report.TABLE)
    assert table["run_id"].tolist() == [runs[n] for n in NUMBERS]
    assert table["status"].tolist() == list(STATUSES)
    summary = (folder / report.SUMMARY).read_text()
    best = table[table["status"] != "failed"].sort_values("best_val_accuracy").iloc[-1]
    assert f"Best is trial {best['name']} with val_accuracy {best['best_val_accuracy']:.4f}" in summary
    assert ", in float32. Of the trials" in summary
    assert f"| `model.activation` | {best['model.activation']} |" in summary


def test_both_summaries_say_that_few_trials_do_not_rank_keys(written: Any) -> None:
    page, folder, _ = written
    at_the_top = page.partition("<h2>Summary</h2>")[2].partition("</section>")[0]
    for summary in (at_the_top, (folder / report.SUMMARY).read_text()):
        assert re.search(r"trials are too few for \d+ keys \(about \d+ would do\): do not trust the order\.", summary)


def test_failures_are_listed_with_their_reasons(written: Any) -> None:
    page, _, runs = written
    failures = page.partition("<h2>Failures</h2>")[2].partition("</section>")[0]
    assert all(text in failures for text in ("was failed", runs[3], "1 trial was stopped early"))


def test_a_runs_name_is_escaped(uri: str, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    events: list[Event] = [named(sweep_event(), "fake")]
    for number in (1, 2, 3):
        start, *epochs, end = trial_events(number, epochs=2, status="failed" if number == 3 else "completed")
        events += [replace(start, title=f"{number:03d} {evil}"), *epochs, replace(end, reason=evil)]
    follow(uri, tmp_path / "sweep", events)
    page, _ = page_of(tmp_path)
    assert "<script>alert" not in page
    assert figures_on(page)


def test_there_is_a_page_once_a_trial_has_finished(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "failed", [sweep_event(), *trial_events(1, status="failed")])
    with pytest.raises(UserError, match="has no finished trial"):
        page_of(tmp_path)
    assert not (tmp_path / "out").exists()
    follow(uri, tmp_path / "single", [sweep_event("fake-2", 2000.0), *trial_events(1)])
    assert "The settings cannot be ranked by importance" in page_of(tmp_path, "fake-2")[0]


def race_events(sweep: str, curves: list[list[float]], digest: str = "d1", *overrides: str) -> list[Event]:
    """A sweep whose trials, one after another, report these values of val_accuracy."""
    data = {"name": "digits", "digest": digest, "kind": "text", "validation": 100, "test": 100}
    start = replace(sweep_event(sweep), provenance={"data": data})
    events: list[Event] = [named(start, sweep.split("-")[0], *overrides)]
    for number, curve in enumerate(curves, start=1):
        first, *epochs, last = trial_events(number, epochs=len(curve))
        reports = [replace(e, metrics={**e.metrics, "val_accuracy": v}) for e, v in zip(epochs, curve, strict=True)]
        events += [first, *reports, last]
    return events


@pytest.fixture(scope="module")
def race(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which `slow` wins in the end, `fast` after as many epochs as both have."""
    folder = tmp_path_factory.mktemp("race")
    (folder / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    uri = open_store(settings(folder))
    slow = [[0.1, 0.2, 0.3], [0.1, 0.2, 0.95]]
    fast = [[0.3, 0.9], [0.2, 0.4]]
    for name, curves, digest in (("slow", slow, "d1"), ("fast", fast, "d2")):
        follow(uri, folder / name, race_events(f"{name}-20260101-000000", curves, digest))
    return folder


class TestComparison:
    @pytest.fixture
    def both(self, race: Path) -> list[Any]:
        return [results(race, name) for name in ("slow", "fast")]

    def test_they_are_compared_at_equal_epochs(self, both: list[Any]) -> None:
        found = compare(both)
        assert found.equal == 4
        assert found.table["at 4 epochs"].tolist() == [0.3, 0.9]
        assert found.table["best val_accuracy"].tolist() == [0.95, 0.9]
        assert "After 4 epochs each, the best val_accuracy of fast-20260101-000000 is 0.9000" in found.verdict
        assert "outside the 95% interval of the first" in found.verdict
        assert "on 100 validation texts" in found.verdict

    def test_each_figure_has_its_run(self, both: list[Any]) -> None:
        found = compare(both)
        runs = {r.sweep.name: dict(zip(r.trials["trial"], r.trials["run_id"], strict=True)) for r in both}
        assert found.runs["slow-20260101-000000", "at 4 epochs"] == runs["slow"][1]
        assert found.runs["slow-20260101-000000", "best val_accuracy"] == runs["slow"][2]
        assert found.runs["fast-20260101-000000", "at 4 epochs"] == runs["fast"][1]

    def test_different_data_is_reported(self, both: list[Any], race: Path) -> None:
        assert any("different data" in doubt for doubt in compare(both).doubts)
        page, _ = page_of(race, "slow", "fast")
        assert "not of the same examples" in page
        assert page.count("<h2>Leaderboard</h2>") == 2

    def test_different_objectives_are_refused(self, both: list[Any], race: Path) -> None:
        events = race_events("loss-20260101-000000", [[0.1]], "d1", "objective=val_loss")
        follow(both[0].reader.uri, race / "loss", events)
        with pytest.raises(UserError, match=r"different objectives .* has val_accuracy, .* has val_loss"):
            compare([both[0], results(race, "loss")])


def test_costs_that_no_trial_has_are_no_columns(uri: str, tmp_path: Path) -> None:
    start, *epochs, end = trial_events(1)
    events = [
        named(sweep_event("own"), "own"),
        start,
        *epochs,
        replace(end, summary={"trial_seconds": 1.0}),
        stop_event(),
    ]
    follow(uri, tmp_path / "sweep", events)
    page, folder = page_of(tmp_path)
    assert "mmacs" not in (folder / report.SUMMARY).read_text()
    assert "mult-adds</th>" not in page


def test_the_best_so_far_is_never_that_of_a_trial_that_failed(uri: str, tmp_path: Path) -> None:
    first, other, last = (race_events("sound-20260101-000000", [[0.3], [0.9], [0.5]])[i : i + 3] for i in (1, 4, 7))
    other[2] = replace(other[2], status="failed")  # type: ignore[type-var]
    events = [*race_events("sound-20260101-000000", [])[:1], *first, *other, *last, stop_event()]
    follow(uri, tmp_path / "sweep", events)
    found = results(tmp_path)
    assert found.parent("metrics", "best_val_accuracy") == found.ranked()["best_val_accuracy"].iloc[0] == 0.5
    by_trial = figures.best_by_trial(found.trials, ACCURACY).data[-1]
    by_time = figures.best_by_time(found.trials, found.curves, ACCURACY).data[0]
    assert (max(by_trial.y), max(by_time.y)) == (0.5, 0.5)
    curves = figures.learning_curves(found.trials, found.curves, ACCURACY)
    assert (curves.layout.xaxis.title.text, curves.layout.xaxis.dtick) == ("epoch", 1), "no epoch 1.5"
    race = compare([found, found]).race[found.sweep.id]
    assert (race["best"].tolist(), race["epochs"].tolist()) == ([0.3, 0.3, 0.5], [1, 2, 3])


@pytest.mark.parametrize(
    ("overrides", "networks", "export"),
    [
        (["space=none", "tracking.dir=runs"], "of a CNN", True),
        (["model=keras_tuner", "model.hypermodel=mine.build"], "of a network", True),
        (["job=function", "job.call=mine.main"], "with", False),
    ],
)
def test_a_sweep_of_ones_own_code(uri: str, tmp_path: Path, overrides: list[str], networks: str, export: bool) -> None:
    event = sweep_event("own")
    if overrides[:1] == ["job=function"]:
        event = replace(event, provenance={**PROVENANCE, "data": {"name": "none"}})
    follow(uri, tmp_path / "sweep", [named(event, "own", *overrides), *trial_events(1), stop_event()])
    page, folder = page_of(tmp_path)
    summary = (folder / report.SUMMARY).read_text()
    assert f"Searched one configuration {networks} " in summary
    assert "Best configuration" not in summary, "an empty table"
    assert "cnnsweep train --from" in page
    assert ("cnnsweep export" in page) == export
    assert page.count(" tracking.dir=runs</code>") == 2 * ("tracking.dir=runs" in overrides), "where commands find it"


def test_short_times_are_in_seconds() -> None:
    figure = figures.worker_time(pd.DataFrame({"training": [90.0], "waiting": [20.0]}, index=["cpu0"]))
    assert (figure.layout.xaxis.title.text, figure.data[0].x.tolist()) == ("seconds", [90.0])


def test_waiting_is_what_all_workers_have_left_where_trials_moved_between_them(uri: str, tmp_path: Path) -> None:
    """A trial counts where it ended, with epochs that another worker trained: 120 s and 60 s of twice 100 s."""
    machine = {"cores": 2, "workers": ["cpu0", "cpu1"]}
    events: list[Event] = [replace(named(sweep_event("moved"), "moved"), provenance={**PROVENANCE, "machine": machine})]
    for number, worker, seconds in ((1, "cpu0", 120.0), (2, "cpu1", 60.0)):
        start, *epochs, end = trial_events(number)
        summary = {**end.summary, "trial_seconds": seconds}
        events += [replace(start, worker=worker), *epochs, replace(end, summary=summary)]
    follow(uri, tmp_path / "sweep", [*events, replace(stop_event(), summary={"sweep_seconds": 100.0})])
    used = report._time(results(tmp_path))
    assert used is not None
    assert used["waiting"].tolist() == [0.0, 20.0]
    assert used.to_numpy().sum() == 200.0


def test_ties_are_counted_by_the_interval_of_the_validation_images(uri: str, tmp_path: Path) -> None:
    follow(uri, tmp_path / "sweep", race_events("near-20260101-000000", [[0.9], [0.87], [0.5]]))
    sentences = " ".join(text.found(results(tmp_path)))
    assert "1 other trial cannot be distinguished from it" in sentences
    assert "95% interval of 100 validation texts extends down to 0.8256" in sentences


class TestFigures:
    def test_pareto_front(self) -> None:
        trials = pd.DataFrame({"cost": [4, 1, 2, 3, 2], "best_val_accuracy": [0.9, 0.5, 0.8, 0.7, 0.6]})
        assert figures.pareto(trials, "cost", ACCURACY)["cost"].tolist() == [1, 2, 4]
        losses = trials.rename(columns={"best_val_accuracy": "best_val_loss"})
        assert figures.pareto(losses, "cost", Objective.of("val_loss"))["best_val_loss"].tolist() == [0.5]

    def test_thinning_keeps_the_best_and_the_worst(self) -> None:
        trials = pd.DataFrame({"trial": range(1000), "best_val_accuracy": np.linspace(0, 1, 1000)})
        kept = figures.thin(trials, ACCURACY, 100)
        assert len(kept) == 100
        assert kept["trial"].is_unique
        assert set(range(950, 1000)) <= set(kept["trial"])
        assert 0 in set(kept["trial"])


class TestAxis:
    def test_choices_are_side_by_side_and_absent_values_apart(self) -> None:
        found = axis("model.filters.2", pd.Series([64, None, 16], dtype="Int64"), Parameter("f", choices=(16, 64)))
        assert found.at.tolist() == [1.0, -1.0, 0.0]
        assert (found.ticks, found.labels) == ([-1.0, 0.0, 1.0], ["–", "16", "64"])

    def test_a_log_range_is_laid_out_by_its_logarithm(self) -> None:
        parameter = Parameter("rate", low=1e-4, high=1e-2, log=True)
        found = axis("training.learning_rate", pd.Series([1e-3, None]), parameter)
        assert found.at[0] == pytest.approx(-3)
        assert found.at[1] < -4
        assert found.labels == ["–", "1e-4", "3e-4", "1e-3", "3e-3", "0.01"]
        assert found.continuous


def test_a_second_metric_is_on_the_leaderboard_and_against_the_first(uri: str, tmp_path: Path) -> None:
    events: list[Event] = [named(sweep_event("two"), "two", "objective=[val_accuracy,val_loss]")]
    for number in (1, 2, 3):
        events += trial_events(number)
    follow(uri, tmp_path / "sweep", [*events, replace(stop_event(), front=[1, 3])])
    page, folder = page_of(tmp_path)
    found = results(tmp_path)
    ranked = found.ranked()
    np.testing.assert_allclose(ranked["best_val_loss"], 2.05 - ranked["best_val_accuracy"])
    table = (folder / "report.md").read_text()
    assert re.search(r"status \| val_loss \| Pareto front \|", table)
    assert f"| completed | {ranked['best_val_loss'].iloc[0]:.4f} |" in table
    assert "<h3>val_loss</h3>" in page
    front = figures.cost(ranked, "best_val_loss", "", ACCURACY, 1).data[-1]
    assert list(front.x) == [ranked["best_val_loss"].min()]
    assert len(figures.cost(ranked, "best_val_loss", "", ACCURACY, -1).data[-1].x) == 3


def test_one_is_no_plural(uri: str, tmp_path: Path) -> None:
    start, *rest = trial_events(1, epochs=1)
    one = [replace(start, values={"model.blocks": 2}), *rest]
    follow(
        uri,
        tmp_path / "sweep",
        [named(sweep_event("one"), "one", "space=none", "space.model.blocks.values=[2,3]"), *one, stop_event()],
    )
    page, folder = page_of(tmp_path)
    summary = (folder / report.SUMMARY).read_text()
    assert "Searched 1 setting of a CNN on digits with auto search: 1 trial, 1 epoch, " in summary
    assert "Of the trials 1 ran to its end." in summary
    assert not re.search(r"\b1 [a-z]+s\b", re.sub(r"<(script|style).*?</\1>", "", page + summary, flags=re.S))


@pytest.mark.parametrize("factor", [1e-6, 1e40])
def test_small_and_large_values_are_shown_with_their_digits(factor: float, uri: str, tmp_path: Path) -> None:
    events: list[Event] = [named(sweep_event("scaled"), "scaled")]
    for start, *epochs, end in map(trial_events, (1, 2, 3)):
        scaled = [replace(e, metrics=e.metrics | {"val_accuracy": factor * e.metrics["val_accuracy"]}) for e in epochs]
        events += [start, *scaled, end]
    follow(uri, tmp_path / "sweep", [*events, stop_event()])
    page, folder = page_of(tmp_path)
    row = results(tmp_path).ranked().iloc[0]
    value = f"{row['best_val_accuracy']:.4g}"
    assert f"Best is trial {row['name']} with val_accuracy {value} at epoch" in (folder / report.SUMMARY).read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert text.count(f"{value}<") == 2, "in the tile and on the leaderboard"
    assert not re.search(r"\b0\.0000\b|\d{20}\.", text)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_cells_without_a_trial_have_no_colour_and_those_of_the_best_are_dark(metric):
    column = f"best_{metric}"
    trials = pd.DataFrame({"name": ["1", "2", "3"], column: [0.5, 0.7, 0.9], "a": [1, 1, 2], "b": [1, 2, 2]})
    drawn = figures.contour(trials, axis("a", trials["a"]), axis("b", trials["b"]), Objective.of(metric))
    cells = np.asarray(drawn.data[0].z)
    assert np.isnan(cells[0]).all()
    assert np.isnan(cells[:, 0]).all()
    np.testing.assert_allclose(cells[1:, 1:], [[0.5, np.nan], [0.7, 0.9]])
    assert drawn.layout.coloraxis.reversescale == (metric == "val_loss")

"""A sweep's report: one HTML page that works offline, a CSV of all trials, and a Markdown summary."""

from __future__ import annotations

import argparse
import base64
import functools
import gzip
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsweep.api import results_in, tracking_of
from cnnsweep.errors import UserError
from cnnsweep.report import effects
from cnnsweep.report import figures as draw
from cnnsweep.report import text as words
from cnnsweep.report.axes import Axis, axis, short
from cnnsweep.report.comparison import Comparison, compare
from cnnsweep.report.figure_style import Figure
from cnnsweep.report.importance import Importance, importance
from cnnsweep.tracking.frames import Results, local_folder
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.store import connect

TOP = 20
MOST_AXES = 11
PAGE, TABLE, SUMMARY = "report.html", "trials.csv", "report.md"
_log = logging.getLogger("cnnsweep.report")


@dataclass(frozen=True)
class Section:
    """One sweep's part of the page, worked out but not laid out."""

    results: Results
    importance: Importance | None
    figures: dict[str, Figure]
    slices: list[Figure]
    gallery: list[tuple[pd.Series, list[tuple[str, str]]]]
    """For each trial that has one: captions and images as data URIs."""
    time: pd.DataFrame | None


def write(sweeps: Sequence[Results], folder: Path) -> Path:
    """Write report.html, trials.csv and report.md about one sweep, or several side by side; return the page's path.

    Raises UserError where a sweep has no finished trial or the folder cannot be written.
    """
    for results in sweeps:
        results.expect_finished()
    _make(folder)
    comparison = compare(sweeps) if len(sweeps) > 1 else None
    sections = [_section(results) for results in sweeps]
    try:
        (folder / PAGE).write_text(_html(sections, comparison), encoding="utf-8")
        pd.concat([r.trials for r in sweeps], ignore_index=True).to_csv(folder / TABLE, index=False)
        (folder / SUMMARY).write_text(_markdown(sections, comparison), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report cannot be written to '{folder}': {error.strerror or error}") from error
    return folder / PAGE


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to '{folder}': {error.strerror or error}") from error


def log(results: Results, folder: Path) -> None:
    """Put a report's files among the artifacts of the sweep's run."""
    connect(results.reader.uri).log_artifacts(results.sweep.run, str(folder), "report")


def at_end(tracking: Mapping[str, Any], sweep: str) -> Path | None:
    """The report of a sweep that has just ended; None where it cannot be made, which must not fail the sweep."""
    began = time.monotonic()
    try:
        results = results_in(open_reader(tracking), sweep)
        page = write([results], report_folder(tracking, [sweep]))
        log(results, page.parent)
        _log.info("report made in %.1f s", time.monotonic() - began)
    except Exception as error:
        _log.warning("no report: %s", error)
        return None
    return page


def report_folder(tracking: Mapping[str, Any], sweeps: Sequence[str]) -> Path:
    """Where the report goes: beside the sweep's journal, or among the reports where several are compared."""
    root = Path(tracking["dir"]).absolute()
    if len(sweeps) == 1 and (root / "sweeps" / sweeps[0]).is_dir():
        return root / "sweeps" / sweeps[0] / "report"
    return root / "reports" / "_".join(sweeps)[:150]


def command(arguments: Sequence[str]) -> int:
    """Make a report: `report [SWEEP ...] [tracking.dir=DIR | tracking=server tracking.uri=URI] [--out DIR]`."""
    parser = argparse.ArgumentParser(prog="cnnsweep report", description="Write a sweep's report, or of several.")
    parser.add_argument("words", nargs="*", metavar="SWEEP", help="ids or names; by default the latest sweep")
    parser.add_argument("--out", type=Path, help="the folder to write to (default: beside the sweep's journal)")
    options = parser.parse_intermixed_args(list(arguments))
    names = list(dict.fromkeys(word for word in options.words if "=" not in word))
    tracking = tracking_of([word for word in options.words if "=" in word])
    reader = open_reader(tracking)
    found = {(r := results_in(reader, name)).sweep.id: r for name in names or [None]}
    folder = options.out or report_folder(tracking, list(found))
    page = write(list(found.values()), folder)
    print(f"report: {page}\nalso:   {folder / TABLE}, {folder / SUMMARY}")
    if len(found) == 1:
        log(next(iter(found.values())), folder)
        print("all are among the artifacts of the sweep's run in MLflow as well")
    return 0


def _section(results: Results) -> Section:
    trials, epochs, objective = results.trials, results.curves, results.objective
    scored = trials[trials["status"] != "failed"].reset_index(drop=True)
    weighed = importance(trials, results.keys, objective)
    order = list(weighed.shares) if weighed else [key for key in results.keys if trials[key].nunique() > 1]
    by_name = results.space.by_name if results.space else {}
    axes = {key: axis(key, scored[key], by_name.get(key)) for key in order}
    time = _time(results)
    drawn = {
        "best_by_trial": draw.best_by_trial(trials, objective),
        "best_by_time": draw.best_by_time(trials, epochs, objective),
        "learning_curves": draw.learning_curves(trials, epochs, objective),
    }
    if axes:
        across = [*(axes[key] for key in order[:MOST_AXES]), *_costs(scored)]
        drawn["parallel"] = effects.parallel(scored, across, objective)
    if weighed:
        drawn["importance"] = effects.importances(weighed)
        if len(order) > 1:
            drawn["contour"] = effects.contour(scored, axes[order[0]], axes[order[1]], objective)
    for by, title in (("parameters", "parameters"), ("mmacs", "multiply-adds of one image, millions")):
        if (trials[by] > 0).fillna(False).any():
            drawn[by] = draw.cost(trials[(trials[by] > 0).fillna(False)], by, title, objective)
    if time is not None:
        drawn["time"] = draw.worker_time(time)
    slices = [effects.slice_of(scored, axes[key], objective) for key in order]
    return Section(results, weighed, drawn, slices, _gallery(results), time)


def _costs(trials: pd.DataFrame) -> list[Axis]:
    known = trials["parameters"].notna()
    return (
        [axis("parameters", trials["parameters"].astype(float))]
        if known.any() and trials["parameters"].nunique() > 1
        else []
    )


def _time(results: Results) -> pd.DataFrame | None:
    """Seconds by worker: in epochs, around them (data, building, checkpoints), and waiting."""
    trials = results.trials[results.trials["seconds"].notna()]
    if trials.empty:
        return None
    epochs = results.curves.groupby("trial")["epoch_seconds"].sum()
    workers = trials["worker"].fillna("all workers")
    spent = trials["trial"].map(epochs).fillna(0)
    frame = pd.DataFrame(
        {
            "training": spent.groupby(workers).sum(),
            "around it": (trials["seconds"] - spent).clip(lower=0).groupby(workers).sum(),
        }
    )
    workers = json.loads(results.parent("tags", "cnnsweep.machine.workers") or "[]")
    frame = frame.reindex(sorted({*frame.index, *(workers if trials["worker"].notna().any() else ())}), fill_value=0.0)
    share = words.sweep_seconds(results) * (len(workers) or 1 if len(frame) == 1 else 1)
    frame["waiting"] = (share - frame.sum(axis=1)).clip(lower=0)
    return frame


def _gallery(results: Results) -> list[tuple[pd.Series, list[tuple[str, str]]]]:
    """The pictures of the best trials that have some."""
    from mlflow.exceptions import MlflowException

    wanted = int((results.config.get("tracking") or {}).get("gallery", 3))
    shown = []
    for _, trial in results.ranked().head(wanted).iterrows():
        place = local_folder(str(results.rows.runs.at[trial["run_id"], "artifact_uri"]))
        with tempfile.TemporaryDirectory() as made:
            try:
                if place is None:
                    place = Path(
                        connect(results.reader.uri).download_artifacts(trial["run_id"], "gallery", made)
                    ).parent
                images = [(_caption(p), _data_uri(p)) for p in sorted((place / "gallery").glob("*.png"))]
            except (OSError, MlflowException):
                continue
        if images:
            shown.append((trial, images))
    return shown


def _caption(path: Path) -> str:
    """
    >>> _caption(Path("4_features_block1.png"))
    'features block1'
    """
    return path.stem.partition("_")[2].replace("_", " ")


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _html(sections: Sequence[Section], comparison: Comparison | None) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cnnsweep.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"short": short, "figure": _json, "value": _value, "cell": _cell, "duration": words.duration}
    race = draw.race(comparison.race, comparison.objective, comparison.equal) if comparison else None
    return environment.get_template("report.html.j2").render(
        title=" and ".join(s.results.sweep.name if len(sections) == 1 else s.results.sweep.id for s in sections),
        sections=sections,
        comparison=comparison,
        race=race,
        top=TOP,
        words=words,
        marks=_marks,
        most_axes=MOST_AXES,
        most_curves=draw.MOST_CURVES,
        plotly=_plotly(),
        made=time.strftime("%Y-%m-%d %H:%M"),
        table=TABLE,
    )


@functools.cache
def _plotly() -> str:
    """Plotly's own script, packed: 2 MB instead of 5; browsers unpack it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 5, mtime=0)).decode()


def _json(figure: Figure) -> Any:
    """A figure as JSON that may stand inside a script element."""
    import markupsafe

    text = json.dumps(figure, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return markupsafe.Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _value(value: Any) -> str:
    """
    >>> _value(0.0012345), _value(True), _value(float("nan")), _value(32)
    ('0.001234', 'true', '–', '32')
    """
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any, column: str) -> str:
    """A figure of a table, by its column."""
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, str):
        return value
    if column in ("trials", "epochs", "parameters"):
        return f"{int(value):,}"
    return f"{value:,.1f}" if column == "minutes" else f"{value:.4f}" if isinstance(value, float) else str(value)


def _markdown(sections: Sequence[Section], comparison: Comparison | None) -> str:
    parts = []
    if comparison:
        columns = list(comparison.table.columns)
        rows = [[_cell(row[c], c) for c in columns] for _, row in comparison.table.iterrows()]
        parts += ["# Side by side", comparison.verdict, *comparison.doubts, _table(columns, rows)]
    for section in sections:
        results, trials = section.results, section.results.ranked().head(TOP)
        parts += [f"# {results.sweep.id}", words.searched(results), "\n".join(f"- {s}" for s in words.found(results))]
        parts += [words.mattered(section.importance)]
        if section.importance and section.importance.warning:
            parts.append(f"**Few trials:** {section.importance.warning}.")
        columns = [results.best_column, "best_epoch", "epochs", "parameters", "mmacs", "seconds", "status"]
        more = _marks(results)
        rows = [
            [str(t["name"]), *(_value(t[c]) for c in columns), *(mark(t) for mark in more.values()), t["run_id"]]
            for _, t in trials.iterrows()
        ]
        parts += ["## Best trials", _table(["trial", *columns, *more, "run_id"], rows)]
        best = trials.iloc[0]
        parts += [
            "## Best configuration",
            _table(["key", "value"], [[f"`{k}`", _value(best[k])] for k in results.keys]),
        ]
    return "\n\n".join(parts) + "\n"


def _marks(results: Results) -> dict[str, Callable[[pd.Series[Any]], str]]:
    """Columns of the leaderboard for what not every sweep has, by heading."""
    marks: dict[str, Callable[[pd.Series[Any]], str]] = {}
    if len(results.finalists()):
        marks["with other seeds"] = lambda trial: words.spread(trial, results.objective.metric)
    if len(front := set(results.front()["trial"])):
        marks["Pareto front"] = lambda trial: "yes" if trial["trial"] in front else ""
    return marks


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])

"""Reports of sweeps: one HTML page that works offline, a CSV of all trials, and a Markdown summary."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe
import pandas as pd
from plotly import graph_objects as go

from cnnsweep.config.schema import Tracking
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted, duration, markdown_table, score
from cnnsweep.report import figures as draw
from cnnsweep.report import text
from cnnsweep.report.analysis import Comparison, Importance, compare, importance
from cnnsweep.report.axes import axis
from cnnsweep.tracking.frames import Results, read_results
from cnnsweep.tracking.locations import artifacts_at, local_folder
from cnnsweep.tracking.reader import open_reader
from cnnsweep.tracking.store import connect

PAGE, TABLE, SUMMARY = "report.html", "trials.csv", "report.md"
TOP = 20
"""Trials on the leaderboard."""
MAX_AXES = 11
"""Settings among the parallel coordinates."""
Cell = str | int | float | bool | None
"""A value of a table; absent where None or NaN."""
COSTS = {"parameters": "parameters", "mmacs": "multiply-adds of one input, millions"}


Gallery = tuple[pd.Series, list[tuple[str, str]]]
"""A trial, and pictures of its network: captions, and PNGs as data URIs."""


@dataclass(frozen=True)
class Section:
    """One sweep's part of the page."""

    results: Results
    importance: Importance | None
    figures: dict[str, go.Figure]
    slices: list[go.Figure]
    galleries: list[Gallery]
    time: pd.DataFrame | None
    """Seconds by worker and use."""


def make(tracking: Tracking, names: Sequence[str] = (), folder: Path | None = None) -> tuple[Path, bool]:
    """Report on sweeps by id or name, side by side where there are several; on the latest where none is named.

    The report of a single sweep is logged to its run too. Return the page's path, and whether it was logged.
    Raises UserError where there is no such sweep, it has no finished trial, or the folder cannot be written.
    """
    reader = open_reader(tracking)
    wanted: list[str | None] = [*names] or [None]
    found = {(r := read_results(reader, name)).sweep.id: r for name in wanted}
    path = write(list(found.values()), folder or _folder(tracking, list(found)))
    if len(found) > 1:
        return path, False
    (results,) = found.values()
    try:
        artifacts_at(reader.uri, results.artifacts(results.sweep.run)).log_artifacts(str(path.parent), "report")
    except OSError:  # a store that is only to be read
        return path, False
    return path, True


def write(sweeps: Sequence[Results], folder: Path) -> Path:
    """Write report.html, trials.csv and report.md about one sweep, or several side by side; return the page's path.

    Raises UserError where a sweep has no finished trial or the folder cannot be written.
    """
    for results in sweeps:
        results.expect_finished()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        comparison = compare(sweeps) if len(sweeps) > 1 else None
        sections = [_section(results) for results in sweeps]
        (folder / PAGE).write_text(_html(sections, comparison), encoding="utf-8")
        pd.concat([r.trials for r in sweeps], ignore_index=True).to_csv(folder / TABLE, index=False)
        (folder / SUMMARY).write_text(_markdown(sections, comparison), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report cannot be written to '{folder}': {error.strerror or error}") from error
    return folder / PAGE


def _folder(tracking: Tracking, sweeps: Sequence[str]) -> Path:
    """Beside the sweep's journal, or among the reports where several are compared."""
    root = Path(tracking.dir).absolute()
    if len(sweeps) == 1 and (root / "sweeps" / sweeps[0]).is_dir():
        return root / "sweeps" / sweeps[0] / "report"
    return root / "reports" / "_".join(sweeps)[:150]


def _section(results: Results) -> Section:
    """Work out all that the page shows of a sweep."""
    trials, epochs, objective = results.trials, results.curves, results.objective
    scored = trials[trials["status"] != "failed"].reset_index(drop=True)
    by_name = results.space.by_name if results.space else {}
    weighed = importance(trials, results.keys, objective, by_name)
    order = list(weighed.shares) if weighed else [key for key in results.keys if trials[key].nunique() > 1]
    axes = {key: axis(key, scored[key], by_name.get(key)) for key in order}
    time_used = _time(results)
    drawn = {
        "best_by_trial": draw.best_by_trial(trials, objective),
        "best_by_time": draw.best_by_time(trials, epochs, objective),
        "learning_curves": draw.learning_curves(trials, epochs, objective),
    }
    if axes:
        across = [axes[key] for key in order[:MAX_AXES]]
        if scored["parameters"].nunique() > 1:
            across.append(axis("parameters", scored["parameters"].astype(float)))
        drawn["parallel"] = draw.parallel(scored, across, objective)
    if weighed:
        drawn["importance"] = draw.importances(weighed)
        if len(order) > 1:
            drawn["contour"] = draw.contour(scored, axes[order[0]], axes[order[1]], objective)
    for cost, title in COSTS.items():
        known = (trials[cost] > 0).fillna(False)
        if known.any():
            drawn[cost] = draw.cost(trials[known], cost, title, objective)
    for other in objective.also:
        if (column := f"best_{other.metric}") in trials:
            title = f"{other.metric}, of the epoch with the best {objective.metric}"
            drawn[column] = draw.cost(trials, column, title, objective, int(other.sign))
    if time_used is not None:
        drawn["time"] = draw.worker_time(time_used)
    slices = [draw.slice_of(scored, axes[key], objective) for key in order]
    return Section(results, weighed, drawn, slices, _galleries(results), time_used)


def _html(sections: Sequence[Section], comparison: Comparison | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cnnsweep.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["missing"] = pd.isna
    environment.filters |= {"figure": _json, "value": _value, "cell": _cell}
    environment.filters |= {"duration": duration, "score": score, "counted": counted}
    return environment.get_template("report.html.j2").render(
        title=" and ".join(s.results.sweep.name if len(sections) == 1 else s.results.sweep.id for s in sections),
        sections=sections,
        comparison=comparison,
        race=draw.race(comparison.race, comparison.objective, comparison.equal) if comparison else None,
        top=TOP,
        text=text,
        marks=_marks,
        max_axes=MAX_AXES,
        max_curves=draw.MAX_CURVES,
        plotly=_plotly(),
        made=time.strftime("%Y-%m-%d %H:%M"),
        table=TABLE,
    )


def _markdown(sections: Sequence[Section], comparison: Comparison | None) -> str:
    """The summary: sentences, leaderboard and best configuration of each sweep."""
    parts = []
    if comparison:
        columns = list(comparison.table.columns)
        rows = [[_cell(row[c], c) for c in columns] for _, row in comparison.table.iterrows()]
        parts += ["# Comparison", comparison.verdict, *comparison.doubts, markdown_table(columns, rows)]
    for section in sections:
        results, trials = section.results, section.results.ranked().head(TOP)
        sentences = "\n".join(f"- {sentence}" for sentence in text.found(results))
        parts += [f"# {results.sweep.id}", text.searched(results), sentences, text.mattered(section.importance)]
        if section.importance and section.importance.warning:
            parts.append(f"**Few trials:** {section.importance.warning}.")
        costs = [name for name in COSTS if trials[name].notna().any()]
        columns = [results.best_column, "best_epoch", "epochs", *costs, "seconds", "status"]
        more = _marks(results)
        rows = [
            [str(t["name"]), *(_value(t[c]) for c in columns), *(mark(t) for mark in more.values()), t["run_id"]]
            for _, t in trials.iterrows()
        ]
        parts += ["## Best trials", markdown_table(["trial", *columns, *more, "run_id"], rows)]
        best = [[f"`{key}`", _value(trials.iloc[0][key])] for key in results.keys]
        parts += ["## Best configuration", markdown_table(["key", "value"], best)] if best else []
    return "\n\n".join(parts) + "\n"


def _time(results: Results) -> pd.DataFrame | None:
    """Seconds by worker: in epochs, around them (data, building, checkpoints), and waiting."""
    trials = results.trials[results.trials["seconds"].notna()]
    if trials.empty:
        return None
    epochs = results.curves.groupby("trial")["epoch_seconds"].sum()
    worker = trials["worker"].fillna("all workers")
    spent = trials["trial"].map(epochs).fillna(0)
    around = (trials["seconds"] - spent).clip(lower=0)
    frame = pd.DataFrame({"training": spent.groupby(worker).sum(), "around it": around.groupby(worker).sum()})
    workers = json.loads(results.parent("tags", "cnnsweep.machine.workers") or "[]")
    known = workers if trials["worker"].notna().any() else ()
    frame = frame.reindex(sorted({*frame.index, *known}), fill_value=0.0)
    share = text.sweep_seconds(results) * (len(workers) or 1 if len(frame) == 1 else 1)
    idle = (share - frame.sum(axis=1)).clip(lower=0)  # too much where trials moved on to other workers
    frame["waiting"] = idle * max(0.0, share * len(frame) - frame.to_numpy().sum()) / max(idle.sum(), 1e-9)
    return frame


def _galleries(results: Results) -> list[Gallery]:
    from mlflow.exceptions import MlflowException

    count = int((results.config.get("tracking") or {}).get("gallery", 3))
    found = []
    for _, trial in results.ranked().head(count).iterrows():
        artifacts = local_folder(results.reader.uri, results.artifacts(trial["run_id"]))
        with tempfile.TemporaryDirectory() as made:
            try:
                if artifacts is None:
                    client = connect(results.reader.uri)
                    artifacts = Path(client.download_artifacts(trial["run_id"], "gallery", made)).parent
                images = [(_caption(p), _data_uri(p)) for p in sorted((artifacts / "gallery").glob("*.png"))]
            except (OSError, MlflowException):
                continue
        if images:
            found.append((trial, images))
    return found


def _caption(path: Path) -> str:
    """
    >>> _caption(Path("4_features_block1.png"))
    'features block1'
    """
    return path.stem.partition("_")[2].replace("_", " ")


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@functools.cache
def _plotly() -> str:
    """Plotly's own script, compressed: 2 MB instead of 5; browsers decompress it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 5, mtime=0)).decode()


def _json(figure: go.Figure) -> markupsafe.Markup:
    """A figure as JSON that may be inside a script element."""
    content = figure.to_json(validate=False)
    return markupsafe.Markup(content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _value(value: Cell) -> str:
    """
    >>> _value(0.0012345), _value(True), _value(float("nan")), _value(32)
    ('0.001234', 'true', '–', '32')
    """
    if value is None or pd.isna(value):
        return "–"
    if pd.api.types.is_bool(value):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Cell, column: str) -> str:
    """A figure of a table, by its column."""
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return "–"
    if column in ("trials", "epochs", "parameters"):
        return f"{int(value):,}"
    return f"{value:,.1f}" if column == "minutes" else score(value) if isinstance(value, float) else str(value)


def _marks(results: Results) -> dict[str, Callable[[pd.Series], str]]:
    """Columns of the leaderboard that not every sweep has, by heading."""
    marks: dict[str, Callable[[pd.Series], str]] = {}
    for metric in results.objective.metrics[1:]:
        marks[metric] = functools.partial(_at_best, metric)
    if len(results.finalists()):
        marks["with other seeds"] = lambda trial: text.spread(trial, results.objective.metric)
    if len(front := set(results.front()["trial"])):
        marks["Pareto front"] = lambda trial: "yes" if trial["trial"] in front else ""
    return marks


def _at_best(metric: str, trial: pd.Series) -> str:
    return _cell(trial.get(f"best_{metric}"), metric)

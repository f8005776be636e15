"""The report's interactive figures, by Plotly Express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.express as px
from plotly import graph_objects as go

from cnnsweep.config.objective import Objective
from cnnsweep.formatting import brief, time_unit
from cnnsweep.report.analysis import Importance
from cnnsweep.report.axes import Axis, round_ticks

MAX_CURVES, MAX_LINES, MAX_POINTS, MAX_SLICE_POINTS = 150, 1500, 3000, 1000
"""Trials drawn at most in learning curves, parallel coordinates, scatter plots and slices."""
INK, MUTED, GRID, BEST = "#1f2328", "#8b93a1", "#e7e9ee", "#d1495b"
STATUS = {"completed": "#1f6fb2", "pruned": "#d99a1c", "failed": "#d1495b"}
STATUS |= {"interrupted": "#8b93a1", "running": "#4a9d6f"}
SERIES = ["#1f6fb2", "#d1495b", "#4a9d6f", "#d99a1c", "#7b5ea7", "#3aa6a6"]
SCALE = [[0, "#dbe3ee"], [0.5, "#7fb0d9"], [0.8, "#2f7fc1"], [1, "#0b3c68"]]
_AXIS = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "ticks": "", "automargin": True}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": {"text": ""}},
        "margin": {"l": 58, "r": 16, "t": 34, "b": 46},
        "hovermode": "closest",
        "coloraxis": {"colorbar": {"thickness": 12, "outlinewidth": 0}},
    }
)


def best_by_trial(trials: pd.DataFrame, objective: Objective) -> go.Figure:
    """Each trial's best value by its number, and the best so far of those that did not fail."""
    column = f"best_{objective.metric}"
    ordered = trials[trials[column].notna()].sort_values("trial")
    sound = ordered[column].where(ordered["status"] != "failed")
    steps = ordered.assign(best=_running_best(sound, objective).ffill()).dropna(subset="best")
    steps = steps[steps["best"].ne(steps["best"].shift()) | (steps["trial"] == steps["trial"].max())]
    figure = _by_status(thin(ordered, objective, MAX_POINTS), "trial", objective)
    line = {"shape": "hv", "color": INK, "width": 2}
    figure.add_scatter(x=steps["trial"], y=steps["best"], mode="lines", name="best so far", line=line, hoverinfo="skip")
    return _finish(figure, "trial", objective.metric)


def best_by_time(trials: pd.DataFrame, epochs: pd.DataFrame, objective: Objective) -> go.Figure:
    """The best value that any trial that did not fail had reached, since the first trial's start."""
    sound = trials[trials["status"] != "failed"]
    seen = epochs[epochs[objective.metric].notna() & epochs["trial"].isin(sound["trial"])].sort_values("time")
    seconds = (seen["time"] - epochs["time"].min()).dt.total_seconds()
    unit, length = time_unit(seconds.max())
    steps = pd.DataFrame(
        {
            unit: seconds / length,
            "best": _running_best(seen[objective.metric], objective),
            "trial": "trial " + seen["trial"].astype(str).str.zfill(3),
        }
    )
    last = steps.tail(1).assign(trial="")
    steps = pd.concat([steps[steps["best"].ne(steps["best"].shift())], last])
    figure = px.line(steps, x=unit, y="best", hover_name="trial", line_shape="hv", markers=True)
    figure.update_traces(line={"color": INK, "width": 2}, marker_size=5)
    # The first epochs are far below; the range is that of the trials' best values.
    reached = sound[f"best_{objective.metric}"]
    tail = float(reached.quantile(0.1 if objective.direction == "max" else 0.9))
    low, high = sorted((tail, float(steps["best"].iloc[-1])))
    margin = 0.08 * (high - low) or 0.01
    figure.update_yaxes(range=[low - margin, high + margin])
    return _finish(figure, unit, objective.metric)


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame, objective: Objective) -> go.Figure:
    """The objective over the epochs: pruned trials dotted, the best on top."""
    chosen = thin(trials[trials[f"best_{objective.metric}"].notna()], objective, MAX_CURVES)
    sound = trials[trials["status"] != "failed"]
    index = objective.best(sound[f"best_{objective.metric}"].astype(float))
    best = None if index is None else int(sound["trial"].iloc[index])
    rows = epochs[["trial", "epoch", objective.metric]].merge(trials[["trial", "name", "status"]], on="trial")
    drawn = rows[rows["trial"].isin(chosen["trial"]) & (rows["trial"] != best)]
    figure = px.line(
        drawn,
        x="epoch",
        y=objective.metric,
        color="status",
        line_dash="status",
        line_group="trial",
        hover_name="name",
        hover_data={"status": False, "trial": False},
        markers=len(drawn) < 2000,
        color_discrete_map=STATUS,
        line_dash_map=dict.fromkeys(STATUS, "solid") | {"pruned": "dot"},
        category_orders={"status": list(STATUS)},
    )
    figure.update_traces(line_width=1.2, opacity=0.55, marker={"size": 4, "symbol": "circle"})
    lead = rows[rows["trial"] == best]
    if len(lead):
        top = px.line(lead, x="epoch", y=objective.metric, hover_name="name", markers=True)
        top.update_traces(name="best", showlegend=True, line={"color": INK, "width": 3})
        figure.add_traces(top.data)
    return _finish(figure, "epoch", objective.metric, height=420)


def cost(trials: pd.DataFrame, by: str, title: str, objective: Objective, sign: int = 0) -> go.Figure:
    """The objective against a cost, or a metric of this sign (`Objective.sign`), with the Pareto front of the two."""
    column = f"best_{objective.metric}"
    shown = trials[trials[column].notna() & trials[by].notna() & (trials["status"] != "failed")]
    front = pareto(shown.assign(**{by: (sign or 1) * shown[by]}), by, objective)
    figure = _by_status(thin(shown, objective, MAX_POINTS), by, objective)
    figure.add_scatter(
        x=(sign or 1) * front[by].astype(float),
        y=front[column],
        hovertext=front["name"],
        mode="lines+markers",
        name="Pareto front",
        line={"color": BEST, "width": 2, "shape": "hv"},
        marker={"size": 8, "symbol": "circle-open", "line": {"width": 2}},
    )
    if not sign:
        ticks = round_ticks(float(shown[by].min()), float(shown[by].max()), log=True)
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[brief(tick) for tick in ticks])
    return _finish(figure, title, objective.metric)


def worker_time(shares: pd.DataFrame) -> go.Figure:
    """The time of each worker; `shares` has a row a worker and a column a use, in seconds."""
    colours, (unit, length) = [STATUS["completed"], "#7fb0d9", "#dfe3ea"], time_unit(shares.sum(axis=1).max())
    times = (shares / length).rename_axis("worker", axis=0).rename_axis("use", axis=1)
    figure = px.bar(times, orientation="h", color_discrete_sequence=colours)
    figure.update_yaxes(type="category")
    return _finish(figure, unit, "", height=130 + 34 * len(shares))


def race(by_sweep: Mapping[str, pd.DataFrame], objective: Objective, equal: int) -> go.Figure:
    """The best so far of several sweeps over the epochs that they trained; a line marks the end of the shortest."""
    steps = pd.concat([frame.assign(sweep=name) for name, frame in by_sweep.items()])
    last = steps.groupby("sweep")["epochs"].transform("max")
    kept = steps[steps["best"].ne(steps.groupby("sweep")["best"].shift()) | (steps["epochs"] == last)]
    figure = px.line(kept, x="epochs", y="best", color="sweep", line_shape="hv", color_discrete_sequence=SERIES)
    figure.update_traces(line_width=2.5).add_vline(equal, line={"color": MUTED, "width": 1.5, "dash": "dash"})
    return _finish(figure, "epochs trained, all trials together", objective.metric, height=420)


def parallel(trials: pd.DataFrame, axes: Sequence[Axis], objective: Objective) -> go.Figure:
    """Every trial a line across its values; drag along an axis to filter, drag a name to move an axis."""
    column = f"best_{objective.metric}"
    placed = pd.DataFrame({axis.key: axis.at for axis in axes}, trials.index).assign(**{column: trials[column]})
    chosen = thin(placed[placed[column].notna()], objective, MAX_LINES)
    chosen = chosen.sort_values(column, ascending=objective.direction == "max")  # the best are drawn last, on top
    low, high = (chosen[column].quantile(q) for q in ((0.1, 1.0) if objective.direction == "max" else (0.0, 0.9)))
    figure = px.parallel_coordinates(
        chosen,
        color=column,
        labels={axis.key: axis.title for axis in axes} | {column: objective.metric},
        color_continuous_scale=SCALE,
        range_color=(low, high if high > low else low + 1e-9),
    )
    for axis, dimension in zip(axes, figure.data[0].dimensions, strict=False):
        dimension.update(tickvals=axis.ticks, ticktext=axis.labels, range=[axis.low, axis.high])
    figure.update_traces(
        labelangle=-25,
        unselected={"line": {"color": "#d8dbe1", "opacity": 0.12}},
        labelfont={"size": 12, "color": INK},
        tickfont={"size": 10, "color": INK},
        rangefont={"size": 9, "color": "rgba(0,0,0,0)"},  # it would be drawn across the names
    )
    figure.update_layout(margin={"l": 60, "r": 50, "t": 100, "b": 30}, coloraxis_showscale=False)
    figure.update_coloraxes(reversescale=objective.direction == "min")
    return _finish(figure, height=460)


def importances(found: Importance) -> go.Figure:
    """A bar a key; grey ones are below the share of a random key."""
    shares = dict(reversed(found.shares.items()))
    colours = [STATUS["completed"] if share > found.noise else "#c3c9d3" for share in shares.values()]
    figure = go.Figure(go.Bar(x=list(shares.values()), y=list(shares), orientation="h", marker_color=colours))
    figure.update_traces(hovertemplate="%{y}: %{x:.1%}<extra></extra>")
    line = {"color": BEST, "width": 1.5, "dash": "dash"}
    label = {"text": "a random key", "font": {"size": 11, "color": BEST}}
    figure.add_vline(found.noise, line=line, annotation=label, annotation_position="top")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(tickfont_size=12, gridcolor="rgba(0,0,0,0)")
    return _finish(figure, f"share ({found.method}, {found.trials:,} trials)", "", height=90 + 24 * len(shares))


def slice_of(trials: pd.DataFrame, axis: Axis, objective: Objective) -> go.Figure:
    """The objective over one key's values, darker for later trials; medians beside choices."""
    column = f"best_{objective.metric}"
    placed = trials.assign(at=axis.at)[trials[column].notna()]
    drawn = _spread_out(thin(placed, objective, MAX_SLICE_POINTS), "at", axis, seed=0)
    figure = px.scatter(
        drawn,
        x="at",
        y=column,
        color="trial",
        hover_name="name",
        hover_data={"at": False, "trial": False},
        color_continuous_scale=SCALE,
        range_color=(1, int(placed["trial"].max())),
    )
    figure.update_traces(marker={"size": 6, "opacity": 0.75})
    if not axis.continuous:
        medians = placed.groupby("at")[column].median()
        mark = {"symbol": "line-ew-open", "size": 26, "color": BEST, "line": {"width": 2.5}}
        label = "median %{y:.4g}<extra></extra>"
        figure.add_scatter(x=medians.index, y=medians, mode="markers", marker=mark, hovertemplate=label)
    _set_ticks(figure, axis, "x")
    figure.update_layout(coloraxis_showscale=False, showlegend=False, margin={"l": 52, "r": 12, "t": 10})
    return _finish(figure, axis.title, "", height=230)


def contour(trials: pd.DataFrame, across: Axis, up: Axis, objective: Objective) -> go.Figure:
    """The mean objective by two keys' values, in cells, and the trials on them."""
    column = f"best_{objective.metric}"
    placed = trials.assign(x=across.at, y=up.at)[trials[column].notna()]
    cells = 12 if len(placed) > 200 else 8
    edges = [_edges(across, cells), _edges(up, cells)]
    counts, *_ = np.histogram2d(placed["x"], placed["y"], edges)
    sums, *_ = np.histogram2d(placed["x"], placed["y"], edges, weights=placed[column].astype(float))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).T
    label = f"mean {objective.metric} %{{z:.4g}}<extra></extra>"
    ground = go.Heatmap(x=edges[0], y=edges[1], z=means, coloraxis="coloraxis", hovertemplate=label, hoverongaps=False)
    drawn = thin(placed, objective, MAX_SLICE_POINTS)
    drawn = _spread_out(_spread_out(drawn, "x", across, seed=0), "y", up, seed=1)
    points = px.scatter(drawn, x="x", y="y", hover_name="name", hover_data={column: ":.4g", "x": False, "y": False})
    points.update_traces(marker={"size": 6, "color": "#fff", "line": {"color": INK, "width": 1}})
    figure = go.Figure([ground, *points.data])
    figure.update_coloraxes(
        colorscale=SCALE, reversescale=objective.direction == "min", colorbar_title=objective.metric
    )
    _set_ticks(figure, across, "x")
    _set_ticks(figure, up, "y")
    return _finish(figure, across.title, up.title, height=440)


def pareto(trials: pd.DataFrame, by: str, objective: Objective) -> pd.DataFrame:
    """The trials that no other surpasses at the same or a smaller cost, the cheapest first."""
    column = f"best_{objective.metric}"
    ordered = trials.sort_values([by, column], ascending=[True, objective.direction == "min"])
    before = _running_best(ordered[column], objective).shift()
    better = ordered[column] > before if objective.direction == "max" else ordered[column] < before
    return ordered[better | before.isna()]


def thin(trials: pd.DataFrame, objective: Objective, count: int) -> pd.DataFrame:
    """At most `count` rows: the best half of that number, and the rest evenly by rank."""
    if len(trials) <= count:
        return trials
    ranked = trials.sort_values(f"best_{objective.metric}", ascending=objective.direction == "min")
    rest = np.linspace(count // 2, len(trials) - 1, count - count // 2).round().astype(int)
    return ranked.iloc[np.concatenate([np.arange(count // 2), rest])]


def _by_status(trials: pd.DataFrame, x: str, objective: Objective) -> go.Figure:
    column = f"best_{objective.metric}"
    figure = px.scatter(
        trials.assign(run=trials["run_id"].str[:8], **{x: trials[x].astype(float)}),
        x=x,
        y=column,
        color="status",
        hover_name="name",
        hover_data={"run": True, column: ":.4g", "status": False},
        color_discrete_map=STATUS,
        category_orders={"status": list(STATUS)},
    )
    return figure.update_traces(marker={"size": 7, "opacity": 0.75})


def _finish(figure: go.Figure, x: str | None = None, y: str | None = None, height: int = 340) -> go.Figure:
    figure.layout.template = TEMPLATE
    if x in ("epoch", "trial") and max((max(line.x, default=0) for line in figure.data), default=0) <= 12:
        figure.update_xaxes(dtick=1)  # no ticks between whole numbers
    figure.update_layout(height=height, xaxis_title=x, yaxis_title=y, legend_title_text="")
    return figure


def _set_ticks(figure: go.Figure, axis: Axis, letter: str) -> None:
    ticks = {"tickvals": axis.ticks, "ticktext": axis.labels, "range": [axis.low, axis.high], "tickangle": 0}
    figure.update_layout({f"{letter}axis": ticks})


def _edges(axis: Axis, cells: int) -> np.ndarray:
    return np.linspace(axis.low, axis.high, cells + 1) if axis.continuous else np.arange(-1.5, axis.high + 1)


def _spread_out(trials: pd.DataFrame, column: str, axis: Axis, seed: int) -> pd.DataFrame:
    """Move the points of a choice apart, at random."""
    if axis.continuous:
        return trials
    return trials.assign(**{column: trials[column] + (np.random.default_rng(seed).random(len(trials)) - 0.5) * 0.5})


def _running_best(values: pd.Series, objective: Objective) -> pd.Series:
    return values.cummin() if objective.direction == "min" else values.cummax()

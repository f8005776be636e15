"""A plan on the screen, in 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cnnsweep.formatting import brief, counted, duration, shape
from cnnsweep.plan.description import Counts, LayerRow, NetworkDescription, SearchDescription, Spread
from cnnsweep.plan.plan import Forecast, Plan

WIDTH = 100
BAR = 24
"""Columns of a full bar."""
NO_LINE = ("activation", "dropout", "rescaling", "batch_norm")
"""Layers that leave the shape as it is, and are named beside the one before."""


def show(plan: Plan, console: Console) -> None:
    """Print a plan."""
    for part in _parts(plan):
        console.print(Padding(part, (1, 0, 0, 0), expand=False), width=min(console.width, WIDTH))


def _parts(plan: Plan) -> Iterator[RenderableType]:
    if plan.counts.configurations > 1 or plan.counts.continuous:
        yield _counts(plan.counts)
    drawn = " drawn" if plan.counts.interval else ""
    for kind, network in plan.networks.items():
        yield _network(kind if kind == "network" else f"{kind} network{drawn}", network)
    if len(plan.networks) > 1:
        yield _spread(plan)
    yield _search(plan.search)
    if plan.features:
        seconds = plan.features.seconds
        when = f"about {duration(seconds)} before the first trial" if seconds else ""
        yield _part("the backbone", when, *map(Text, plan.features.lines))
    if plan.forecast:
        yield _forecast(plan.forecast)


def _part(title: str, note: str, *content: RenderableType) -> RenderableType:
    heading = Text.assemble((title, "bold"), "  " if note else "", (note, "dim"))
    return Group(heading, *(Padding(item, (0, 2)) for item in content))


def _counts(counts: Counts) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(style="dim")
    total, share = counts.configurations, counts.valid / counts.configurations
    size = "" if total < 10**6 else f"{total:.1e}".replace("e+0", "e+").replace("e+", " × 10^")
    grid.add_row("configurations", f"{total:,}", size)
    percent = f"{share:.3%}" if share < 0.01 else f"{share:.1%}"
    if counts.interval:
        low, high = counts.interval
        note = f"{percent}; estimated by drawing, 95% interval {low:,} to {high:,}"
        grid.add_row("valid", f"about {counts.valid:,}", note)
    else:
        grid.add_row("valid", f"{counts.valid:,}", f"{percent}; they fit their input and the limits")
    if counts.trials is not None:
        grid.add_row("different", f"{counts.trials:,}", "the others are other spellings of one of these")
    if counts.networks is not None:
        grid.add_row("networks", f"{counts.networks:,}", "however they are trained")
    if counts.trials is None and not counts.interval:
        grid.add_row("different", "not counted", "the space is too varied")
    for number, (name, described) in enumerate(counts.continuous.items()):
        grid.add_row("and continuous" if not number else "", "", f"{name}: {described}")
    return _part("the space", "counted exactly" if counts.exact else "", grid)


def _network(title: str, network: NetworkDescription) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", no_wrap=True)
    table.add_column("output", justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds", justify="right", no_wrap=True)
    largest = max(prod(sizes) for sizes in (network.input_shape, *(row.output_shape for row in network.layers)))

    def size(sizes: Sequence[int]) -> tuple[str, RenderableType]:
        return shape(sizes), _Bar(prod(sizes) / largest)

    table.add_row("input", *size(network.input_shape), "", "")
    for names, row, parameters in _lines(network.layers):
        costs = [f"{cost:,}" if cost else "" for cost in (parameters, row.mult_adds)]
        table.add_row(names, *size(row.output_shape), *costs)
    total = sum(row.mult_adds for row in network.layers)
    table.add_row("total", "", "", f"{network.parameters:,}", f"{total:,}", style="bold")
    note = f"{network.name} · {network.activation_mb:.3g} MB of activations for one input"
    return _part(title, note, table, *_dense(network))


def _dense(network: NetworkDescription) -> list[Text]:
    dense = network.dense_equivalent
    if not dense.weights:
        return []
    text = f"A dense layer from the input to the {shape(dense.output_shape)} outputs of {dense.layer} would need "
    needed = f"{dense.dense_weights:,}"
    return [Text.assemble(text, (needed, "bold"), f" weights; this convolution has {dense.weights:,}.")]


def _lines(layers: Sequence[LayerRow]) -> list[tuple[str, LayerRow, int]]:
    """Lines of a table: a layer together with those after it that leave its shape."""
    lines: list[tuple[str, LayerRow, int]] = []
    for row in layers:
        if row.kind not in NO_LINE:
            lines.append((row.name.replace("_", " "), row, row.parameters))
        elif lines and row.kind != "rescaling":
            names, before, parameters = lines[-1]
            word = {"batch_norm": " + norm", "activation": ""}.get(row.kind, f" + {row.kind}")
            lines[-1] = f"{names}{word}", before, parameters + row.parameters
    return lines


@dataclass(frozen=True)
class _Bar:
    """A bar for which the numbers beside it leave room: on a narrow terminal it is shorter, or not there."""

    share: float

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, min(BAR, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield _bar(options.max_width * self.share, "cyan", least=1)


def _bar(columns: float, style: str, least: int = 0) -> Text:
    """A bar in eighths of a column."""
    eighths = max(least, round(8 * columns))
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style=style)


def _spread(plan: Plan) -> RenderableType:
    titles = {"parameters": "parameters", "mmacs": "million multiply-adds"}
    pair = [_histogram(title, plan.spread[name]) for name, title in titles.items()]
    everything = plan.counts.valid == plan.drawn
    note = f"all {plan.drawn:,} valid configurations" if everything else f"{plan.drawn:,} drawn uniformly"
    return _part("the spread", note, Columns(pair, padding=(0, 4)))


def _histogram(title: str, spread: Spread) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", min_width=17)
    grid.add_column(min_width=18)
    grid.add_column(justify="right", style="dim")
    most, total = max(spread.counts), sum(spread.counts)
    for (low, high), count in zip(pairwise(spread.edges), spread.counts, strict=True):
        bar = _bar(18 * count / most, "green")
        grid.add_row(f"{brief(low)} – {brief(high)}", bar, f"{count / total:.0%}" if count else "")
    return Group(Text(f"{title} (median {brief(spread.quantiles['50%'])})", style="dim"), grid)


def _search(search: SearchDescription) -> RenderableType:
    runs = f" in {search.runs:,} runs (promoted trials go on)" if search.runs != search.trials else ""
    images = f", {brief(search.images)} examples" if search.images else ""
    text = (
        f"{counted(search.trials, 'trial')}{runs}, {counted(search.epochs, 'epoch')}{images}, "
        f"if none stops early; ends when {search.ends}"
    )
    if search.replicates:
        text += f"; then {counted(search.replicates, 'training')} of finalists with other seeds"
    return _part("the search", f"on {search.assumed}" if search.assumed else "", Text(text))


def _forecast(forecast: Forecast) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    time = Text(f"about {duration(forecast.seconds)}", style="bold")
    grid.add_row("wall time", time, f"on {counted(forecast.workers, 'worker')}")
    if trial := forecast.trial_seconds:
        spread = f"{duration(trial['shortest'])} to {duration(trial['longest'])}"
        grid.add_row("a trial", duration(trial["median"]), f"median; {spread}")
    grid.add_row("memory", f"{forecast.memory_mb / 1000:.1f} GB", "driver and workers")
    grid.add_row("disk", f"{brief(forecast.disk_mb)} MB", "checkpoints, the data's copy, MLflow")
    configurations, seconds = round(forecast.measured["configurations"]), duration(forecast.measured["seconds"])
    return _part("forecast", f"from {counted(configurations, 'configuration')} measured in {seconds}", grid)

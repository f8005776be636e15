"""A plan on the screen, in 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cnnsweep.formatting import duration

WIDTH = 100
BAR = 24
"""Columns of a full bar."""
QUIET = ("activation", "dropout", "rescaling", "batch_norm")
"""Layers that leave the shape as it is: told in one word beside the one before."""


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a plan."""
    width, console.width = console.width, min(console.width, WIDTH)
    try:
        for part in _parts(report):
            console.print(Padding(part, (1, 0, 0, 0), expand=False))
    finally:
        console.width = width


def _parts(report: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if report["counts"]["configurations"] > 1 or report["counts"]["continuous"]:
        parts.append(_counts(report["counts"]))
    parts += [_network(kind, network) for kind, network in report["networks"].items()]
    if len(report["networks"]) > 1:
        parts.append(_spread(report))
    parts.append(_search(report["search"]))
    if "features" in report:
        parts.append(_features(report["features"]))
    if "forecast" in report:
        parts.append(_forecast(report["forecast"]))
    return parts


def _heading(title: str, told: str = "") -> Text:
    return Text.assemble((title, "bold"), "  " if told else "", (told, "dim"))


def _counts(counts: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(style="dim")
    total, valid = counts["configurations"], counts["valid"]
    grid.add_row("configurations", f"{total:,}", _or_not(total))
    share = f"{valid / total:.3%}" if valid / total < 0.01 else f"{valid / total:.1%}"
    if "interval" in counts:
        low, high = counts["interval"]
        grid.add_row("valid", f"about {valid:,}", f"{share}; estimated by drawing, 95% interval {low:,} to {high:,}")
    else:
        grid.add_row("valid", f"{valid:,}", f"{share}; they fit their input and the limits")
    if "trials" in counts:
        grid.add_row("different", f"{counts['trials']:,}", "the others are other spellings of one of these")
        grid.add_row("networks", f"{counts['networks']:,}", "whatever they are trained with")
    elif "interval" not in counts:
        grid.add_row("different", "not counted", "the space is too varied")
    for number, (name, described) in enumerate(counts["continuous"].items()):
        grid.add_row("and continuous" if not number else "", "", f"{name}: {described}")
    exact = "counted exactly" if counts["exact"] else ""
    return Group(_heading("the space", exact), Padding(grid, (0, 2)))


def _or_not(total: int) -> str:
    return "" if total < 10**6 else f"{total:.1e}".replace("e+0", "e+").replace("e+", " × 10^")


def _network(kind: str, network: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", no_wrap=True)
    table.add_column("output", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    sizes = [_volume(network["input_shape"]), *(_volume(row["output_shape"]) for row in network["layers"])]
    table.add_row("input", _shape(network["input_shape"]), _bar(network["input_shape"], max(sizes)), "", "")
    for names, row, parameters in _told(network["layers"]):
        table.add_row(
            names,
            _shape(row["output_shape"]),
            _bar(row["output_shape"], max(sizes)),
            f"{parameters:,}" if parameters else "",
            f"{row['mult_adds']:,}" if row["mult_adds"] else "",
        )
    total = sum(row["mult_adds"] for row in network["layers"])
    table.add_row("total", "", "", f"{network['parameters']:,}", f"{total:,}", style="bold")
    told = f"{network['name']} · {network['activation_mb']:.3g} MB of activations per image"
    return Group(
        _heading(f"{kind} network" if kind != "network" else kind, told), Padding(table, (0, 2)), *_dense(network)
    )


def _dense(network: Mapping[str, Any]) -> list[RenderableType]:
    dense = network["dense_equivalent"]
    if not dense["weights"]:
        return []
    text = Text.assemble(
        "A dense layer from the input to the ",
        _shape(dense["output_shape"]),
        f" outputs of {dense['layer']} would need ",
        (f"{dense['dense_weights']:,}", "bold"),
        f" weights; this convolution has {dense['weights']:,}.",
    )
    return [Padding(text, (0, 2))]


def _told(layers: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], int]]:
    """Lines of a table: a layer together with those after it that leave its shape."""
    lines: list[tuple[str, Mapping[str, Any], int]] = []
    for row in layers:
        if row["kind"] in QUIET:
            if lines and row["kind"] != "rescaling":
                names, before, parameters = lines[-1]
                word = "norm" if row["kind"] == "batch_norm" else row["kind"]
                word = "" if word == "activation" else f" + {word}"
                lines[-1] = f"{names}{word}", before, parameters + row["parameters"]
        else:
            lines.append((row["name"].replace("_", " "), row, row["parameters"]))
    return lines


def _volume(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _bar(shape: Sequence[int], most: int) -> Text:
    """How many numbers there are: the bar's length goes with them."""
    eighths = max(1, round(8 * BAR * _volume(shape) / most))
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style="cyan")


def _spread(report: Mapping[str, Any]) -> RenderableType:
    spread = report["spread"]
    pair = [_histogram("parameters", spread["parameters"]), _histogram("million multiply-adds", spread["mmacs"])]
    exact = report["counts"].get("valid") == report["drawn"]
    told = f"all {report['drawn']:,} valid configurations" if exact else f"{report['drawn']:,} drawn uniformly"
    return Group(_heading("the spread", told), Padding(Columns(pair, padding=(0, 4)), (0, 2)))


def _histogram(title: str, spread: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", min_width=17)
    grid.add_column(min_width=18)
    grid.add_column(justify="right", style="dim")
    most, total = max(spread["counts"]), sum(spread["counts"])
    edges = spread["edges"]
    for (low, high), count in zip(pairwise(edges), spread["counts"], strict=True):
        eighths = round(8 * 18 * count / most)
        bar = Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style="green")
        grid.add_row(f"{_short(low)} – {_short(high)}", bar, f"{count / total:.0%}" if count else "")
    middle = spread["quantiles"]["50%"]
    return Group(Text(f"{title} (median {_short(middle)})", style="dim"), grid)


def _short(value: float) -> str:
    """Three digits and a unit.

    >>> _short(1234567.0), _short(45_300), _short(0.0321)
    ('1.23M', '45.3k', '0.0321')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _search(search: Mapping[str, Any]) -> RenderableType:
    runs = f" in {search['runs']:,} runs (promoted trials go on)" if search["runs"] != search["trials"] else ""
    trials = f"{search['trials']:,} trial{'s' if search['trials'] != 1 else ''}"
    text = (
        f"{trials}{runs}, {search['epochs']:,} epochs, {_short(search['images'])} images, "
        f"if none stops early; ends when {search['ends']}"
    )
    assumed = f"on {search['assumed']}" if "assumed" in search else ""
    return Group(_heading("the search", assumed), Padding(text, (0, 2)))


def _features(features: Mapping[str, Any]) -> RenderableType:
    seconds = features.get("seconds")
    told = f"about {duration(seconds)} before the first trial" if seconds else ""
    return Group(_heading("the backbone", told), *(Padding(Text(line), (0, 2)) for line in features["lines"]))


def _forecast(forecast: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    seconds, trial = forecast["seconds"], forecast["trial_seconds"]
    workers = f"{forecast['workers']} worker{'s' if forecast['workers'] != 1 else ''}"
    grid.add_row("wall time", Text(f"about {duration(seconds)}", style="bold"), f"on {workers}")
    if trial:
        spread = f"{duration(trial['shortest'])} to {duration(trial['longest'])}"
        grid.add_row("a trial", duration(trial["median"]), f"median; {spread}")
    grid.add_row("memory", f"{forecast['memory_mb'] / 1000:.1f} GB", "driver and workers")
    grid.add_row("disk", f"{_short(forecast['disk_mb'])} MB", "checkpoints, the data's copy, MLflow")
    measured = forecast["measured"]
    told = f"from {measured['configurations']} configurations measured in {duration(measured['seconds'])}"
    return Group(_heading("forecast", told), Padding(grid, (0, 2)))

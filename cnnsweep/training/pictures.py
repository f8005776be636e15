"""Pictures of a trial as figures and PNGs: its learning curves, confusion matrix, mistakes, filters and feature maps.

The curves are drawn by Pillow in a few milliseconds; matplotlib takes 15 times as long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnsweep.config.objective import Objective
from cnnsweep.data.arrays import Array
from cnnsweep.formatting import score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (900, 350)
SCALE = 2
"""Lines are drawn at twice the size and reduced, which smooths them; the text is drawn at its own size."""
TRAINING, VALIDATION, MARK, INK, PALE = "#8a8f98", "#1f6fb2", "#d1495b", "#2b2f36", "#e3e5e9"
Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """A rectangle of pixels with the ranges of its axes."""

    left: int
    top: int
    right: int
    bottom: int
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        along = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + along * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def save_curves(columns: Columns, path: Path, objective: str = "val_accuracy") -> None:
    """Write the loss and the objective over the epochs of one trial, 900×350 pixels, the best epoch marked.

    `columns` are `epoch` and any of the metrics, with `val_` and without, all of one length. Where the loss is the
    objective, the first other metric is drawn beside it.
    """
    best = Objective.of(objective).best(v if math.isfinite(v) else math.nan for v in columns.get(objective, ()))
    panels = [
        (_panel(columns, metric, 60 + 450 * i), metric) for i, metric in enumerate(("loss", _drawn(columns, objective)))
    ]
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    for panel, metric in panels:
        _lines(ImageDraw.Draw(image), panel, columns, metric, best)
    image = image.reduce(SCALE)
    for panel, metric in panels:
        _texts(ImageDraw.Draw(image), panel, columns, metric, best)
    image.save(path, format="PNG", compress_level=2)


def _drawn(columns: Columns, objective: str) -> str:
    """The metric that is drawn beside the loss."""
    name = objective.removeprefix("val_")
    others = [key.removeprefix("val_") for key in columns if key.startswith("val_") and key != "val_loss"]
    return name if name != "loss" else [*others, "accuracy"][0]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers within a range, `most` at most.

    >>> ticks(0.31, 1.9, 5)
    [0.5, 1.0, 1.5]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(most + 2) if (first + i) * step <= high * (1 + 1e-9)]


def _panel(columns: Columns, metric: str, left: int) -> Panel:
    values = [v for key in (metric, f"val_{metric}") for v in columns.get(key, ()) if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or max(abs(high), 1e-6) * 0.1
    first, last = min(columns["epoch"]), max(columns["epoch"])
    pad = (last - first) * 0.03 or 0.5
    return Panel(left, 36, left + 370, 300, (first - pad, last + pad), (low - margin, high + margin))


def _lines(draw: ImageDraw.ImageDraw, panel: Panel, columns: Columns, metric: str, best: int | None) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        across, down = panel.at(x, y)
        return across * SCALE, down * SCALE

    for y in ticks(*panel.y):
        draw.line([at(panel.x[0], y), at(panel.x[1], y)], PALE, SCALE)
    if best is not None:
        epoch = columns["epoch"][best]
        draw.line([at(epoch, panel.y[0]), at(epoch, panel.y[1])], "#eab1b8", SCALE)
    for key, colour in ((metric, TRAINING), (f"val_{metric}", VALIDATION)):
        points = [at(x, y) for x, y in zip(columns["epoch"], columns.get(key, ()), strict=False) if math.isfinite(y)]
        if len(points) > 1:
            draw.line(points, colour, 2 * SCALE, joint="curve")
        for point in points if len(points) <= 30 else ():
            draw.circle(point, 3 * SCALE, colour)
    value = columns.get(f"val_{metric}", ())[best : best + 1] if best is not None else ()
    if value and math.isfinite(value[0]):
        draw.circle(at(columns["epoch"][best or 0], value[0]), 5 * SCALE, MARK)


def _texts(draw: ImageDraw.ImageDraw, panel: Panel, columns: Columns, metric: str, best: int | None) -> None:
    write = functools.partial(draw.text, font=_font(13), fill=INK)
    draw.text((panel.left, 10), metric, font=_font(16), fill=INK)
    for y in ticks(*panel.y):
        write((panel.left - 8, panel.at(panel.x[0], y)[1]), f"{y:.6g}", anchor="rm")
    for x in (t for t in ticks(*panel.x) if t == int(t)):
        write((panel.at(x, panel.y[0])[0], panel.bottom + 8), f"{x:g}", anchor="mt")
    write(((panel.left + panel.right) / 2, panel.bottom + 28), "epoch", anchor="mt")
    legend: list[tuple[str, str]] = []
    if metric in columns:
        legend.append(("training", TRAINING))
    if f"val_{metric}" in columns:
        values, epochs = columns[f"val_{metric}"], columns["epoch"]
        value = f" {score(values[best])} at epoch {epochs[best]:g}" if best is not None else ""
        legend.append((f"validation{value}", VALIDATION))
    across = panel.right
    for label, colour in reversed(legend):
        draw.text((across, 12), label, font=_font(13), fill=colour, anchor="rt")
        across -= int(_font(13).getlength(label)) + 16


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


CHANNELS, FILTERS, CONFUSED, PIXELS, LETTERS = 12, 256, 30, 160, 30
"""At most so many feature maps of a layer, filters, classes in a matrix, pixels of an image a side, and letters of a
class's name are drawn."""
GAP, FRAME = 1, "#d9dce1"
"""Pixels between images; the colour of a matrix's frame."""
RIGHT, WRONG = (0.12, 0.44, 0.70), (0.82, 0.29, 0.36)


def confusion_matrix(matrix: Array, class_names: Sequence[str]) -> Figure:
    """Draw counts (rows: true class, columns: predicted); shades are shares of the row, mistakes in red.

    Of many classes, those with the most mistakes are drawn.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    chosen, classes = _most_confused(matrix), len(matrix)
    matrix, shares = matrix[np.ix_(chosen, chosen)], shares[np.ix_(chosen, chosen)]
    class_names = [shortened(class_names[i]) for i in chosen]
    diagonal = np.eye(len(matrix), dtype=bool)
    colours = np.ones((*matrix.shape, 3))
    for mask, colour in ((diagonal, RIGHT), (~diagonal, WRONG)):
        strength = np.where(diagonal, shares, np.minimum(1, shares * 5))[mask][:, None]
        colours[mask] = 1 - strength * (1 - np.array(colour))
    side = max(4.5, 1.6 + 0.52 * len(class_names))
    figure = new_figure(side, side)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(color=FRAME, labelcolor=INK, labelsize=9)
    axes.imshow(colours)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = colours[row, column].mean() < 0.6
            axes.text(column, row, f"{count:g}", ha="center", va="center", fontsize=9, color="w" if dark else INK)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(chosen) < classes:
        axes.set_title(f"the {len(chosen)} of {classes:,} classes with the most mistakes", fontsize=10, color=INK)
    return figure


def _most_confused(matrix: Array) -> Array:
    """The classes to draw, in their order: those that were most often taken for another, or another for them."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return np.sort(np.argsort(-wrong, kind="stable")[:CONFUSED])


def shortened(name: str) -> str:
    """A class's name as a label: no longer than there is room for, and no formula where it has two dollar signs.

    >>> shortened("$1 or $2, written on the back of an envelope")
    '\\\\$1 or \\\\$2, written on the back…'
    """
    short = name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
    return short.replace("$", r"\$")


def mistakes(images: Array, texts: Sequence[str]) -> Figure:
    """Draw images (n, height, width, 1 or 3), values 0..1, each with its text."""
    columns = min(6, max(len(images), 1))
    rows = -(-len(images) // columns) or 1
    figure = new_figure(columns * 1.55, rows * 1.95)
    for index, image in enumerate(reduced(images)):
        axes = figure.add_subplot(rows, columns, index + 1)
        picture = image[..., 0] if image.shape[-1] == 1 else image.clip(0, 1)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(texts[index], fontsize=8, color=INK)
    return figure


def filters(kernel: Array) -> Figure:
    """Draw a convolution's filters; `kernel`: (height, width, channels, filters). Red is positive, blue negative."""
    kernel = kernel[..., :FILTERS]
    colour = kernel.shape[2] == 3
    tiles = np.moveaxis(kernel, -1, 0) if colour else kernel.mean(axis=2).transpose(2, 0, 1)
    if colour:
        low, high = tiles.min(axis=(1, 2, 3), keepdims=True), tiles.max(axis=(1, 2, 3), keepdims=True)
        tiles = np.where(high - low > 1e-6, (tiles - low) / np.maximum(high - low, 1e-6), 0.5)  # dead ones are grey
    columns = min(16, len(tiles))
    rows = -(-len(tiles) // columns)
    filled = np.concatenate([tiles, np.full((rows * columns - len(tiles), *tiles.shape[1:]), np.nan)])
    whole = board(filled.reshape(rows, columns, *tiles.shape[1:]))
    figure = new_figure(0.52 * columns + 0.2, 0.52 * rows + 0.2)
    axes = figure.add_subplot()
    most = float(np.abs(tiles).max()) or 1.0
    if colour:
        axes.imshow(whole, interpolation="nearest")
    else:
        axes.imshow(whole, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    axes.set_axis_off()
    return figure


def feature_maps(images: Array, maps: Array, names: Sequence[str]) -> Figure:
    """Draw one row an image: the image and its strongest channels.

    `images`: (n, height, width, 1 or 3), values 0..1; `maps`: (n, height, width, channels), of one layer.
    """
    channels = np.sort(np.argsort(maps.mean(axis=(0, 1, 2)))[::-1][:CHANNELS])
    images, tiles = reduced(images), reduced(maps[..., channels]).transpose(0, 3, 1, 2)
    spread = tiles.max(axis=(2, 3), keepdims=True) - tiles.min(axis=(2, 3), keepdims=True)
    tiles = (tiles - tiles.min(axis=(2, 3), keepdims=True)) / np.maximum(spread, 1e-9)
    rows = len(images)
    figure = new_figure(0.62 * (len(channels) + 1) + 1.4, 0.62 * rows + 0.3)
    left, right = figure.subplots(1, 2, width_ratios=[1, len(channels)])
    left.imshow(board(images[:, None]).clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    right.imshow(board(tiles), cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    height, width = images.shape[1] + GAP, tiles.shape[3] + GAP
    left.set_yticks([i * height + images.shape[1] / 2 for i in range(rows)], names, fontsize=9)
    places = [i * width + tiles.shape[3] / 2 for i in range(len(channels))]
    right.set_xticks(places, [str(c + 1) for c in channels], fontsize=8)
    for axes in (left, right):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelcolor=INK)
    left.set_xticks([])
    right.set_yticks([])
    return figure


def reduced(images: Array) -> Array:
    """Images (n, height, width, channels) without those pixels that would not be seen."""
    step = -(-max(images.shape[1:3]) // PIXELS)
    return images[:, ::step, ::step]


def board(tiles: Array) -> Array:
    """Put tiles (rows, columns, height, width[, 3]) side by side, with gaps of NaN, which are drawn white."""
    tiles = tiles[..., 0] if tiles.ndim == 5 and tiles.shape[4] == 1 else tiles
    margins = [(0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)][: tiles.ndim]
    padded = np.pad(tiles.astype(float), margins, constant_values=np.nan)
    rows, columns, height, width = padded.shape[:4]
    board = padded.swapaxes(1, 2).reshape(rows * height, columns * width, *tiles.shape[4:])[:-GAP, :-GAP]
    return np.nan_to_num(board, nan=1.0) if tiles.ndim == 5 else board


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure

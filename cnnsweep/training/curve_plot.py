"""Learning curves as a PNG in a few milliseconds: made for every trial; matplotlib takes 15 times as long."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

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
    """Write loss and accuracy over the epochs of one trial, 900×350 pixels, the best epoch marked.

    `columns` are `epoch` and what there is of loss, accuracy, val_loss and val_accuracy, all of one length.
    """
    best = _best(columns, objective)
    panels = [(_panel(columns, metric, 60 + 450 * i), metric) for i, metric in enumerate(("loss", "accuracy"))]
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    for panel, metric in panels:
        _lines(ImageDraw.Draw(image), panel, columns, metric, best)
    image = image.reduce(SCALE)
    for panel, metric in panels:
        _words(ImageDraw.Draw(image), panel, columns, metric, best)
    image.save(path, format="PNG", compress_level=2)


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
    values = [v for key in (metric, f"val_{metric}") for v in columns.get(key, ()) if math.isfinite(v)] or [
        0.0,
        1.0,
    ]
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


def _words(draw: ImageDraw.ImageDraw, panel: Panel, columns: Columns, metric: str, best: int | None) -> None:
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
        value = f" {columns[f'val_{metric}'][best]:.4f} at epoch {columns['epoch'][best]:g}" if best is not None else ""
        legend.append((f"validation{value}", VALIDATION))
    across = panel.right
    for label, colour in reversed(legend):
        draw.text((across, 12), label, font=_font(13), fill=colour, anchor="rt")
        across -= int(_font(13).getlength(label)) + 16


def _best(columns: Columns, objective: str) -> int | None:
    values = [(v, i) for i, v in enumerate(columns.get(objective, ())) if math.isfinite(v)]
    if not values:
        return None
    return min(values)[1] if "loss" in objective else max(values, key=lambda pair: (pair[0], -pair[1]))[1]


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)

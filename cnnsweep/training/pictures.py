"""What a trained network sees, as pictures: its mistakes, its first filters, its feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.floating]
INK, GAP = "#2b2f36", 1
CHANNELS = 12


def mistakes(images: Array, true: Sequence[str], said: Sequence[str], confidence: Sequence[float]) -> Figure:
    """Draw wrongly classified images with both names; `images`: (n, height, width, 1 or 3), values 0..1."""
    columns = min(6, max(len(images), 1))
    rows = -(-len(images) // columns) or 1
    figure = _figure(columns * 1.55, rows * 1.95)
    for index, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(_paint(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"{true[index]}\nsaid {said[index]} ({confidence[index]:.0%})", fontsize=8, color=INK)
    return figure


def filters(kernel: Array) -> Figure:
    """Draw a convolution's filters; `kernel`: (height, width, channels, filters). Red is positive, blue negative."""
    colour = kernel.shape[2] == 3
    tiles = np.moveaxis(kernel, -1, 0) if colour else kernel.mean(axis=2).transpose(2, 0, 1)
    if colour:
        low, high = tiles.min(axis=(1, 2, 3), keepdims=True), tiles.max(axis=(1, 2, 3), keepdims=True)
        tiles = np.where(high - low > 1e-6, (tiles - low) / np.maximum(high - low, 1e-6), 0.5)  # dead ones are grey
    columns = min(16, len(tiles))
    rows = -(-len(tiles) // columns)
    filled = np.concatenate([tiles, np.full((rows * columns - len(tiles), *tiles.shape[1:]), np.nan)])
    board = _board(filled.reshape(rows, columns, *tiles.shape[1:]))
    figure = _figure(0.52 * columns + 0.2, 0.52 * rows + 0.2)
    axes = figure.add_subplot()
    most = float(np.abs(tiles).max()) or 1.0
    if colour:
        axes.imshow(board, interpolation="nearest")
    else:
        axes.imshow(board, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    axes.set_axis_off()
    return figure


def feature_maps(images: Array, maps: Array, names: Sequence[str]) -> Figure:
    """Draw one row an image: the image and its strongest channels.

    `images`: (n, height, width, 1 or 3), values 0..1; `maps`: (n, height, width, channels), of one layer.
    """
    channels = np.sort(np.argsort(maps.mean(axis=(0, 1, 2)))[::-1][:CHANNELS])
    tiles = maps[..., channels].transpose(0, 3, 1, 2)
    spread = tiles.max(axis=(2, 3), keepdims=True) - tiles.min(axis=(2, 3), keepdims=True)
    tiles = (tiles - tiles.min(axis=(2, 3), keepdims=True)) / np.maximum(spread, 1e-9)
    rows = len(images)
    figure = _figure(0.62 * (len(channels) + 1) + 1.4, 0.62 * rows + 0.3)
    left, right = figure.subplots(1, 2, width_ratios=[1, len(channels)])
    left.imshow(_board(images[:, None]).clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    right.imshow(_board(tiles), cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    height = images.shape[1] + GAP
    left.set_yticks([i * height + images.shape[1] / 2 for i in range(rows)], names, fontsize=9)
    width = tiles.shape[3] + GAP
    right.set_xticks(
        [i * width + tiles.shape[3] / 2 for i in range(len(channels))], [str(c + 1) for c in channels], fontsize=8
    )
    for axes in (left, right):
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelcolor=INK)
    left.set_xticks([])
    right.set_yticks([])
    return figure


def _board(tiles: Array) -> Array:
    """Put tiles (rows, columns, height, width[, 3]) side by side, with gaps of NaN, which are drawn white."""
    rows, columns, height, width = tiles.shape[:4]
    colours = tiles.shape[4:] if tiles.ndim == 5 and tiles.shape[4] == 3 else ()
    tiles = tiles if colours or tiles.ndim == 4 else tiles[..., 0]
    board = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, *colours), 1.0 if colours else np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + GAP), column * (width + GAP)
            board[top : top + height, left : left + width] = tiles[row, column]
    return np.nan_to_num(board, nan=1.0) if colours else board


def _paint(image: Array) -> Array:
    return image[..., 0] if image.shape[-1] == 1 else image.clip(0, 1)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure

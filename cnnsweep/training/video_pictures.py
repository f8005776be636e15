"""Pictures of a network for videos: frames of some, and its first filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.training import pictures
from cnnsweep.training.outputs import all_layers
from cnnsweep.training.pictures import GAP, INK

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SHOWN, FRAMES, FILTERS = 10, 8, 16
"""At most so many videos, frames of one, and filters over time are drawn."""


def examples(data: Dataset, chosen: Array, texts: Sequence[str]) -> Figure:
    """Draw a row of frames for each video, with its text."""
    videos = np.asarray(data.x_val[chosen[:SHOWN]], "float32") * data.scale
    count, frames = videos.shape[:2]
    shown = np.linspace(0, frames - 1, min(frames, FRAMES)).round().astype(int)
    tiles = pictures.reduced(videos[:, shown].reshape(-1, *videos.shape[2:]))
    height, width = tiles.shape[1:3]
    across = min(1.2, 7.2 / len(shown))
    figure = pictures.new_figure(across * len(shown) + 2, across * height / width * count + 0.5)
    axes = figure.subplots()
    board = pictures.board(tiles.reshape(count, len(shown), *tiles.shape[1:]))
    axes.imshow(board, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    places = [i * (height + GAP) + height / 2 for i in range(count)]
    axes.set_yticks(places, [text.replace("\n", ",\n") for text in texts[:count]], fontsize=8)
    axes.set_xticks([i * (width + GAP) + width / 2 for i in range(len(shown))], [str(i + 1) for i in shown], fontsize=8)
    axes.set_xlabel("frame", fontsize=9, color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)
    return figure


def figures(model: keras.Model) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The picture of the first layer's filters."""
    from keras import layers as kl

    first = next((layer for layer in all_layers(model) if isinstance(layer, kl.Conv3D)), None)
    if first is None:
        return
    kernel = np.asarray(first.kernel)
    if len(kernel) == 1:  # each frame by itself
        yield "3_first_layer_filters", lambda: pictures.filters(kernel[0])
    else:
        yield "3_first_layer_filters", lambda: over_time(kernel)


def over_time(kernel: Array) -> Figure:
    """Draw filters (frames, height, width, channels, filters), a column each, from the first frame down."""
    tiles = kernel[..., :FILTERS].mean(axis=3).transpose(0, 3, 1, 2)
    frames, count, height, width = tiles.shape
    figure = pictures.new_figure(0.5 * count + 0.9, 0.5 * frames * height / width + 0.5)
    axes, most = figure.subplots(), float(np.abs(tiles).max()) or 1.0
    axes.imshow(pictures.board(tiles), cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
    axes.set_yticks([i * (height + GAP) + (height - 1) / 2 for i in range(frames)], [str(i + 1) for i in range(frames)])
    axes.set_xticks([i * (width + GAP) + (width - 1) / 2 for i in range(count)], [str(i + 1) for i in range(count)])
    axes.set_ylabel("frame", fontsize=9, color=INK)
    axes.set_xlabel("filter", fontsize=9, color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK, labelsize=8)
    return figure

"""Pictures of a network for signals: waveforms and spectrograms, and the frequencies that its first filters pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.audio_decoding import AudioDecoding
from cnnsweep.training import pictures
from cnnsweep.training.outputs import all_layers
from cnnsweep.training.pictures import FRAME, INK, VALIDATION

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN, CHANNELS, FILTERS, RESPONSES = 12, 6, 32, 256
"""At most so many signals, channels of one, filters over a spectrogram and over a waveform are drawn."""
SIGNALS, WINDOWS = 500, 20
"""In so many signals the filters are looked for, and so many windows are averaged for each."""
SHORTEST, RANGE = 128, 60
"""Steps from which on a signal has a spectrogram; decibels of its colours."""


def examples(data: Dataset, chosen: Array, texts: Sequence[str]) -> Figure:
    """Draw signals, each with its text; one channel of enough steps with its spectrogram below."""
    count = min(len(chosen), SHOWN)
    columns = min(4, max(count, 1))
    rows = -(-count // columns) or 1
    rate, (steps, channels) = _rate(data), data.x_val.shape[1:]
    deep = channels == 1 and steps >= SHORTEST
    figure = pictures.new_figure(2.5 * columns, (2.5 if deep else 1.6) * rows + 0.2)
    for index, part in enumerate(figure.subfigures(rows, columns, squeeze=False).flat):
        if index >= count:
            continue
        signal = np.asarray(data.x_val[chosen[index]], float)
        found = part.subplots(2 if deep else 1, 1, sharex=True, squeeze=False, height_ratios=[2, 3][: 1 + deep])[:, 0]
        _wave(found[0], signal, rate)
        if deep:
            _spectrogram(found[1], signal[:, 0], rate, labelled=index % columns == 0)
        found[0].set_title(texts[index].replace("\n", ", "), fontsize=8, color=INK)
        found[-1].set_xlabel("seconds" if rate else "step", fontsize=8, color=INK)
    return figure


def _rate(data: Dataset) -> int | None:
    """Samples a second, where they are known."""
    return data.decoding.rate if isinstance(data.decoding, AudioDecoding) else None


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FRAME)
    axes.tick_params(color=FRAME, labelcolor=INK, labelsize=7)


def _wave(axes: Axes, signal: Array, rate: int | None) -> None:
    time = np.arange(len(signal)) / (rate or 1)
    axes.plot(time, signal[:, :CHANNELS], linewidth=0.6, color=VALIDATION if signal.shape[1] == 1 else None)
    axes.set_xlim(0, len(signal) / (rate or 1))
    _plain(axes)


def _spectrogram(axes: Axes, wave: Array, rate: int | None, labelled: bool) -> None:
    from matplotlib.mlab import specgram

    window = 2 ** int(np.log2(min(256, len(wave) / 8)))
    power, frequencies = map(np.asarray, specgram(wave, window, rate or 1, noverlap=window * 3 // 4)[:2])
    decibels = 10 * np.log10(np.maximum(power, 1e-20) / max(power.max(), 1e-20))
    unit = 1000 if rate else 1
    extent = (0.0, len(wave) / (rate or 1), 0.0, float(frequencies[-1]) / unit)
    axes.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-RANGE, vmax=0)
    _plain(axes)
    if labelled:
        axes.set_ylabel("kHz" if rate else "cycles a step", fontsize=8, color=INK)


def figures(data: Dataset, model: keras.Model) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The pictures of the first layer's filters."""
    from keras import layers as kl

    found = list(all_layers(model))
    first = next((layer for layer in found if isinstance(layer, (kl.Conv1D, kl.Conv2D))), None)
    if first is None:
        return
    kernel = np.asarray(first.kernel)
    before = [layer for layer in found if isinstance(layer, (kl.MelSpectrogram, kl.STFTSpectrogram))]
    if kernel.ndim == 4:
        yield "3_first_layer_filters", lambda: pictures.filters(kernel.transpose(1, 0, 2, 3)[::-1])
    elif before:
        ends, x = _bands(before[0], _rate(data)), np.asarray(data.x_val[:SIGNALS])
        yield "3_first_layer_filters", lambda: over_frequencies(_heard(model, first, x), kernel, *ends)
    else:
        yield "3_first_layer_filters", lambda: responses(kernel, _rate(data))


def _bands(layer: keras.layers.Layer, rate: int | None) -> tuple[Array, str]:
    """The frequency of each band of a spectrogram, and its unit."""
    from keras import layers as kl

    if not isinstance(layer, kl.MelSpectrogram):
        bands = layer.frame_length // 2 + 1
        return np.linspace(0, (rate or 1) / 2, bands), "Hz" if rate else "cycles a step"
    low, high = 2595 * np.log10(1 + np.array([layer.min_freq, layer.max_freq]) / 700)
    return 700 * (10 ** (np.linspace(low, high, layer.num_mel_bins + 2)[1:-1] / 2595) - 1), "Hz"


def _heard(model: keras.Model, layer: keras.layers.Layer, x: Array) -> Array:
    """The mean of the windows of a spectrogram to which each filter responds most, less the mean of all windows.

    As the kernel: (steps, frequencies × channels, filters).
    """
    import keras

    spectrograms, maps = keras.Model(model.inputs, [layer.input, layer.output]).predict(x, verbose=0)
    (size,), (dilation,), (stride,) = layer.kernel_size, layer.dilation_rate, layer.strides
    span = (size - 1) * dilation
    first = {"valid": 0, "causal": span}.get(layer.padding, span // 2)
    padded = np.pad(spectrograms - spectrograms.mean(axis=(0, 1)), ((0, 0), (span, span), (0, 0)), mode="edge")
    found = np.empty((size, *spectrograms.shape[2:], maps.shape[2]))
    for f in range(maps.shape[2]):
        top = np.argsort(-maps[..., f].max(axis=1), kind="stable")[:WINDOWS]
        starts = maps[top, :, f].argmax(axis=1) * stride - first + span
        windows = [padded[t, start : start + span + 1 : dilation] for t, start in zip(top, starts, strict=True)]
        found[..., f] = np.mean(windows, axis=0)
    return found


def over_frequencies(heard: Array, kernel: Array, bands: Array, unit: str) -> Figure:
    """Draw what filters over a spectrogram hear, by its strongest frequency, and their weights below.

    Both: (steps, frequencies × channels, filters); `bands`: the frequencies. Red is positive, blue negative.
    """
    steps, _, filters = kernel.shape
    tiles = [a.reshape(steps, len(bands), -1, filters).mean(axis=2).transpose(2, 1, 0) for a in (heard, kernel)]
    order = np.argsort(tiles[0].mean(axis=2).argmax(axis=1), kind="stable")
    order = order[np.linspace(0, filters - 1, min(filters, FILTERS)).round().astype(int)]
    figure = pictures.new_figure(9.6, 6)
    ticks = np.linspace(0, len(bands) - 1, 6).round().astype(int)
    places = np.arange(len(order)) * (steps + pictures.GAP) + (steps - 1) / 2
    titles = ("what each filter hears: the mean of the windows to which it responds most (red: louder than the mean)",
              "its weights (red: positive)")  # fmt: skip
    for axes, tile, title in zip(figure.subplots(2, 1), tiles, titles, strict=True):
        board, most = pictures.board(tile[order][None]), float(np.abs(tile).max()) or 1.0
        axes.imshow(board, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest", aspect="auto", origin="lower")
        axes.set_yticks(ticks, [f"{bands[i]:,.0f}" if unit == "Hz" else f"{bands[i]:.2f}" for i in ticks])
        axes.set_xticks(places, [str(f + 1) for f in order], rotation=0 if len(order) <= 20 else 90)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_ylabel(unit, fontsize=9, color=INK)
        _plain(axes)
    axes.set_xlabel(f"filter, {steps} windows wide", fontsize=9, color=INK)
    return figure


def responses(kernel: Array, rate: int | None) -> Figure:
    """Draw the frequency response of each filter of a convolution over a waveform, by its strongest frequency.

    `kernel`: (steps, channels, filters); beside it are some of the filters themselves.
    """
    found = np.sqrt((np.abs(np.fft.rfft(kernel, 512, axis=0)) ** 2).sum(axis=1))  # (frequencies, filters)
    order = np.argsort(found.argmax(axis=0), kind="stable")[:RESPONSES]
    decibels = 20 * np.log10(np.maximum(found / np.maximum(found.max(axis=0), 1e-12), 1e-6))[:, order]
    figure = pictures.new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    unit = 1000 if rate else 1
    extent = (0.5, len(order) + 0.5, 0, (rate or 1) / 2 / unit)
    drawn = left.imshow(
        decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-30, vmax=0, interpolation="nearest"
    )
    left.set_title("frequency responses", fontsize=9, color=INK)
    left.set_xlabel("filters, by their strongest frequency", fontsize=9, color=INK)
    left.set_ylabel("kHz" if rate else "cycles a step", fontsize=9, color=INK)
    bar = figure.colorbar(drawn, ax=left, pad=0.02)
    bar.set_label("decibels, of the filter's strongest", fontsize=8, color=INK)
    bar.ax.tick_params(color=FRAME, labelcolor=INK, labelsize=7)
    some = order[np.linspace(0, len(order) - 1, min(len(order), 12)).round().astype(int)]
    time = np.arange(len(kernel)) / (rate or 1) * unit
    for row, f in enumerate(some):
        wave = kernel[:, :, f].mean(axis=1)
        right.plot(time, row + 0.45 * wave / (np.abs(wave).max() or 1.0), color=VALIDATION, linewidth=1)
    right.set_yticks(range(len(some)), [str(f + 1) for f in some])
    right.locator_params(axis="x", integer=rate is None)
    right.set_title("some of the filters", fontsize=9, color=INK)
    right.set_xlabel("milliseconds" if rate else "step", fontsize=9, color=INK)
    for axes in (left, right):
        _plain(axes)
    return figure

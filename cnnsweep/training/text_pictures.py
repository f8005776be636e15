"""Pictures of a network for texts: some of the texts, and the phrases to which its filters respond."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.text_decoding import TextDecoding
from cnnsweep.training import pictures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SHOWN, CLASSES, FILTERS, PHRASES, TEXTS = 12, 6, 12, 4, 2000
"""At most so many texts, classes, filters and phrases of each are shown; of so many texts the phrases are taken."""
WIDTH = 118  # letters of a line


def examples(data: Dataset, chosen: Array, texts: Sequence[str]) -> Figure:
    """Draw texts below one another, each with its heading."""
    decoding = data.decoding
    assert isinstance(decoding, TextDecoding)
    found = [" ".join(decoding.read(data.x_val[i])) for i in chosen[:SHOWN]]
    return _lines([(head.replace("\n", ", "), text) for head, text in zip(texts, found, strict=False)])


class Filters(NamedTuple):
    """Filters that read the embedding."""

    names: list[str]
    peaks: Array
    """The greatest activation of each in each text: (texts, filters)."""
    starts: Array
    """The first word of that window: (texts, filters)."""
    widths: list[int]
    """Words of a window, by filter."""


def figures(data: Dataset, model: keras.Model, predicted: Array) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The pictures by name; `predicted`: probabilities of the validation texts, (texts, classes)."""
    layers = _first_convolutions(model)
    if layers and data.task == "classification":
        yield "3_phrases_of_first_filters", lambda: _lines(_phrases(data, layers, model, predicted[:TEXTS]))


def _phrases(
    data: Dataset, layers: Sequence[keras.layers.Layer], model: keras.Model, predicted: Array
) -> list[tuple[str, str]]:
    """For each class the filters that say most for it, with the phrases to which they respond most."""
    texts, decoding = np.asarray(data.x_val[:TEXTS]), data.decoding
    assert isinstance(decoding, TextDecoding)
    found = _responses(layers, model, texts)
    weights = _weights(model, len(found.names))
    says = weights * found.peaks.std(axis=0)[:, None] if weights is not None else _differences(found, predicted)
    classes = np.argsort(-np.bincount(predicted.argmax(axis=1), minlength=says.shape[1]), kind="stable")[:CLASSES]
    lines = []
    for c in np.sort(classes):
        for f in np.argsort(-says[:, c], kind="stable")[: max(2, FILTERS // len(classes))]:
            top = np.argsort(-found.peaks[:, f], kind="stable")[: 10 * PHRASES]
            windows = (texts[t][max(0, s := found.starts[t, f]) : max(0, s + found.widths[f])] for t in top)
            phrases = [phrase for phrase in dict.fromkeys(" ".join(decoding.read(w)) for w in windows) if phrase]
            weight = "" if weights is None else f" (weight {weights[f, c]:+.2f})"
            lines.append(
                (
                    f"{pictures.shortened(data.class_names[c])}: {found.names[f]}{weight}",
                    "  ·  ".join(phrases[:PHRASES]),
                )
            )
    return lines


def _responses(layers: Sequence[keras.layers.Layer], model: keras.Model, texts: Array) -> Filters:
    import keras

    names, peaks, starts, widths = list[str](), list[Array](), list[Array](), list[int]()
    for layer in layers:
        maps = keras.Model(model.inputs, layer.output).predict(texts, verbose=0)
        names += [f"filter {f + 1} of {layer.name}" for f in range(layer.filters)]
        widths += [(layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1] * layer.filters
        peaks.append(maps.max(axis=1))
        starts.append(maps.argmax(axis=1) * layer.strides[0] - _padding(layer))
    return Filters(names, np.concatenate(peaks, axis=1), np.concatenate(starts, axis=1), widths)


def _weights(model: keras.Model, filters: int) -> Array | None:
    """What the classifier makes of the maxima of these filters, (filters, classes), where it reads nothing else.

    A filter's weights less their mean, which changes no probability.
    """
    from keras import layers as kl

    kinds = (kl.Dense, kl.RNN, kl.Bidirectional)
    between = [layer for layer in model.layers if isinstance(layer, kinds)]
    reads = len(between) == 1 and isinstance(between[0], kl.Dense) and between[0].kernel.shape[0] == filters
    if not reads or len(_first_convolutions(model)) != _convolutions(model):
        return None
    kernel = np.asarray(between[0].kernel)
    return kernel - kernel.mean(axis=1, keepdims=True)


def _convolutions(model: keras.Model) -> int:
    from keras import layers as kl

    return sum(isinstance(layer, kl.Conv1D) for layer in model.layers)


def _differences(found: Filters, predicted: Array) -> Array:
    """How much more the filters respond to the texts that are said to be of a class: (filters, classes)."""
    chosen = predicted.argmax(axis=1)
    away = (found.peaks - found.peaks.mean(axis=0)) / (found.peaks.std(axis=0) + 1e-9)
    return np.stack([away[chosen == c].sum(axis=0) for c in range(predicted.shape[1])], axis=1)


def _first_convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """The convolutions that read the embedding."""
    from keras import layers as kl

    read = {id(layer.output) for layer in model.layers if isinstance(layer, kl.Embedding)}
    read |= {id(layer.output) for layer in model.layers if isinstance(layer, kl.Dropout) and id(layer.input) in read}
    return [layer for layer in model.layers if isinstance(layer, kl.Conv1D) and id(layer.input) in read]


def _padding(layer: keras.layers.Layer) -> int:
    """Words before the first at which the first window starts, at stride 1."""
    span = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    return {"valid": 0, "causal": span}.get(layer.padding, span // 2)


def _lines(texts: Sequence[tuple[str, str]]) -> Figure:
    """Draw texts below one another, each with its heading."""
    lines: list[tuple[float, str, int, str]] = []
    for head, text in texts:
        lines.append((0.01, head, 8, pictures.VALIDATION))
        wrapped = textwrap.wrap(text, WIDTH, max_lines=2, placeholder=" …")
        lines += [(0.03, line.replace("$", r"\$"), 9, pictures.INK) for line in wrapped or [""]]
    figure = pictures.new_figure(9.2, 0.2 * len(lines) + 0.2)
    for index, (left, line, size, colour) in enumerate(lines):
        figure.text(left, 1 - (index + 0.5) / (len(lines) + 1), line, fontsize=size, color=colour, va="top")
    return figure

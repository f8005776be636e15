"""Pictures of a network for texts: its most confident mistakes, and the words to which its filters respond."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.data.text_decoding import TextDecoding
from cnnsweep.training import pictures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

MISTAKES, FILTERS, PHRASES, TEXTS = 12, 12, 4, 2000
"""At most so many are shown; of so many texts the phrases are taken."""
WIDTH = 100  # letters of a line


def figures(data: Dataset, model: keras.Model, predicted: Array) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """The pictures by name; `predicted`: probabilities of the validation texts, (texts, classes)."""
    decoding = data.decoding
    assert isinstance(decoding, TextDecoding)
    wrong = np.flatnonzero(predicted.argmax(axis=1) != data.y_val)
    wrong = wrong[np.argsort(-predicted[wrong].max(axis=1), kind="stable")][:MISTAKES]
    if len(wrong):
        yield "2_most_confident_mistakes", lambda: _lines(_mistakes(data, decoding, predicted, wrong))
    yield "3_phrases_of_first_filters", lambda: _lines(_phrases(data, decoding, model, predicted))


def _mistakes(data: Dataset, decoding: TextDecoding, predicted: Array, wrong: Array) -> list[tuple[str, str]]:
    found = []
    for i in wrong:
        label, said = data.class_names[data.y_val[i]], data.class_names[predicted[i].argmax()]
        head = f"{pictures.shortened(label)}, said {pictures.shortened(said)} ({predicted[i].max():.0%})"
        found.append((head, " ".join(decoding.read(data.x_val[i]))))
    return found


def _phrases(data: Dataset, decoding: TextDecoding, model: keras.Model, predicted: Array) -> list[tuple[str, str]]:
    """The phrases of the validation texts to which the filters that differ most between classes respond most."""
    import keras

    texts = np.asarray(data.x_val[:TEXTS])
    found = []
    for layer in _first_convolutions(model):
        size, maps = layer.kernel_size[0], keras.Model(model.inputs, layer.output).predict(texts, verbose=0)
        peaks, places = maps.max(axis=1), maps.argmax(axis=1)  # (texts, filters)
        chosen = predicted[: len(texts)].argmax(axis=1)
        means = np.stack([peaks[chosen == c].mean(axis=0) for c in np.unique(chosen)])
        names = [data.class_names[c] for c in np.unique(chosen)]
        spread = (means.max(axis=0) - means.min(axis=0)) / (peaks.std(axis=0) + 1e-9)
        starts = places * layer.strides[0] - _padding(layer)
        for f in np.argsort(-spread, kind="stable")[: max(2, FILTERS // 3)]:
            top = np.argsort(-peaks[:, f], kind="stable")
            phrases = dict.fromkeys(_phrase(texts[t], starts[t, f], size, decoding) for t in top[: 10 * PHRASES])
            head = f"{layer.name} {f + 1}, for {pictures.shortened(names[means[:, f].argmax()])}"
            found.append((head, "  ·  ".join([phrase for phrase in phrases if phrase][:PHRASES])))
    return found[:FILTERS]


def _first_convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """The convolutions that read the embedding."""
    from keras import layers

    embedded = model.get_layer("embedding").output
    return [layer for layer in model.layers if isinstance(layer, layers.Conv1D) and layer.input is embedded]


def _padding(layer: keras.layers.Layer) -> int:
    """Words before the first at which the first window starts, at stride 1."""
    span = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    return {"valid": 0, "causal": span}.get(layer.padding, span // 2)


def _phrase(numbers: Sequence[int], start: int, size: int, decoding: TextDecoding) -> str:
    return " ".join(decoding.read(numbers[max(0, start) : max(0, start + size)]))


def _lines(texts: Sequence[tuple[str, str]]) -> Figure:
    """Draw texts below one another, each with its heading."""
    figure = pictures.new_figure(8.2, 0.42 * len(texts) + 0.3)
    for index, (head, text) in enumerate(texts):
        top = 1 - (index + 0.3) / (len(texts) + 0.3)
        short = text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
        figure.text(0.01, top, head, fontsize=8, color=pictures.VALIDATION, va="top")
        figure.text(0.03, top - 0.45 / (len(texts) + 0.3), short.replace("$", r"\$"), fontsize=9, color=pictures.INK,
                    va="top")  # fmt: skip
    return figure

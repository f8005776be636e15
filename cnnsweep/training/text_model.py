"""A network for texts as MLflow loads it, from sentences: needs Keras and NumPy, and nothing of the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.text_decoding import TextDecoding

if TYPE_CHECKING:
    import keras
    from numpy.typing import ArrayLike


class TextModel:
    """A network and the vocabulary that its inputs need."""

    def __init__(self, network: keras.Model, decoding: TextDecoding) -> None:
        self.network, self.decoding = network, decoding

    def predict(self, texts: ArrayLike, params: object = None) -> np.ndarray:  # noqa: ARG002 - MLflow gives both
        """The network's outputs (texts, values) for a list, an array or a table of texts."""
        numbers = [self.decoding.decode(str(text)) for text in np.asarray(texts).reshape(-1)]
        return np.asarray(self.network.predict(np.stack(numbers), verbose=0))


def _load_pyfunc(folder: str) -> TextModel:
    """What MLflow calls with the folder of model.keras and labels.json."""
    import keras

    labels = json.loads(Path(folder, "labels.json").read_text(encoding="utf-8"))
    network = keras.models.load_model(Path(folder, "model.keras"), compile=False, safe_mode=True)
    return TextModel(network, TextDecoding.of(labels["decoding"]))

"""The model card of an exported network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tracked_sweeps import empty_store, results, shared

from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load
from cnnsweep.export.export import Exported
from cnnsweep.export.model_card import ModelCard
from cnnsweep.export.own_layers import own_layers
from cnnsweep.tracking.stored_trials import StoredTrial
from cnnsweep.training.breakdown import break_down

__all__ = ["empty_store", "shared"]
NAMES = ("a|b", "<script>", "two\nlines", *"3456789")


def test_names_of_any_characters_leave_its_tables_whole(shared: Any) -> None:
    found = results(shared[0])
    config = compose(["data=digits", "data.limit=60"])
    data = replace(load(config.data, 0), class_names=NAMES, name="my|data <b>")
    table = break_down("classification", [(np.array([0, 1, 1]), np.eye(10)[[0, 1, 0]])], NAMES)
    measured: Any = {"metrics": {"test_accuracy": 0.5}, "images": 12, "parameters": 9, "breakdown": table}
    stored = StoredTrial("run", "uri", config, 5, {"model.pooling": "max|<i>"}, "sweep", "001")
    card = ModelCard(found, found.ranked().iloc[0], stored, data, [measured])
    lines = card.text().splitlines()
    for line in (
        r"| a\|b | 1.000 | 0.207 to 1.000 | 1 |",
        r"| \<script> | 0.500 | 0.095 to 0.905 | 2 |",
        "| two lines | – | – | 0 |",
        r"| `model.pooling` | max\|\<i> |",
        "| setting | value |",
    ):
        assert line in lines
    assert r"my\|data \<b>, from" in "\n".join(lines)
    assert "example.py" in card.text()
    assert "serve: " in Exported(Path(), card, "", "").describe()

    own = replace(card, own=("Gate", "Twice"))
    exported = Exported(Path(), own, "", "")
    for text in (own.text(), exported.describe()):
        assert "layers of its own (Gate and Twice): import" in text
        assert not re.search("example.py|serve: ", text), "they do not import them"
    assert exported.argument == ""


def test_layers_of_ones_own_are_those_that_keras_does_not_know(tmp_path: Path) -> None:
    import keras

    @keras.saving.register_keras_serializable("mine")
    class Twice(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "relu"), Twice()])
    for number, layers in enumerate(([keras.layers.Dense(2)], [inner, keras.layers.Softmax()])):
        keras.Sequential([keras.Input((4,)), *layers]).save(tmp_path / f"{number}.keras")
    assert [own_layers(tmp_path / f"{number}.keras") for number in (0, 1)] == [(), ("Twice",)]


@pytest.mark.parametrize(("channels", "advised"), [(1, "IMAGE.png"), (3, "IMAGE.png"), (2, ""), (4, "")])
def test_predict_is_advised_where_it_takes_the_images(channels: int, advised: str) -> None:
    data = load(compose(["data=digits", "data.limit=60"]).data, 0)
    nothing: Any = None
    card = ModelCard(nothing, nothing, nothing, replace(data, x_train=data.x_train.repeat(channels, -1)), [])
    assert Exported(Path(), card, "run", "1").argument == advised
